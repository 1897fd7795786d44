//! The file with the generator token: reading it, and noticing that it changed.

use crate::config::variables::NO_CREDENTIAL;
use crate::descriptor;
use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use secrecy::SecretString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

/// The longest generator token that is read, in bytes.
const MAX_TOKEN: u64 = 8 * 1024;

/// Reads the generator token: one line.
///
/// # Errors
/// There is none, or the file cannot be read.
pub fn read(path: &Path) -> io::Result<SecretString> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    // Not to wait for a writer, should it be a pipe.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a file"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_TOKEN + 1).read_to_string(&mut text)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(invalid("it is empty"));
    }
    if token == NO_CREDENTIAL {
        return Err(invalid("there is none yet"));
    }
    if text.len() as u64 > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid(
            "it is not a token: one line of letters, digits and signs is expected",
        ));
    }
    Ok(SecretString::from(token))
}

/// Hears of every change in the file's directory: a file that is renamed into its place is another
/// file, and a watch on the file itself would stay with the old one.
pub(super) struct Watch {
    events: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Watch {
    pub(super) fn on(directory: &Path) -> io::Result<Self> {
        let events = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        events.add_watch(directory, changes)?;
        let ready = events.as_fd().try_clone_to_owned()?;
        let ready = descriptor::follow(ready, Interest::READABLE)?;
        Ok(Self { events, ready })
    }

    /// Waits for a change. False: the directory itself has gone, and nothing more will be heard.
    pub(super) async fn changed(&self) -> io::Result<bool> {
        self.ready.readable().await?.clear_ready();
        self.drain()
    }

    /// Forgets the changes up to now. False as for [`Self::changed`].
    pub(super) fn drain(&self) -> io::Result<bool> {
        let gone = AddWatchFlags::IN_IGNORED
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT;
        loop {
            match self.events.read_events() {
                Ok(events) if events.iter().any(|event| event.mask.intersects(gone)) => {
                    return Ok(false);
                }
                Ok(events) if !events.is_empty() => {}
                Ok(_) | Err(nix::Error::EAGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn one_line_is_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(read(&path).is_err());
        fs::write(&path, "s.abc\n").unwrap();
        assert_eq!(read(&path).unwrap().expose_secret(), "s.abc");
        for bad in [
            "",
            "\n",
            "none\n",
            "two words",
            "s.a\ns.b",
            &"x".repeat(9000),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err());
        }
    }

    #[tokio::test]
    async fn changes_are_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let watch = Watch::on(directory.path()).unwrap();
        let heard = async || {
            let heard = tokio::time::timeout(Duration::from_secs(5), watch.changed()).await;
            heard.unwrap().unwrap()
        };
        fs::write(&path, "a").unwrap();
        assert!(heard().await);
        watch.drain().unwrap();
        fs::write(directory.path().join("new"), "b").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert!(heard().await);
        fs::remove_file(&path).unwrap();
        fs::remove_dir(directory.path()).unwrap();
        while heard().await {}
    }
}
