//! Descriptors that the runtime waits for.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime wait for a descriptor.
///
/// # Errors
/// The kernel will not have it waited for.
pub fn follow(fd: impl Into<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "what may go wrong with other types cannot with one that owns its descriptor; the replacement is unsafe"
    )]
    AsyncFd::with_interest(fd.into(), interest)
}
