//! What the program's exit status means.

use std::process::{ExitCode, Termination};

/// The exit status, with the numbers of `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Done,
    /// Something failed that is not the caller's doing.
    Failed,
    /// There is no agent to ask.
    NotRunning,
    /// Something was left as it is, on purpose.
    LeftAlone,
    /// Wrong arguments, or bad settings.
    Usage,
    /// Something is in use that this process needs for itself, or cannot be used.
    Unavailable,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::NotRunning => 2,
            Self::LeftAlone => 3,
            Self::Usage => 64,
            Self::Unavailable => 69,
        })
    }
}
