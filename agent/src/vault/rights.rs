//! Can the generator token do what it must, and does the default role give what is wanted? Looked
//! at behind the mounts, each time a token is taken; what is missing is said once, in words.

use super::calls::{Generator, Role};
use super::error::VaultError;
use super::own::{Capabilities, WrappingBounds};
use super::session::{Live, PAUSES, Session, lock};
use crate::config::{Settings, WatchUnwrap};
use crate::duration::to_go;
use crate::failure::{Failure, Reason};
use crate::options::RoleName;
use secrecy::SecretString;
use std::time::Duration;

/// A shorter period is a warning: a night's outage ends the token.
const SHORT_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// What the generator token must be able to do, by the settings.
pub struct Needs {
    /// The role of pods that name none.
    pub(super) role: RoleName,
    wrap_ttl: Duration,
    revoke: bool,
    lookup: bool,
}

/// What was found, each a line for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Something does not work.
    pub concerns: Vec<String>,
    /// It works, but not as well as it could.
    pub warnings: Vec<String>,
}

/// A token that could be the generator token.
pub struct Trial {
    /// It, as Vault knows it.
    pub generator: Generator,
    /// What would not work with it, and what to do: each a line.
    pub concerns: Vec<String>,
    /// What would work, but not as well as it could: each a line.
    pub warnings: Vec<String>,
}

/// A right, and what lacks without it.
pub struct Right {
    /// Where.
    pub path: String,
    /// To do what, as Vault's policies call it.
    pub capability: &'static str,
    without: &'static str,
    /// Without it the agent does not do what the settings say.
    pub needed: bool,
}

impl Needs {
    /// By the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            role: settings.pod_defaults.role.clone(),
            wrap_ttl: settings.pod_defaults.wrap_ttl,
            revoke: settings.lifecycle.revoke,
            lookup: settings.lifecycle.watch_unwrap != WatchUnwrap::Off,
        }
    }

    /// The path by which the default role's tokens are made.
    #[must_use]
    pub fn create(&self) -> String {
        format!("auth/token/create/{}", self.role)
    }

    /// The default time to unwrap.
    #[must_use]
    pub fn wrap_ttl(&self) -> Duration {
        self.wrap_ttl
    }

    /// The rights, the one to create first.
    #[must_use]
    pub fn rights(&self) -> [Right; 5] {
        let right = |path: String, capability, without, needed| Right {
            path,
            capability,
            without,
            needed,
        };
        let by_accessor = |verb| format!("auth/token/{verb}-accessor");
        [
            right(
                self.create(),
                "update",
                "pods that name no role get no token",
                true,
            ),
            right(
                by_accessor("renew"),
                "update",
                "pods' tokens are not kept alive",
                true,
            ),
            right(
                by_accessor("revoke"),
                "update",
                "tokens outlive their pods until they expire",
                self.revoke,
            ),
            right(
                by_accessor("lookup"),
                "update",
                "nobody notices tokens that are never unwrapped, and `vaulttmpfs adopt` takes nothing up",
                self.lookup,
            ),
            right(
                format!("auth/token/roles/{}", self.role),
                "read",
                "pods must name their policies, and what the role says is not known",
                false,
            ),
        ]
    }
}

/// The right by which the generator token stays alive. The policy `default` has it.
#[must_use]
pub fn renew_itself() -> Right {
    Right {
        path: "auth/token/renew-self".to_owned(),
        capability: "update",
        without: "it is not kept alive and ends",
        needed: true,
    }
}

impl Session {
    /// Looks at the token's rights and the default role, and remembers and says what is found.
    /// True when there is nothing to be mended: else it is worth another look later.
    pub(super) async fn inspect(&self, live: &Live) -> bool {
        let mut findings = Findings::of(live);
        let complete = self.look(live, &mut findings).await.is_ok();
        let mut last = lock(&self.findings);
        if complete {
            findings.say_new(&last);
            *last = findings;
            self.stirred.notify_one();
        }
        complete && last.concerns.is_empty()
    }

    /// Looks at a token as the agent does before it takes it, and at all that it could do then. Tried again
    /// as often as `VAULT_MAX_RETRIES` says: what was unwrapped comes only once.
    ///
    /// # Errors
    /// It is no generator token ([`Reason::GeneratorToken`]), or Vault cannot be asked.
    pub async fn trial(&self, token: SecretString) -> Result<Trial, Failure> {
        let mut tries = 0;
        loop {
            match self.try_out(token.clone()).await {
                Err(failure) if failure.reason.may_pass() && tries < self.vault.max_retries => {
                    tokio::time::sleep(PAUSES.0 * 2_u32.pow(tries.min(6))).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_out(&self, token: SecretString) -> Result<Trial, Failure> {
        let live = self.candidate(token).await?;
        let mut findings = Findings::of(&live);
        self.look(&live, &mut findings)
            .await
            .map_err(|error| self.failure(&error))?;
        Ok(Trial {
            generator: live.generator,
            concerns: findings.concerns,
            warnings: findings.warnings,
        })
    }

    /// Can the token create tokens of the default role?
    pub(super) async fn may_create(&self, live: &Live) -> Result<(), Failure> {
        let [create, ..] = self.needs.rights();
        let paths = [create.path.clone()];
        let headers = self.headers(live);
        match live.transport.capabilities(&paths, &headers).await {
            Ok(capabilities) if !create.is_in(&capabilities) => Err(Failure::new(
                Reason::GeneratorToken,
                format!(
                    "the generator token in {} may not create tokens of the role `{}`: {}",
                    self.token_path.display(),
                    self.needs.role,
                    create.mend()
                ),
            )),
            Ok(_) => Ok(()),
            // Without the right to ask: as at the start, where that is a note.
            Err(error) if error.is_denied() => Ok(()),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// What Vault has to say. An error: it could not be asked now.
    async fn look(&self, live: &Live, findings: &mut Findings) -> Result<(), VaultError> {
        let needs = &self.needs;
        let headers = self.headers(live);
        let paths = needs.rights().map(|right| right.path);
        match live.transport.capabilities(&paths, &headers).await {
            Ok(capabilities) => findings.about_rights(needs, &capabilities),
            Err(error) if error.is_denied() => findings.may_not_ask(&error),
            Err(error) => return Err(error),
        }
        // It seldom may read the role that it was made by.
        if let Ok(own) = live.generator.role.parse()
            && let Ok(role) = live.transport.role(&own, &headers).await
            && role.period().is_none()
        {
            findings.about_no_period();
        }
        let create = needs.create();
        match live.transport.wrapping_bounds(&create, &headers).await {
            Ok(bounds) => findings.about_wrapping(needs, bounds),
            // Vault's own interface is what this path is for: it may be missing or closed.
            Err(error) if error.is_denied() || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        match live.transport.role(&needs.role, &headers).await {
            Ok(role) => findings.about_role(&needs.role, &role),
            Err(error) if error.is_not_found() => findings.no_role(&needs.role),
            // Said with the rights.
            Err(error) if error.is_denied() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Right {
    /// Is it among what the token may do?
    #[must_use]
    pub fn is_in(&self, capabilities: &Capabilities) -> bool {
        capabilities.get(&self.path).is_some_and(|may| {
            may.iter()
                .any(|may| may == self.capability || may == "root")
        })
    }

    /// What lacks without it, and what to do.
    #[must_use]
    pub fn lacking(&self) -> String {
        format!(
            "the generator token has no right to {} on {}: {}; {}",
            self.capability,
            self.path,
            self.without,
            self.mend()
        )
    }

    fn mend(&self) -> String {
        format!(
            "add to its policy: path \"{}\" {{ capabilities = [\"{}\"] }}",
            self.path, self.capability
        )
    }
}

impl Findings {
    /// What the token's look-up tells.
    fn of(live: &Live) -> Self {
        let mut findings = Self::default();
        if live.generator.is_root() {
            findings.warn("the generator token is a root token: whoever gets it owns all of Vault; allowed by VAULTTMPFS_ALLOW_ROOT_TOKEN".into());
        } else {
            findings.about_token(&live.generator);
        }
        findings
    }

    fn concern(&mut self, line: String) {
        self.concerns.push(line);
    }

    fn warn(&mut self, line: String) {
        self.warnings.push(line);
    }

    fn say_new(&self, last: &Self) {
        for line in self.concerns.iter().chain(&self.warnings) {
            if !last.concerns.contains(line) && !last.warnings.contains(line) {
                tracing::warn!("{line}");
            }
        }
    }

    /// How long the token will live.
    pub fn about_token(&mut self, token: &Generator) {
        let left = || to_go(Duration::from_secs(token.ttl));
        if !token.renewable {
            return self.warn(format!(
                "the generator token cannot be renewed and ends in {}: use a periodic one, as `vaulttmpfs bootstrap` makes it",
                left()
            ));
        }
        if token.explicit_max_ttl > 0 {
            self.warn(format!(
                "the generator token has an explicit max TTL of {}: no renewal goes beyond",
                to_go(Duration::from_secs(token.explicit_max_ttl))
            ));
        }
        if token.period == 0 {
            return self.about_no_period();
        }
        let period = Duration::from_secs(token.period);
        if period < SHORT_PERIOD {
            self.warn(format!(
                "the generator token's period is {}: it survives an outage of Vault, or of this node, of {} and no longer; 768h is recommended",
                to_go(period),
                to_go(token.survives())
            ));
        }
    }

    fn about_no_period(&mut self) {
        self.warn(
            "the generator token is not periodic and ends with its max TTL, however often it is renewed: use a periodic one, as `vaulttmpfs bootstrap` makes it".into(),
        );
    }

    /// It may not even ask what it may do.
    pub fn may_not_ask(&mut self, error: &VaultError) {
        self.warn(format!(
            "whether the generator token has all rights is not known: it may not ask ({error}); make it with the policy `default`, or add to its policy: path \"sys/capabilities-self\" {{ capabilities = [\"update\"] }}"
        ));
    }

    fn about_rights(&mut self, needs: &Needs, capabilities: &Capabilities) {
        for right in needs.rights() {
            if right.is_in(capabilities) {
                continue;
            }
            if right.needed {
                self.concern(right.lacking());
            } else {
                self.warn(right.lacking());
            }
        }
    }

    /// Does the default wrap TTL fit the policy?
    pub fn about_wrapping(&mut self, needs: &Needs, bounds: WrappingBounds) {
        let ttl = needs.wrap_ttl;
        let fits = bounds.least.is_none_or(|least| ttl >= least)
            && bounds.most.is_none_or(|most| ttl <= most);
        if fits {
            return;
        }
        let bound = |bound: Option<Duration>, none: &str| bound.map_or(none.to_owned(), to_go);
        self.concern(format!(
            "the generator token's policy allows {} a wrap TTL from {} to {}, and the default is {}: pods that set no vault/wrapTTL get no token; set VAULT_WRAP_TTL, or min_wrapping_ttl and max_wrapping_ttl in the policy",
            needs.create(),
            bound(bounds.least, "none"),
            bound(bounds.most, "any"),
            to_go(ttl),
        ));
    }

    /// Vault has no such role.
    pub fn no_role(&mut self, name: &RoleName) {
        self.concern(format!(
            "Vault has no token role `{name}`, which pods get that name none: create it, or name another in VAULTTMPFS_DEFAULT_ROLE_NAME"
        ));
    }

    /// Does a role give what is wanted?
    pub fn about_role(&mut self, name: &RoleName, role: &Role) {
        if !role.is_orphan() {
            self.concern(format!(
                "the token role `{name}` makes children of the generator token: when that ends, every pod's token ends with it; mend it with `vault write auth/token/roles/{name} orphan=true` and make new pods' tokens"
            ));
        }
        if let Some(why) = role.unmanaged_because() {
            self.warn(format!(
                "the token role `{name}` gives tokens that cannot be kept alive: {why}"
            ));
        }
        if role.allowed_policies().is_empty() {
            self.warn(format!(
                "the token role `{name}` has no allowed_policies: pods must name their policies, and may name any that the role does not disallow"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            role: "applications".parse().unwrap(),
            wrap_ttl: Duration::from_secs(300),
            revoke: true,
            lookup: false,
        }
    }

    fn capabilities(of: &[(&str, &str)]) -> Capabilities {
        of.iter()
            .map(|(path, may)| ((*path).to_owned(), vec![(*may).to_owned()]))
            .collect()
    }

    #[test]
    fn missing_rights_are_named_with_what_mends_them() {
        let mut findings = Findings::default();
        let some = [
            ("auth/token/create/applications", "root"),
            ("auth/token/renew-accessor", "deny"),
            ("auth/token/revoke-accessor", "update"),
            ("auth/token/roles/applications", "read"),
        ];
        findings.about_rights(&needs(), &capabilities(&some));
        assert_eq!(findings.concerns.len(), 1, "{findings:?}");
        assert!(findings.concerns[0].contains(
            r#"add to its policy: path "auth/token/renew-accessor" { capabilities = ["update"] }"#
        ));
        assert_eq!(findings.warnings.len(), 1, "{findings:?}");
        assert!(findings.warnings[0].contains("lookup-accessor"));
    }

    #[test]
    fn the_default_wrap_ttl_must_be_within_the_bounds() {
        let second = |seconds| Some(Duration::from_secs(seconds));
        for (least, most, fits) in [
            (None, None, true),
            (second(1), second(300), true),
            (second(301), None, false),
            (None, second(299), false),
        ] {
            let mut findings = Findings::default();
            findings.about_wrapping(&needs(), WrappingBounds { least, most });
            assert_eq!(findings.concerns.is_empty(), fits, "{findings:?}");
        }
    }

    #[test]
    fn a_role_is_judged() {
        let role = |text: &str| serde_json::from_str::<Role>(text).unwrap();
        for (text, concerns, warnings) in [
            (
                r#"{"orphan":true,"renewable":true,"allowed_policies":["a"]}"#,
                0,
                0,
            ),
            (
                r#"{"orphan":false,"renewable":true,"allowed_policies":["a"]}"#,
                1,
                0,
            ),
            (r#"{"orphan":true,"renewable":false}"#, 0, 2),
            (
                r#"{"orphan":true,"renewable":true,"token_type":"batch","allowed_policies":["a"]}"#,
                0,
                1,
            ),
        ] {
            let mut findings = Findings::default();
            findings.about_role(&needs().role, &role(text));
            assert_eq!(
                (findings.concerns.len(), findings.warnings.len()),
                (concerns, warnings),
                "{text}"
            );
        }
    }
}
