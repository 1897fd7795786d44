//! What a pod asks for: the options of its volume, checked all at once.

mod boolean;
mod error;
mod names;
mod parse;

pub(crate) use boolean::boolean;
pub use error::{OptionError, OptionErrors};
pub use names::{RoleName, RoleNameError};
pub use parse::{KNOWN, MAX_POLICIES, ROLE, parse};

use serde::{Deserialize, Serialize};
use std::time::Duration;
use vaulttmpfs_api::MountDir;

/// A volume to make, every part of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Where the kubelet wants it.
    pub mount_dir: MountDir,
    /// For whom.
    pub pod: Pod,
    /// The token in it.
    pub token: TokenRequest,
    /// The token's files.
    pub files: FileOptions,
    /// How the token lives and ends.
    pub lifecycle: LifecycleOptions,
    /// Mistakes that the settings let pass, one line each, for the log.
    pub warnings: Vec<String>,
}

/// The pod that a volume is for. Goes to the token's metadata in Vault, the journal and the log:
/// every field is bounded and free of control characters.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its uid as the mount directory has it.
    pub uid: String,
    /// Its name; empty when the kubelet did not say.
    pub name: String,
    /// Its namespace; empty when the kubelet did not say.
    pub namespace: String,
    /// Its service account's name; empty for static pods.
    pub service_account: String,
}

/// The token to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The token role to create it by.
    pub role: RoleName,
    /// Lower-case, without duplicates, in the pod's order; none of them is `root`. Empty: the
    /// role's `allowed_policies`.
    pub policies: Vec<String>,
    /// How the pod gets it.
    pub delivery: Delivery,
    /// The token's TTL, a second or longer; not longer than `max_ttl`.
    pub ttl: Option<Duration>,
    /// The token's explicit max TTL, a second or longer.
    pub max_ttl: Option<Duration>,
}

/// How a pod gets its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Wrapped: the pod unwraps it once, within this time.
    Wrapped {
        /// A second or longer.
        ttl: Duration,
    },
    /// As it is.
    Unwrapped,
}

/// How a volume's token lives and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleOptions {
    /// It is kept alive as long as the volume is mounted.
    pub renew: bool,
    /// It is revoked when the volume has ended.
    pub revoke: bool,
}

impl Default for LifecycleOptions {
    fn default() -> Self {
        Self {
            renew: true,
            revoke: true,
        }
    }
}

/// The form of the token's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The name of the file with the bare token; `.json` is added for the other one.
    pub token_filename: String,
    /// Permission bits, at most 0777.
    pub permissions: u32,
    /// The group that owns the files and may read them: the pod's `fsGroup`.
    pub group: Option<u32>,
}

/// What holds where a pod says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDefaults {
    /// The token role.
    pub role: RoleName,
    /// The name of the file with the bare token.
    pub token_filename: String,
    /// The time to unwrap, a second or longer.
    pub wrap_ttl: Duration,
    /// What becomes of an option under `vault/` that nobody knows.
    pub unknown_options: UnknownOptions,
}

/// What becomes of an option under `vault/` that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownOptions {
    /// The mount is refused.
    Refuse,
    /// The mount goes on with a warning, as with the first plugin.
    Warn,
}

#[cfg(test)]
mod tests;
