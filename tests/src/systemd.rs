//! What a service manager is to the agent, without one: a socket that it listens on and passes, and
//! another on which it hears how the agent is. That a real systemd does the same is for the tests
//! that boot one.

use crate::inbox::Inbox;
use crate::{Node, Said, eventually};
use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Becomes its arguments, with standard input as the one socket that systemd passes (`sd_listen_fds(3)`).
pub(crate) const PASS_SOCKET: &str =
    r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@""#;

/// A socket unit with its service.
pub struct Manager {
    listener: UnixListener,
    notify: Inbox,
    notify_path: PathBuf,
    /// What it has heard and nobody has asked for.
    heard: Mutex<VecDeque<String>>,
}

impl Manager {
    /// Listens on the node's socket.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let path = node.socket();
        let listener = UnixListener::bind(&path).expect("the agent's socket");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
        let notify_path = node.path("run/notify");
        let notify = UnixDatagram::bind(&notify_path).expect("a socket to hear by");
        fs::set_permissions(&notify_path, Permissions::from_mode(0o666)).expect("its mode");
        Self {
            listener,
            notify: Inbox::of(notify),
            notify_path,
            heard: Mutex::default(),
        }
    }

    /// The socket to pass.
    pub(crate) fn socket(&self) -> OwnedFd {
        self.listener.try_clone().expect("the socket").into()
    }

    /// What the agent calls by, `NOTIFY_SOCKET`.
    pub(crate) fn notify_path(&self) -> &Path {
        &self.notify_path
    }

    /// Everything heard since the last question.
    pub fn heard(&self) -> Vec<String> {
        let mut heard = self.heard.lock().expect("no panic meanwhile");
        for message in self.notify.take() {
            heard.push_back(String::from_utf8_lossy(&message).into_owned());
        }
        heard.drain(..).collect()
    }

    /// Waits for a message that begins so and has these words; what comes before it is forgotten.
    #[track_caller]
    pub fn hears(&self, begin: &str, words: &[&str]) -> String {
        eventually(&format!("systemd to hear {begin} {words:?}"), || {
            let mut heard = self.heard();
            let is_it = |text: &String| {
                text.starts_with(begin) && words.iter().all(|word| text.contains(word))
            };
            let place = heard.iter().position(is_it)?;
            let rest = heard.split_off(place + 1);
            let mut kept = self.heard.lock().expect("no panic meanwhile");
            for text in rest.into_iter().rev() {
                kept.push_front(text);
            }
            heard.pop()
        })
    }
}

/// What the agent says and how it ends where something else was passed than the socket it wants.
#[must_use]
pub fn with_passed(node: &Node, passed: Stdio) -> Said {
    Said::by(
        Command::new("sh")
            .args(["-c", PASS_SOCKET, "sh"])
            .arg(crate::binaries::agent())
            .arg("agent")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("VAULTTMPFS_STATE_DIR", node.path("state"))
            .stdin(passed),
    )
}
