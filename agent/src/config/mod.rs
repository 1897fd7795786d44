//! The agent's settings: environment variables, all checked at once.

mod address;
mod ca;
pub(crate) mod env_file;
mod installed;
mod metrics;
mod offer;
mod read;
mod shown;
mod source;
mod values;
pub mod variables;

pub use address::{Address, AddressError};
pub use ca::{Ca, CaError, CaSource, read_ca};
pub use installed::{Installed, settings_file};
pub use metrics::{ClientCas, Identity, MetricsAddress, ServerTls};
pub use offer::Offer;
pub use read::{SettingError, SettingErrors, generator_token_path, locations, logging, read};
pub use shown::{Shown, is_setting, shown};
pub use source::{Environment, ProcessEnvironment};
pub use variables::{VARIABLES, Variable, table};

pub use crate::options::{PodDefaults, UnknownOptions};

use crate::files::DeliveredFiles;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Level;

/// Where the agent serves and keeps its journal. Known even when other settings are bad, so that
/// the agent can serve and say which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The directory of the journal.
    pub state_dir: PathBuf,
}

/// How the log is written. Known even when other settings are bad, so that it can say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Where to, and how.
    pub format: LogFormat,
    /// The least that is logged.
    pub level: Level,
}

/// Where the log goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// To journald where it has standard error, else as text.
    Auto,
    /// Lines for people, to standard error.
    Text,
    /// A JSON object a line, to standard error.
    Json,
    /// To journald, with fields.
    Journal,
}

/// Every setting but [`Locations`] and [`Logging`], checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How to reach Vault.
    pub vault: VaultSettings,
    /// The file with the generator token.
    pub generator_token_path: PathBuf,
    /// systemd's copy of that file, or of another, where it hands one over. It counts first, and never
    /// changes while the agent runs.
    pub generator_token_credential: Option<PathBuf>,
    /// A root token serves as generator token, too.
    pub allow_root_token: bool,
    /// What holds where a pod says nothing.
    pub pod_defaults: PodDefaults,
    /// What a pod is told about Vault.
    pub delivered: Delivered,
    /// How the volumes' tokens live and end.
    pub lifecycle: Lifecycle,
    /// Where metrics are served beside the socket.
    pub metrics: Option<MetricsAddress>,
    /// The node's host name, for the tokens' metadata.
    pub node: String,
    /// The Kubernetes cluster's name, for the tokens' metadata.
    pub cluster: Option<String>,
    /// What is allowed but doubtful, one line each, for the log.
    pub warnings: Vec<String>,
}

/// How to reach Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSettings {
    /// Vault's URL.
    pub address: Address,
    /// The CAs to trust instead of the system's.
    pub ca: Option<CaSource>,
    /// PEM files of a client certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The time for one attempt of a call.
    pub timeout: Duration,
    /// How often a call is attempted again.
    pub max_retries: u32,
    /// The most calls that Vault gets, where limited.
    pub rate_limit: Option<RateLimit>,
    /// Vault's certificate is not checked.
    pub skip_verify: bool,
    /// The host name that Vault's certificate must have, where not the address's.
    pub server_name: Option<String>,
    /// The Vault namespace.
    pub namespace: Option<String>,
    /// Hosts besides the address's that a redirect may lead to, lower-case, without port.
    pub redirect_hosts: Vec<String>,
}

/// How the volumes' tokens live and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Tokens of volumes that have ended are revoked.
    pub revoke: bool,
    /// The time between a volume's end and its revocation.
    pub revoke_delay: Duration,
    /// Volumes older than this are not renewed any more.
    pub max_age: Option<Duration>,
    /// What is done about wrapped tokens that nobody unwraps.
    pub watch_unwrap: WatchUnwrap,
    /// The most calls that background work makes.
    pub max_rate: RateLimit,
}

/// What is done about wrapped tokens that nobody unwraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchUnwrap {
    /// Nobody looks.
    Off,
    /// It is said.
    Say,
    /// It is said, and the token is ended.
    Revoke,
}

/// A bucket of calls: `burst` at once, then one an `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The time after which the bucket gets a further call.
    pub interval: Duration,
    /// The most calls in the bucket, at least one.
    pub burst: u32,
}

/// What a pod is told about Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Vault's URL, or nothing when the agent's own leads to the node itself.
    pub vault_addr: Option<String>,
    /// The Vault namespace.
    pub namespace: Option<String>,
    /// The CAs by which to trust Vault.
    pub ca: Option<CaSource>,
    /// False: a pod gets the token's files only.
    pub extra_files: bool,
}

impl Delivered {
    /// The content of the files beside the token's. Reads the CAs.
    pub fn files(&self) -> Result<DeliveredFiles, CaError> {
        if !self.extra_files {
            return Ok(DeliveredFiles::default());
        }
        Ok(DeliveredFiles {
            vault_addr: self.vault_addr.clone(),
            namespace: self.namespace.clone(),
            ca: self.ca.as_ref().map(read_ca).transpose()?.map(|ca| ca.pem),
        })
    }
}

#[cfg(test)]
mod tests;
