//! Who is on the other side of a connection.

use std::io;
use tokio::net::UnixStream;

/// The process that connected, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    uid: u32,
    /// Nothing where the process is in a pid namespace that this one cannot see.
    pid: Option<i32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            pid: credentials.pid().filter(|pid| *pid > 0),
        })
    }

    /// Only root changes anything. Groups are not asked for: a supplementary one does not show
    /// (measured), so the socket's mode decides who may connect at all.
    pub(super) fn is_root(self) -> bool {
        self.uid == 0
    }

    pub(super) fn pid(self) -> Option<i32> {
        self.pid
    }
}
