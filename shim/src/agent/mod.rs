//! The agent's side of a call: HTTP/1.1 over its Unix socket, bounded in time and size.

mod delivery;
mod http;

pub use delivery::{Delivery, FileContent};
pub use http::{Head, parse_head};

use crate::clock::Deadline;
use crate::secret::Secret;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vaulttmpfs_api::{MAX_REQUEST, MountDir, MountRequest, Refusal, VOLUMES_PATH, VolumeId};

/// The first pause before a call is repeated, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How much is asked of the socket at first; a usual answer with a CA certificate in it fits.
const FIRST_READ: usize = 4 * 1024;

/// The agent's socket, and the connection to it while it lasts.
pub struct Agent {
    socket: PathBuf,
    connection: Option<UnixStream>,
    /// Whether it was ever there: then, when it is not, it is worth waiting for.
    met: bool,
}

/// A whole answer. Wiped when dropped, for it holds the token.
pub struct Reply {
    status: u16,
    bytes: Secret,
    body: usize,
}

/// What the agent says of a volume that it is told is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It knows, or cannot be told: the volume stays.
    Stays,
    /// The volume has ended and its token is revoked: it must go.
    Ended,
}

/// Why the agent gave no volume.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens on the socket.
    Away(PathBuf, Errno),
    /// The socket cannot be used.
    Unusable(PathBuf, Errno),
    /// The connection ended before a whole answer.
    Torn,
    /// Time ran out.
    Slow,
    /// The request is larger than the agent takes; its size in bytes.
    TooLarge(usize),
    /// The answer is not one of this contract; why.
    Odd(Cow<'static, str>),
    /// The agent refused, with this message, or only with this status.
    Refused(u16, Option<String>),
}

impl Agent {
    /// The agent at this socket; nothing is connected yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            connection: None,
            met: false,
        }
    }

    /// Asks for a volume. `request` is told the time left in milliseconds by this function.
    pub fn volume(
        &mut self,
        request: &mut MountRequest<'_>,
        until: Deadline,
    ) -> Result<Reply, Error> {
        let reply = self.call(until, |left| {
            request.left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let body = serde_json::to_vec(request)
                .map_err(|_| Error::Odd("the request cannot be written".into()))?;
            if body.len() > MAX_REQUEST {
                return Err(Error::TooLarge(body.len()));
            }
            Ok(http::post(VOLUMES_PATH, &body))
        })?;
        match reply.status {
            200 => Ok(reply),
            status => Err(Error::Refused(status, reply.refusal())),
        }
    }

    /// Tells that a volume is attached. Only an agent that says so itself ends it: whatever else goes
    /// wrong, the mount is there and the agent will see it.
    pub fn attached(&mut self, id: VolumeId, until: Deadline) -> Told {
        let request = http::post(&format!("{VOLUMES_PATH}/{id}/attached"), b"");
        match self.call(until, |_| Ok(request.clone())) {
            Ok(Reply { status: 410, .. }) => Told::Ended,
            _ => Told::Stays,
        }
    }

    /// Tells that nothing is mounted on a directory any more. An agent that does not hear it finds
    /// out from the mount table.
    pub fn unmounted(&mut self, dir: &MountDir, until: Deadline) {
        let path = format!("{VOLUMES_PATH}?mount_dir={}", percent_encoded(dir.as_str()));
        let request = http::request("DELETE", &path, b"");
        let _ = self.call(until, |_| Ok(request.clone()));
    }

    /// Sends a request and reads its answer, again and again while connections end in between: the
    /// agent was restarted, and it makes a repeated request safe.
    fn call(
        &mut self,
        until: Deadline,
        mut request: impl FnMut(Duration) -> Result<Vec<u8>, Error>,
    ) -> Result<Reply, Error> {
        let (mut pause, longest) = PAUSES;
        loop {
            let bytes = request(until.left().ok_or(Error::Slow)?)?;
            match self.exchange(&bytes, until) {
                Err(Error::Torn) if until.pause(pause) => {}
                Err(Error::Away(..)) if self.met && until.pause(pause) => {}
                other => return other,
            }
            pause = (pause * 2).min(longest);
        }
    }

    fn exchange(&mut self, request: &[u8], until: Deadline) -> Result<Reply, Error> {
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => connect_within(&self.socket, until)?,
        };
        self.met = true;
        send(&mut stream, request, until)?;
        let (reply, keep) = receive(&mut stream, until)?;
        if keep {
            self.connection = Some(stream);
        }
        Ok(reply)
    }
}

impl Reply {
    /// The answer's body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body..]
    }

    fn refusal(&self) -> Option<String> {
        let refusal: Refusal = serde_json::from_slice(self.body()).ok()?;
        (!refusal.message.is_empty()).then_some(refusal.message)
    }
}

/// Connects with the time-outs set before: a full backlog would wait without end.
fn connect_within(path: &Path, until: Deadline) -> Result<UnixStream, Error> {
    let unusable = |e| Error::Unusable(path.to_owned(), e);
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(unusable)?;
    let left = until.left().ok_or(Error::Slow)?;
    let left = TimeVal::milliseconds(left.as_millis().try_into().unwrap_or(i64::MAX));
    setsockopt(&fd, sockopt::SendTimeout, &left).map_err(unusable)?;
    let address = UnixAddr::new(path).map_err(unusable)?;
    match connect(fd.as_raw_fd(), &address) {
        Ok(()) => Ok(fd.into()),
        Err(e @ (Errno::ENOENT | Errno::ECONNREFUSED)) => Err(Error::Away(path.to_owned(), e)),
        Err(Errno::EAGAIN) => Err(Error::Slow),
        Err(e) => Err(unusable(e)),
    }
}

fn send(stream: &mut UnixStream, mut bytes: &[u8], until: Deadline) -> Result<(), Error> {
    while !bytes.is_empty() {
        let left = until.left().ok_or(Error::Slow)?;
        let sent = stream
            .set_write_timeout(Some(left))
            .and_then(|()| stream.write(bytes));
        match ended(sent)? {
            Some(0) => return Err(Error::Torn),
            Some(count) => bytes = &bytes[count..],
            None => {}
        }
    }
    Ok(())
}

/// Reads one answer; says besides whether the connection can be used again.
fn receive(stream: &mut UnixStream, until: Deadline) -> Result<(Reply, bool), Error> {
    let mut bytes = Secret::zeros(FIRST_READ);
    let mut filled = 0;
    let mut head: Option<Head> = None;
    loop {
        let left = until.left().ok_or(Error::Slow)?;
        let got = stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.read(&mut bytes[filled..]));
        match ended(got)? {
            Some(0) => return Err(Error::Torn),
            Some(count) => filled += count,
            None => continue,
        }
        if head.is_none() {
            head = parse_head(&bytes[..filled]).map_err(|e| Error::Odd(e.into()))?;
        }
        let Some(head) = &head else {
            continue;
        };
        let whole = head.length + head.body;
        if filled > whole {
            return Err(Error::Odd("there is more than its length says".into()));
        }
        if filled == whole {
            bytes.truncate(whole);
            let reply = Reply {
                status: head.status,
                bytes,
                body: head.body,
            };
            return Ok((reply, head.keep));
        }
        if bytes.len() < whole {
            bytes = grown(&bytes[..filled], whole);
        }
    }
}

/// A copy with room for more; unlike a vector that grows by itself it leaves no secret behind.
fn grown(old: &[u8], size: usize) -> Secret {
    let mut new = Secret::zeros(size);
    new[..old.len()].copy_from_slice(old);
    new
}

/// Sorts the outcome of a read or write: nothing when it is worth another try.
fn ended(outcome: io::Result<usize>) -> Result<Option<usize>, Error> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(e) => match e.kind() {
            io::ErrorKind::Interrupted => Ok(None),
            io::ErrorKind::WouldBlock => Err(Error::Slow),
            _ => Err(Error::Torn),
        },
    }
}

/// Everything but RFC 3986's unreserved characters and the slash, which a query may hold, as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(socket, e) => write!(
                f,
                "no agent listens on {} ({}): is it running? See `systemctl status vaulttmpfs-agent.socket`",
                socket.display(),
                e.desc()
            ),
            Self::Unusable(socket, e) => {
                write!(f, "the agent's socket {} cannot be used: {}", socket.display(), e.desc())
            }
            Self::Torn => f.write_str(
                "the agent went away before it had answered, and did not answer since: see `journalctl -u vaulttmpfs-agent`",
            ),
            Self::Slow => f.write_str(
                "the agent is too slow and the time of this mount is over: see `vaulttmpfs status`; the kubelet will come again",
            ),
            Self::TooLarge(size) => write!(
                f,
                "the volume's options are too large: {size} bytes as JSON, and the agent takes {MAX_REQUEST}"
            ),
            Self::Odd(why) => write!(
                f,
                "the agent's answer makes no sense: {why}. Is it vaulttmpfs' agent that listens there, and not a much older or newer one?"
            ),
            Self::Refused(_, Some(message)) => f.write_str(message),
            Self::Refused(status, None) => write!(
                f,
                "the agent refused with status {status} and gave no reason: see `journalctl -u vaulttmpfs-agent`"
            ),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded() {
        for (text, encoded) in [
            (
                "/k/pods/u-1/volumes/cloudwatt~vaulttmpfs/v.1_",
                "/k/pods/u-1/volumes/cloudwatt~vaulttmpfs/v.1_",
            ),
            ("/a b&c=d%2e+é?#", "/a%20b%26c%3Dd%252e%2B%C3%A9%3F%23"),
        ] {
            assert_eq!(percent_encoded(text), encoded);
        }
    }
}
