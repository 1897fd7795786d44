//! What the process does before anything else.

use crate::{answer, sys};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::dup2_stderr;
use std::panic;

/// Takes on all habits. What cannot be had is done without: a call that could be answered is never
/// given up for it.
pub(crate) fn take() {
    silence_stderr();
    answer_panics();
    // Neither a core dump nor another process of ours may show the token.
    let _ = prctl::set_dumpable(false);
}

/// The kubelet reads standard output and standard error as one text: one byte of a stranger's
/// warning breaks the JSON.
fn silence_stderr() {
    if let Ok(null) = open(
        "/dev/null",
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    ) {
        let _ = dup2_stderr(null);
    }
}

/// A panic is answered like any failure. The exit code is 0 then, too: for any other the kubelet logs
/// the whole argv, and the pod's secrets are in it.
fn answer_panics() {
    panic::set_hook(Box::new(|_| {
        answer::give(answer::PANICKED);
        sys::exit();
    }));
}
