//! A fake agent that says what a test wants. A fake, because it does what the real one cannot be made
//! to do: tear connections, send hostile or huge answers, never answer. The real one is met in the
//! end-to-end tests.

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `METHOD PATH`.
    pub(crate) line: String,
    pub(crate) body: Value,
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
}

/// What to do about a request.
pub(crate) enum Step {
    /// Send these bytes and go on.
    Send(Vec<u8>),
    /// Send these bytes and hang up.
    Tear(Vec<u8>),
    /// Send nothing, ever, and do not hang up.
    Hold,
}

impl Request {
    pub(crate) fn is_create(&self) -> bool {
        self.line == "POST /v1/volumes"
    }
}

/// Says what to do about a request, given it and how many came before.
type Script = dyn Fn(&Request, usize) -> Step + Send + Sync;

pub(crate) struct Fake {
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Listens, and follows the script for every request.
    pub(crate) fn new(
        socket: &Path,
        script: impl Fn(&Request, usize) -> Step + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let seen = Arc::default();
        let (requests, script): (Arc<Mutex<Vec<Request>>>, Arc<Script>) =
            (Arc::clone(&seen), Arc::new(script));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (requests, script) = (Arc::clone(&requests), Arc::clone(&script));
                thread::spawn(move || serve(&stream.unwrap(), connection, &requests, &*script));
            }
        });
        Self { seen }
    }

    /// The well-behaved agent: each create gives a volume, everything else 204.
    pub(crate) fn good(socket: &Path) -> Self {
        Self::new(socket, |request, nth| {
            if request.is_create() {
                Step::Send(answer(200, &volume(nth)))
            } else {
                Step::Send(no_content())
            }
        })
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|r| r.line).collect()
    }

    pub(crate) fn creates(&self) -> usize {
        self.seen().iter().filter(|r| r.is_create()).count()
    }
}

fn serve(stream: &UnixStream, connection: usize, seen: &Mutex<Vec<Request>>, script: &Script) {
    let mut reader = BufReader::new(stream);
    while let Some((line, body)) = read_request(&mut reader) {
        let request = Request {
            line,
            body,
            connection,
        };
        let nth = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        // The driver may be gone: that is a test's matter.
        let mut writer = stream;
        match script(&request, nth) {
            Step::Send(bytes) => drop(writer.write_all(&bytes)),
            Step::Tear(bytes) => {
                drop(writer.write_all(&bytes));
                return;
            }
            Step::Hold => loop {
                thread::park();
            },
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Value)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|&n| n > 0)?;
    let mut length = 0;
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok().filter(|&n| n > 0)?;
        if field == "\r\n" {
            break;
        }
        if let Some(value) = field.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = first.strip_suffix(" HTTP/1.1\r\n").unwrap().to_owned();
    Some((line, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Milliseconds on the clock that the agent and the driver share.
pub(crate) fn boottime() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap()
}

pub(crate) fn id(nth: usize) -> String {
    format!("{nth:032x}")
}

/// A volume with two files, one for the group 2000.
pub(crate) fn volume(nth: usize) -> Value {
    json!({
        "id": id(nth),
        "attach_by": boottime() + 60_000,
        "directory": {"mode": 0o751, "owner": {"uid": 0, "gid": 2000}, "size": 65536},
        "files": [
            {"name": "token", "mode": 0o640, "owner": {"uid": 0, "gid": 2000}, "bytes": "cy5zZWNyZXQ="},
            {"name": "token.json", "mode": 0o604, "owner": {"uid": 7, "gid": 8}, "bytes": "e30K"},
        ],
    })
}

pub(crate) fn answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) fn refusal(status: u16, message: &str) -> Vec<u8> {
    answer(status, &json!({"reason": "test", "message": message}))
}

pub(crate) fn no_content() -> Vec<u8> {
    b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
}
