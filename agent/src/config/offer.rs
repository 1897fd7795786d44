//! Settings that root offers to a running agent, which judges them as its own user, in its own
//! sandbox, with its own credentials.

use super::variables::{SYSTEMD_STATE_DIR, VARIABLES};
use super::{Environment, ProcessEnvironment};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Variables of the settings with their values. Everything else is as in this process.
#[derive(Debug)]
pub struct Offer(BTreeMap<String, String>);

impl Offer {
    /// An offer with what another process has sent. Names that are no settings do not count.
    #[must_use]
    pub fn new(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }

    /// The settings of this process.
    #[must_use]
    pub fn own() -> BTreeMap<String, String> {
        let value = |name: &str| Some(ProcessEnvironment.get(name)?.to_string_lossy().into_owned());
        names()
            .filter_map(|name| Some((name.to_owned(), value(name)?)))
            .collect()
    }

    /// Do they say anything else than this process's own?
    #[must_use]
    pub fn differs(&self) -> bool {
        let set = |value: Option<OsString>| value.filter(|value| !value.is_empty());
        names().any(|name| set(self.get(name)) != set(ProcessEnvironment.get(name)))
    }
}

impl Environment for Offer {
    fn get(&self, name: &str) -> Option<OsString> {
        if names().any(|setting| setting == name) {
            self.0.get(name).map(OsString::from)
        } else {
            ProcessEnvironment.get(name)
        }
    }
}

/// The names of all settings, but what systemd says itself.
fn names() -> impl Iterator<Item = &'static str> {
    VARIABLES
        .iter()
        .flat_map(|variable| variable.names)
        .copied()
        .filter(|name| *name != SYSTEMD_STATE_DIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(variables: &[(&str, &str)]) -> Offer {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Offer::new(variables.iter().map(own).collect())
    }

    #[test]
    fn what_is_offered_counts_for_settings_alone() {
        let own = offer(&[]);
        let path = ProcessEnvironment.get("PATH");
        assert!(path.is_some());
        let other = offer(&[("VAULT_ADDR", "https://other:8200"), ("PATH", "/nowhere")]);
        assert_eq!(other.get("PATH"), path);
        assert_eq!(other.get("VAULT_ADDR"), Some("https://other:8200".into()));
        assert_ne!(own.differs(), other.differs());
        assert!(!Offer::new(Offer::own()).differs());
        let with_empty = offer(&[("VAULT_NAMESPACE", "")]);
        assert_eq!(with_empty.differs(), own.differs(), "an empty one is none");
    }
}
