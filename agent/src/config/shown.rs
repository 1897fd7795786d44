//! Settings as anyone may see them.

use super::Environment;
use super::read::{may_be_secret, spellings};
use super::variables::VARIABLES;
use crate::line::one_line;
use serde::{Deserialize, Serialize};

/// Longer values are cut, in bytes.
const LONGEST_VALUE: usize = 1024;

/// A setting, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its variable: the name by which it is set, or else its first.
    pub name: String,
    /// It is set, and not to nothing.
    pub set: bool,
    /// Its value, on one line and bounded; nothing where it is not set, or may be secret.
    pub value: Option<String>,
    /// What holds where it is not set; empty where nothing does.
    pub default: String,
}

/// Every setting as an environment has it, good or bad.
pub fn shown(env: &impl Environment) -> Vec<Shown> {
    let shown = VARIABLES.iter().map(|variable| {
        let set = spellings(env, variable).next();
        let name = set.as_ref().map(|(name, _)| *name);
        Shown {
            name: name.unwrap_or(variable.names[0]).to_owned(),
            set: set.is_some(),
            value: set.and_then(|(_, value)| {
                let value = value.to_str()?;
                (!may_be_secret(value)).then(|| one_line(value, LONGEST_VALUE))
            }),
            default: variable.default.to_owned(),
        }
    });
    shown.collect()
}

/// Is it the name of a setting?
#[must_use]
pub fn is_setting(name: &str) -> bool {
    VARIABLES
        .iter()
        .any(|variable| variable.names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::ffi::OsString;

    #[test]
    fn what_may_be_secret_is_set_and_no_more() {
        let env: HashMap<&str, OsString> = [
            ("VAULT_ADDR", "https://user:password@vault:8200"),
            ("VAULT_CACERT", "/etc/ca.crt\n[x]"),
            ("BAO_NAMESPACE", "team"),
            ("VAULT_NAMESPACE", "other"),
            ("VAULT_WRAP_TTL", ""),
            ("VAULTTMPFS_GENERATOR_TOKEN_PATH", "hvs.secret"),
            ("VAULT_TOKEN", "secret"),
        ]
        .map(|(name, value)| (name, value.into()))
        .into();
        let shown = shown(&env);
        assert_eq!(shown.len(), VARIABLES.len());
        let of = |name: &str| {
            let setting = shown.iter().find(|setting| setting.name == name);
            setting.map(|setting| (setting.set, setting.value.as_deref()))
        };
        assert_eq!(of("VAULT_ADDR"), Some((true, None)));
        assert_eq!(of("VAULT_CACERT"), Some((true, Some("/etc/ca.crt [x]"))));
        assert_eq!(of("BAO_NAMESPACE"), Some((true, Some("team"))));
        assert_eq!(of("BAO_WRAP_TTL"), Some((false, None)));
        assert_eq!(of("VAULTTMPFS_GENERATOR_TOKEN_PATH"), Some((true, None)));
        assert!(!serde_json::to_string(&shown).unwrap().contains("secret"));
    }
}
