//! The calls about the generator token itself: renew it, and ask what it may do.

use super::calls::{Renewal, data, renewal};
use super::error::VaultError;
use super::plain::Plain;
use super::transport::{Headers, Transport};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;

/// What the generator token may do on a path.
pub type Capabilities = HashMap<String, Vec<String>>;

/// The bounds that the token's policies set to the wrapping of a create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrappingBounds {
    /// The shortest TTL; nothing where it need not be wrapped.
    pub least: Option<Duration>,
    /// The longest.
    pub most: Option<Duration>,
}

impl Transport {
    /// Renews the token that makes the call. Without an increment, as for all others.
    pub(super) async fn renew_self(&self, headers: &Headers<'_>) -> Result<Renewal, VaultError> {
        // vaultrs' own path of it begins with a tab.
        let call = Plain::post("auth/token/renew-self", "{}".to_owned());
        renewal(&self.call(call, headers).await?)
    }

    /// What the token may do on these paths, in one call.
    pub(super) async fn capabilities(
        &self,
        paths: &[String],
        headers: &Headers<'_>,
    ) -> Result<Capabilities, VaultError> {
        let body = serde_json::json!({ "paths": paths }).to_string();
        let call = Plain::post("sys/capabilities-self", body);
        data(
            &self.call(call, headers).await?,
            "not a token's capabilities",
        )
    }

    /// How long a create at this path may, and must, be wrapped. sys/capabilities-self does not
    /// tell (tried on `OpenBao`).
    pub(super) async fn wrapping_bounds(
        &self,
        path: &str,
        headers: &Headers<'_>,
    ) -> Result<WrappingBounds, VaultError> {
        let call = Plain::get("sys/internal/ui/resultant-acl");
        let acl: ResultantAcl = data(&self.call(call, headers).await?, "not a token's policies")?;
        Ok(acl.bounds(path))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResultantAcl {
    exact_paths: Option<HashMap<String, Rule>>,
    glob_paths: Option<HashMap<String, Rule>>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Rule {
    /// In whole seconds.
    min_wrapping_ttl: u64,
    max_wrapping_ttl: u64,
}

impl ResultantAcl {
    /// An exact rule counts before any prefix, the longest prefix before others. Rules with a `+`
    /// in them are not followed: their bounds show at a mount.
    fn bounds(&self, path: &str) -> WrappingBounds {
        let exact = self.exact_paths.as_ref().and_then(|rules| rules.get(path));
        let longest = || {
            let rules = self.glob_paths.iter().flatten();
            let fit = rules.filter(|(prefix, _)| path.starts_with(prefix.as_str()));
            fit.max_by_key(|(prefix, _)| prefix.len())
                .map(|(_, rule)| rule)
        };
        let rule = exact.or_else(longest).cloned().unwrap_or_default();
        let bound = |seconds| (seconds > 0).then(|| Duration::from_secs(seconds));
        WrappingBounds {
            least: bound(rule.min_wrapping_ttl),
            most: bound(rule.max_wrapping_ttl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_counts_gives_the_bounds() {
        let acl: ResultantAcl = serde_json::from_str(
            r#"{"exact_paths": {"auth/token/create/a": {"capabilities": ["update"], "min_wrapping_ttl": 1, "max_wrapping_ttl": 600}},
                "glob_paths": {"auth/token/": {"max_wrapping_ttl": 5}, "auth/token/create/": {"min_wrapping_ttl": 7}}}"#,
        )
        .unwrap();
        let second = Duration::from_secs;
        for (path, least, most) in [
            ("auth/token/create/a", Some(1), Some(600)),
            ("auth/token/create/b", Some(7), None),
            ("auth/token/x", None, Some(5)),
            ("sys/x", None, None),
        ] {
            let expected = WrappingBounds {
                least: least.map(second),
                most: most.map(second),
            };
            assert_eq!(acl.bounds(path), expected, "{path}");
        }
        let root: ResultantAcl = serde_json::from_str(r#"{"root": true}"#).unwrap();
        assert_eq!(root.bounds("x"), WrappingBounds::default());
    }
}
