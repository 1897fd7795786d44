//! From a kubelet's environment, in which the first plugin found its settings, to the agent's file of
//! settings.

mod env_file;
mod plan;
mod sources;

pub use plan::{Plan, plan};
pub use sources::{Setting, Sources, find};

use std::path::{Path, PathBuf};

/// The agent's file of settings on Debian's relatives.
const DEBIAN: &str = "/etc/default/vaulttmpfs";

/// The agent's file of settings on Red Hat's relatives.
const RED_HAT: &str = "/etc/sysconfig/vaulttmpfs";

/// The file of settings of this machine: the one that is there; else the one whose directory is.
#[must_use]
pub fn settings_file() -> PathBuf {
    let (debian, red_hat) = (Path::new(DEBIAN), Path::new(RED_HAT));
    let is_red_hat = red_hat.exists()
        || !debian.exists()
            && red_hat.parent().is_some_and(Path::is_dir)
            && !Path::new("/etc/debian_version").exists();
    if is_red_hat { red_hat } else { debian }.to_owned()
}

/// Whether a variable may be a setting of this product or of Vault's tools. No other is looked at.
fn is_meant(name: &str) -> bool {
    ["VAULT_", "BAO_", "VAULTTMPFS_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        && name.len() <= 100
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
