//! The one JSON line that the kubelet reads (`pkg/volume/flexvolume`, `DriverStatus`).

use crate::sys;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a call comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `init`: what the kubelet must do itself and what not.
    Capabilities,
    /// It is done.
    Success,
    /// The verb is none of ours; the kubelet then has a way of its own.
    NotSupported,
    /// It is not done, for this reason.
    Failure(String),
    /// To a person: no JSON.
    Text(&'static str),
}

/// No attach and detach; the kubelet relabels for `SELinux` where it manages the volume; files have
/// their group from the start, so no recursive chown; no resize.
const CAPABILITIES: &str = r#"{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":true,"fsGroup":false,"requiresFSResize":false}}"#;

const SUCCESS: &str = r#"{"status":"Success"}"#;

/// The answer of a call that panicked. Without the panic's own text, which may quote anything.
pub(crate) const PANICKED: &[u8] =
    b"{\"status\":\"Failure\",\"message\":\"vaulttmpfs: the driver met a fault of its own (a panic) and gave up this call; please report it with the pod's manifest\"}\n";

/// The answer of a call that found no memory; a constant, for there is none to write it with.
pub(crate) const OUT_OF_MEMORY: &[u8] =
    b"{\"status\":\"Failure\",\"message\":\"vaulttmpfs: the driver ran out of memory: does the kubelet's cgroup or a ulimit leave it a few MiB?\"}\n";

/// The longest message in bytes before escaping. With the worst escaping the line still fits an empty
/// pipe, so that one write is enough.
const MAX_MESSAGE: usize = 2000;

static GIVEN: AtomicBool = AtomicBool::new(false);
static STANDS: AtomicBool = AtomicBool::new(false);

impl Answer {
    /// The bytes for standard output, with a newline.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = match self {
            Self::Capabilities => CAPABILITIES.to_owned(),
            Self::Success => SUCCESS.to_owned(),
            Self::NotSupported => r#"{"status":"Not supported"}"#.to_owned(),
            Self::Failure(message) => failure(message),
            Self::Text(text) => (*text).to_owned(),
        };
        line.push('\n');
        line.into_bytes()
    }
}

fn failure(message: &str) -> String {
    let text = serde_json::Value::from(format!("vaulttmpfs: {}", cut(message, MAX_MESSAGE)));
    format!(r#"{{"status":"Failure","message":{text}}}"#)
}

/// The beginning of a text, at most `max` bytes of it.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rfind(|&i| text.is_char_boundary(i));
    &text[..end.unwrap_or_default()]
}

/// Writes an answer, in one write, unless one was written before. A reader that has gone away gets
/// nothing, and nothing is to be done about it.
pub(crate) fn give(line: &[u8]) {
    if !GIVEN.swap(true, Ordering::Relaxed) {
        sys::write_stdout(line);
    }
}

/// Says whether the volume stands: whole and attached. Whatever fault comes then, Success is the true
/// answer, for a failed mount must leave nothing mounted.
pub(crate) fn volume_stands(stands: bool) {
    STANDS.store(stands, Ordering::Relaxed);
}

/// Gives the answer of a call that cannot go on. Takes no memory.
pub(crate) fn give_up(line: &[u8]) {
    if STANDS.load(Ordering::Relaxed) {
        give(SUCCESS.as_bytes());
    } else {
        give(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed(answer: &Answer) -> Value {
        let line = answer.line();
        assert_eq!(line.split(|&b| b == b'\n').count(), 2);
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn every_answer_is_one_line_of_json() {
        let init = parsed(&Answer::Capabilities);
        assert_eq!(init["status"], "Success");
        assert_eq!(init["capabilities"]["attach"], false);
        assert_eq!(init["capabilities"]["selinuxRelabel"], true);
        assert_eq!(init["capabilities"]["fsGroup"], false);
        assert_eq!(init["capabilities"]["requiresFSResize"], false);
        assert_eq!(parsed(&Answer::Success)["status"], "Success");
        assert_eq!(parsed(&Answer::NotSupported)["status"], "Not supported");
        for constant in [PANICKED, OUT_OF_MEMORY] {
            let value: Value = serde_json::from_slice(constant).unwrap();
            assert_eq!(value["status"], "Failure");
            assert!(constant.ends_with(b"\n"));
        }
    }

    #[test]
    fn a_failure_is_escaped_and_bounded() {
        let hostile = "a\"b\\c\n\u{0}\u{1b}é</script>";
        let value = parsed(&Answer::Failure(hostile.into()));
        assert_eq!(value["message"], format!("vaulttmpfs: {hostile}"));
        for unit in ["x", "é", "\u{1}", "𝄞"] {
            let line = Answer::Failure(unit.repeat(100_000)).line();
            assert!(line.len() < 16 * 1024);
            serde_json::from_slice::<Value>(&line).unwrap();
        }
    }
}
