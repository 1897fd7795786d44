//! The agent's socket as a program other than the driver uses it: through hyperlocal, the client
//! that the admin's commands use too.

use crate::evidence;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, UnixConnector, Uri};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the agent said.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether the agent said yes.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, null where it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// One call, or nothing when no whole answer came of it.
pub(crate) fn call(socket: &Path, method: &str, path: &str, body: &str) -> Option<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let request = Request::builder()
        .method(method)
        .uri(Uri::new(socket, path))
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("a request");
    let answer =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange(request)).await });
    let answer = answer.expect("the agent's answer in time");
    // Others hand a volume over.
    if let (Some(answer), "GET") = (&answer, method) {
        evidence::keep_output("the agent's answers", &answer.body);
    }
    answer
}

async fn exchange(request: Request<Full<Bytes>>) -> Option<Answer> {
    let client: Client<UnixConnector, Full<Bytes>> = Client::unix();
    let answer = client.request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Answer { status, body })
}
