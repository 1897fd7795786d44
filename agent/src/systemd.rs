//! The one place that speaks to systemd, the log aside: the socket that it passes, what it is told,
//! its watchdog.

use crate::line::one_line;
use std::env;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;
use systemd::daemon::{self, Listening, SocketType};

/// Where a service manager hears what its services say (`sd_notify(3)`).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How many sockets there are for this process (`sd_listen_fds(3)`).
const LISTEN_FDS: &str = "LISTEN_FDS";

/// Longer texts of a status are cut, in bytes.
const LONGEST_STATUS: usize = 8 * 1024;

/// Does systemd run this process as a service? Then it starts it anew when it ends, and gives a
/// socket up for good whose service keeps ending.
#[must_use]
pub fn runs_us() -> bool {
    [NOTIFY_SOCKET, LISTEN_FDS]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The socket that systemd listens on for this process, where there is one. It stays systemd's: others
/// have it, too, and its file outlives this process. To be called once.
///
/// # Errors
/// What was passed is not one listening Unix stream socket.
pub fn passed_socket() -> Result<Option<UnixListener>, String> {
    let passed = daemon::listen_fds_with_names()
        .map_err(|error| format!("the sockets that were passed cannot be told: {error}"))?;
    let Some((fd, name)) = passed.iter().next() else {
        return Ok(None);
    };
    let name = name.to_string_lossy();
    if passed.len() > 1 {
        let count = passed.len();
        return Err(format!("{count} sockets were passed, one is expected"));
    }
    let fits = daemon::is_socket_unix(
        fd,
        Some(SocketType::Stream),
        Listening::IsListening,
        None::<&str>,
    );
    if !matches!(fits, Ok(true)) {
        return Err(format!(
            "what was passed as descriptor {fd} ({name}) is not a listening Unix stream socket"
        ));
    }
    #[expect(
        unsafe_code,
        reason = "a descriptor that another program left here has no owner; nothing safe can take it"
    )]
    // SAFETY: it is open, as was just seen; nothing else in this process knows it, and this is
    // called once.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let socket = UnixListener::from(socket);
    socket
        .set_nonblocking(true)
        .map_err(|error| format!("descriptor {fd} ({name}): {error}"))?;
    Ok(Some(socket))
}

/// Says that the socket is served.
pub fn say_ready() {
    notify(daemon::STATE_READY, "1");
}

/// Says that no further connection is accepted.
pub fn say_stopping() {
    notify(daemon::STATE_STOPPING, "1");
}

/// Says that the process is alive.
pub fn say_alive() {
    notify(daemon::STATE_WATCHDOG, "1");
}

/// Says in words how it is: what `systemctl status` shows.
pub fn say_status(text: &str) {
    // A message is lines of assignments: a line end in a text would begin another.
    notify(daemon::STATE_STATUS, &one_line(text, LONGEST_STATUS));
}

fn notify(what: &str, value: &str) {
    // Without a service manager nobody hears it, and there is nobody to tell of an error.
    let _ = daemon::notify([(what, value)].iter());
}

/// How often systemd wants to hear that the process is alive, where it does.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    match daemon::watchdog_enabled() {
        Ok(0) | Err(_) => None,
        Ok(microseconds) => Some(Duration::from_micros(microseconds)),
    }
}
