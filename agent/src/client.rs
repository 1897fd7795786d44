//! One call to the running agent.

use crate::config::{self, ProcessEnvironment};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::{self, Client};
use hyperlocal::{UnixClientExt, UnixConnector, Uri};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use vaulttmpfs_api::Refusal;

/// The agent asks Vault a few times for some calls, each within `VAULT_CLIENT_TIMEOUT`.
const PATIENCE: Duration = Duration::from_secs(150);

/// What the agent shows it has in memory: one that takes longer hangs.
const PATIENCE_TO_LOOK: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes: the list of some thousand volumes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What became of a look at the agent.
pub enum Unseen {
    /// There was no answer; a line that says why and what to do.
    NoAnswer(String),
    /// It was answered, but not with what was asked for; a line that says why.
    Refused(String),
}

/// One call, for a command that has nothing else to do meanwhile. Answers with the status and the
/// body.
///
/// # Errors
/// There was no answer; a line that says why and what to do.
pub fn request(method: &Method, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    runtime()?.block_on(call(method, path, body, PATIENCE))
}

/// One look at what the agent shows at this path, as [`look`], for a command that has nothing else to
/// do meanwhile.
///
/// # Errors
/// It could not be seen.
pub fn look_now(path: &str) -> Result<Vec<u8>, Unseen> {
    runtime().map_err(Unseen::NoAnswer)?.block_on(look(path))
}

/// One look at what the agent shows at this path.
///
/// # Errors
/// It could not be seen.
pub async fn look(path: &str) -> Result<Vec<u8>, Unseen> {
    let answer = call(&Method::GET, path, b"", PATIENCE_TO_LOOK).await;
    let (status, body) = answer.map_err(Unseen::NoAnswer)?;
    if status == 200 {
        Ok(body)
    } else {
        Err(Unseen::Refused(refusal(status, &body)))
    }
}

/// Does anyone take connections at this socket? systemd's socket starts the agent for it. The answer
/// comes at once: a full socket is not waited for.
///
/// # Errors
/// The system has no room for the question.
pub fn is_served(socket: &Path) -> Result<bool, String> {
    use ErrorKind::{ConnectionRefused, NotFound};
    let connected = runtime()?.block_on(UnixStream::connect(socket));
    // A socket that is full or not for this user has an agent behind it.
    Ok(!connected.is_err_and(|error| matches!(error.kind(), NotFound | ConnectionRefused)))
}

/// What drives a call.
///
/// # Errors
/// The system has no room for it.
pub fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {error}"))
}

/// One call that must be answered with success. Answers with the body.
///
/// # Errors
/// It was not; a line that says why.
pub fn succeed(method: &Method, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    match request(method, path, body)? {
        (200..300, answer) => Ok(answer),
        (status, answer) => Err(refusal(status, &answer)),
    }
}

fn refusal(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => format!("the agent answered with status {status}"),
    }
}

async fn call(
    method: &Method,
    path: &str,
    body: &[u8],
    patience: Duration,
) -> Result<(u16, Vec<u8>), String> {
    let socket = config::locations(&ProcessEnvironment).socket;
    let answer = exchange(&socket, method, path, body);
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "the agent at {} did not answer within {} s: does it hang?",
            socket.display(),
            patience.as_secs()
        )),
    }
}

/// The same, within whatever time the caller gives it.
///
/// # Errors
/// As for [`request`].
pub async fn exchange(
    socket: &Path,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<(u16, Vec<u8>), String> {
    let request = Request::builder()
        .method(method)
        .uri(Uri::new(socket, path))
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body)))
        .map_err(|error| error.to_string())?;
    let client: Client<UnixConnector, Full<Bytes>> = Client::unix();
    let answer = client
        .request(request)
        .await
        .map_err(|error| no_answer(socket, &error))?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| format!("the agent's answer broke off: {error}"))?;
    Ok((status, body.to_bytes().to_vec()))
}

fn no_answer(socket: &Path, error: &legacy::Error) -> String {
    let socket = socket.display();
    match io_error(error).map(io::Error::kind) {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            format!("no agent serves {socket}: is it running, and VAULTTMPFS_SOCKET the same?")
        }
        Some(ErrorKind::PermissionDenied) => {
            format!("{socket} is not for this user: ask as root")
        }
        _ => format!("the agent at {socket} gave no answer: {error}"),
    }
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
    use nix::sys::socket::{bind, listen, socket};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::{fs, thread};

    #[test]
    fn a_full_socket_is_served_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert_eq!(is_served(&path), Ok(false));
        fs::write(&path, "").unwrap();
        assert_eq!(is_served(&path), Ok(false));
        fs::remove_file(&path).unwrap();

        let kind = (AddressFamily::Unix, SockType::Stream);
        let listener = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(is_served(&path), Ok(false));
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let (said, answers) = mpsc::channel();
        // Nobody accepts: what comes after the first few would wait for ever, if it waited.
        thread::spawn(move || {
            for _ in 0..8 {
                said.send(is_served(&path)).unwrap();
            }
        });
        for _ in 0..8 {
            let answer = answers.recv_timeout(PATIENCE_TO_LOOK);
            assert_eq!(answer, Ok(Ok(true)));
        }
    }
}
