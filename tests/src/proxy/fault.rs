//! What can be wrong with an answer.

use serde_json::json;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// No answer is held longer: a test that releases none does not hang, and fails where its agent waits no longer
/// for Vault than it does by default.
const LONGEST_HOLD: Duration = Duration::from_secs(100);

/// What is wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Vault is not asked, and this is the whole answer.
    Instead(Vec<u8>),
    /// Vault is asked, and this is the whole answer all the same.
    InsteadOfItsAnswer(Vec<u8>),
    /// Vault is asked, only so many bytes of its answer pass, then the connection ends.
    Cut(usize),
    /// Vault is not asked, and an answer of so many bytes of JSON begins to flow.
    Flood(u64),
    /// Vault is not asked, and nothing ever comes.
    Silence,
    /// Vault is not asked, and the connection ends.
    HangUp,
    /// Vault is asked, and its answer comes so much later.
    Late(Duration),
    /// Vault is asked, and its answer comes when the proxy is told to release it.
    Held(Arc<Gate>),
    /// All is well, but the connection ends without a word after the answer.
    CloseAfter,
}

/// Shut until it is opened, once and for all.
#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub(super) fn pass(&self) {
        let open = self.open.lock().unwrap();
        let shut = |open: &mut bool| !*open;
        let waited = self.opened.wait_timeout_while(open, LONGEST_HOLD, shut);
        drop(waited.unwrap());
    }
}

impl Fault {
    /// An answer that is held until [`Proxy::release`](super::Proxy::release).
    #[must_use]
    pub fn held() -> Self {
        Self::Held(Arc::default())
    }

    /// An error as Vault words it.
    #[must_use]
    pub fn error(status: u16, text: &str) -> Self {
        Self::error_with(status, text, &[])
    }

    /// An error as Vault words it, with more headers.
    #[must_use]
    pub fn error_with(status: u16, text: &str, headers: &[(&str, &str)]) -> Self {
        let body = json!({ "errors": [text] }).to_string();
        Self::Instead(answer(status, "application/json", headers, &body))
    }

    /// An error page of a gateway that stands before Vault.
    #[must_use]
    pub fn page(status: u16) -> Self {
        let body = "<html><body><h1>Something is wrong</h1></body></html>";
        Self::Instead(answer(status, "text/html", &[], body))
    }

    /// A success that is no JSON.
    #[must_use]
    pub fn text(body: &str) -> Self {
        Self::Instead(answer(200, "application/json", &[], body))
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(location: &str) -> Self {
        Self::Instead(answer(307, "text/plain", &[("Location", location)], ""))
    }
}

fn answer(status: u16, kind: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let length = body.len().to_string();
    let own = [("Content-Type", kind), ("Content-Length", length.as_str())];
    let lines = own.iter().chain(headers);
    let lines: String = lines
        .map(|(name, value)| [name, ": ", value, "\r\n"].concat())
        .collect();
    format!("HTTP/1.1 {status} Fault\r\n{lines}\r\n{body}").into_bytes()
}
