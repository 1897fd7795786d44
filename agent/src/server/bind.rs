//! The socket that the agent makes itself.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, umask};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// A socket's file that is this agent's: removed when dropped, unless another has taken its place.
pub struct OwnSocket {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

/// Binds a socket of the agent's own, for root alone. One that a dead agent left is replaced; one
/// that another agent serves is not.
///
/// # Errors
/// What is wrong with the path.
pub fn bind(path: &Path) -> io::Result<(UnixListener, OwnSocket)> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        remove_if_dead(path)?;
    }
    // Nobody else may connect in the moment between bind and chmod.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let own = OwnSocket {
        path: path.to_owned(),
        file: identity(path)?,
    };
    Ok((listener, own))
}

/// Only a refused connection says that nobody listens any more.
fn remove_if_dead(path: &Path) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        Err(Errno::ENOENT) => Ok(()),
        Ok(()) | Err(Errno::EAGAIN) => {
            let message = "another agent serves it: stop it first";
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
        Err(error) => Err(error.into()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // A stale one would make a shim wait for nobody; that it stays is all that can happen.
            let _ = fs::remove_file(&self.path);
        }
    }
}
