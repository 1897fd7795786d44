//! From a kubelet's environment, in which the first plugin found its settings, to the agent's file of
//! settings.

mod plan;
mod sources;

pub use plan::{Plan, plan};
pub use sources::{Setting, Sources, find, of_file, of_unit};

/// Whether a variable may be a setting of this product or of Vault's tools. No other is looked at.
pub(crate) fn is_meant(name: &str) -> bool {
    ["VAULT_", "BAO_", "VAULTTMPFS_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        && name.len() <= 100
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
