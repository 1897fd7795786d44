//! What the program's exit status means.

use crate::failure::Reason;
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
    /// Something that was handed over is spent, or not what it should be.
    BadData,
    /// Something is in use that this process needs for itself, or cannot be used.
    Unavailable,
    /// Vault refused it.
    Denied,
    /// A signal ended it before it was done.
    Interrupted,
}

impl Exit {
    /// What a failure of this class comes to, for a command that needs Vault.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::BadSettings => Self::Usage,
            Reason::VaultUnreachable
            | Reason::VaultSealed
            | Reason::VaultBusy
            | Reason::TimedOut => Self::Unavailable,
            Reason::GeneratorToken | Reason::VaultRefused => Self::Denied,
            _ => Self::Failed,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::NotRunning => 2,
            Self::LeftAlone => 3,
            Self::Usage => 64,
            Self::BadData => 65,
            Self::Unavailable => 69,
            Self::Denied => 77,
            // As a shell says it of one that SIGINT ended.
            Self::Interrupted => 130,
        })
    }
}
