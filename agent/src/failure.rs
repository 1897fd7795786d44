//! Why a call was not served.

use std::fmt;

/// A call that was not served.
///
/// The message is shown to whoever called, for example in a pod's events, and in the log; it says
/// what is wrong and what to do, and never holds a token or an accessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class of the failure.
    pub reason: Reason,
    /// For a person.
    pub message: String,
}

/// The class of a failure: a constant word for programs and an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request is not one of the contract's.
    BadRequest,
    /// Nothing is served under that path.
    NotFound,
    /// The path is served, but not by that method.
    BadMethod,
    /// The caller may not change anything.
    Forbidden,
    /// The request is too large.
    TooLarge,
    /// The pod's options are wrong.
    BadOptions,
    /// The agent's own settings are wrong.
    BadSettings,
    /// These policies are never given to a pod.
    PolicyRefused,
    /// The role does not serve the request.
    RoleUnusable,
    /// There is no good generator token.
    GeneratorToken,
    /// Vault could not be reached, or did not answer in time.
    VaultUnreachable,
    /// Vault is sealed or in maintenance.
    VaultSealed,
    /// Vault refused the generator token a right.
    VaultRefused,
    /// Vault has no time for us.
    VaultBusy,
    /// Vault failed, or answered what cannot be understood.
    VaultFailed,
    /// The caller's time was over.
    TimedOut,
    /// The journal could not be written.
    Journal,
    /// The volume is unknown to the agent.
    UnknownVolume,
    /// The volume has ended.
    Ended,
    /// A defect of the agent.
    Internal,
}

impl Failure {
    /// A failure with a message for the caller.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl Reason {
    /// Those that a mount can fail for.
    pub const OF_MOUNTS: [Self; 17] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::TooLarge,
        Self::BadOptions,
        Self::BadSettings,
        Self::PolicyRefused,
        Self::RoleUnusable,
        Self::GeneratorToken,
        Self::VaultUnreachable,
        Self::VaultSealed,
        Self::VaultRefused,
        Self::VaultBusy,
        Self::VaultFailed,
        Self::TimedOut,
        Self::Journal,
        Self::Ended,
        Self::Internal,
    ];

    /// The word of [`vaulttmpfs_api::Refusal::reason`].
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::NotFound => "not-found",
            Self::BadMethod => "bad-method",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too-large",
            Self::BadOptions => "bad-options",
            Self::BadSettings => "bad-settings",
            Self::PolicyRefused => "policy-refused",
            Self::RoleUnusable => "role-unusable",
            Self::GeneratorToken => "generator-token",
            Self::VaultUnreachable => "vault-unreachable",
            Self::VaultSealed => "vault-sealed",
            Self::VaultRefused => "vault-refused",
            Self::VaultBusy => "vault-busy",
            Self::VaultFailed => "vault-failed",
            Self::TimedOut => "timed-out",
            Self::Journal => "journal",
            Self::UnknownVolume => "unknown-volume",
            Self::Ended => "ended",
            Self::Internal => "internal",
        }
    }

    /// Vault could not be asked, and may be later.
    pub(crate) const fn may_pass(self) -> bool {
        matches!(
            self,
            Self::VaultUnreachable | Self::VaultSealed | Self::VaultBusy | Self::VaultFailed
        )
    }

    /// The status of the answer on the socket.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound | Self::UnknownVolume => 404,
            Self::BadMethod => 405,
            Self::Ended => 410,
            Self::TooLarge => 413,
            Self::BadOptions | Self::PolicyRefused | Self::RoleUnusable => 422,
            Self::Internal => 500,
            Self::VaultRefused | Self::VaultFailed => 502,
            Self::BadSettings
            | Self::GeneratorToken
            | Self::VaultUnreachable
            | Self::VaultSealed
            | Self::VaultBusy
            | Self::Journal => 503,
            Self::TimedOut => 504,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
