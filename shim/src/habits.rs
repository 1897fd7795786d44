//! What the process does before anything else.

use crate::{answer, sys};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::dup2_stderr;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::panic;

/// Input, output and errors are 0, 1 and 2.
const STANDARD_DESCRIPTORS: RawFd = 2;

/// Takes on all habits. What cannot be had is done without: a call that could be answered is never
/// given up for it.
pub(crate) fn take() {
    silence_stderr();
    sys::ignore_sigpipe();
    answer_panics();
    // Neither a core dump nor another process of ours may show the token.
    let _ = prctl::set_dumpable(false);
}

/// The kubelet reads standard output and standard error as one text: one byte of a stranger's
/// warning breaks the JSON. A standard descriptor that is closed is filled as well, so that nothing
/// else that is opened becomes the place to which the answer goes.
fn silence_stderr() {
    while let Ok(null) = open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        if null.as_raw_fd() > STANDARD_DESCRIPTORS {
            let _ = dup2_stderr(null);
            return;
        }
        let _ = null.into_raw_fd();
    }
}

/// A panic is answered like any failure. The exit code is 0 then, too: for any other the kubelet logs
/// the whole argv, and the pod's secrets are in it.
fn answer_panics() {
    panic::set_hook(Box::new(|_| {
        answer::give_up(answer::PANICKED);
        sys::exit();
    }));
}
