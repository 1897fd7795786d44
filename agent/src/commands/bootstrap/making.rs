//! Making the token, and leaving nothing half done: whatever happens, the login's token is ended, and the
//! new one, too, unless it is in its place.

use super::login::Login;
use super::place::Place;
use super::vault_side::VaultSide;
use super::{Problem, say_findings, unfit};
use crate::commands::{complain, say};
use crate::duration::to_go;
use crate::exit::Exit;
use crate::failure::Reason;
use crate::interrupt::Interrupt;
use crate::line::one_line;
use crate::options::RoleName;
use crate::vault::{Credentials, Direct, Given, NewGenerator, Session, Trial, VaultError};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long ending one token may take, further tries included.
const ENDING: Duration = Duration::from_secs(15);

/// The value of `applications` in the token's metadata, as the first plugin wrote it.
const APPLICATIONS: &str = crate::vault::calls::CREATOR;

/// The most of a text of Vault's that is passed on, in bytes.
const LONGEST_TEXT: usize = 400;

/// The token that is wanted.
pub(super) struct Order {
    /// What Vault needs first.
    pub(super) vault_side: Option<VaultSide>,
    /// The token's policies.
    pub(super) policies: Vec<String>,
    /// Its period, where no role sets it.
    pub(super) period: Duration,
    /// The token role to make it by.
    pub(super) role: Option<RoleName>,
    /// The node that it is for.
    pub(super) node: String,
    /// The Kubernetes cluster.
    pub(super) cluster: Option<String>,
}

/// One token's making.
pub(super) struct Making<'a> {
    vault: &'a Direct,
    session: &'a Session,
    interrupt: &'a Interrupt,
    place: &'a Place,
    order: &'a Order,
    /// The login's token, to be ended.
    login: Option<SecretString>,
    /// The new token, to be ended as long as it is not in its place.
    made: Option<SecretString>,
}

impl<'a> Making<'a> {
    pub(super) fn new(
        vault: &'a Direct,
        session: &'a Session,
        interrupt: &'a Interrupt,
        place: &'a Place,
        order: &'a Order,
    ) -> Self {
        Self {
            vault,
            session,
            interrupt,
            place,
            order,
            login: None,
            made: None,
        }
    }

    /// From the login to the token in its place, or to where it is interrupted.
    pub(super) async fn carry_out(&mut self, login: &Login) -> Result<(), Problem> {
        self.interrupt.go_on()?;
        let (by, unwrapped) = match login {
            Login::Own(token) => (token.clone(), None),
            Login::Password {
                mount,
                username,
                password,
            } => {
                let as_whom = Credentials {
                    mount,
                    username,
                    password,
                };
                (self.log_in(&as_whom).await?, None)
            }
            Login::Wrapped { token, file } => {
                let inside = self.unwrap(token, file).await?;
                match self.fit(&inside.token).await? {
                    Ok(trial) => {
                        self.made = self.login.take();
                        return self.put(&inside, &trial).await;
                    }
                    Err(why) => (inside.token, Some(why)),
                }
            }
        };
        self.interrupt.go_on()?;
        if let Some(vault_side) = &self.order.vault_side {
            let made = vault_side.make(self.vault, &by);
            self.interrupt.unless_it_comes(made).await??;
        }
        let made = self
            .create(&by, login)
            .await
            .map_err(|problem| match unwrapped {
                Some(why) => Problem {
                    message: format!(
                        "{}; what was wrapped is no generator token either: {why}",
                        problem.message
                    ),
                    ..problem
                },
                None => problem,
            })?;
        self.interrupt.go_on()?;
        match self.fit(&made.token).await? {
            Ok(trial) => self.put(&made, &trial).await,
            Err(why) => Err(Problem::new(
                Exit::Denied,
                format!("the token that Vault made is of no use: {why}"),
            )),
        }
    }

    async fn log_in(&mut self, as_whom: &Credentials<'_>) -> Result<SecretString, Problem> {
        let given = self.vault.log_in(as_whom, self.interrupt).await;
        let given = given.map_err(|error| self.no_login(as_whom, &error))?;
        self.login = Some(given.token.clone());
        let Credentials {
            mount, username, ..
        } = as_whom;
        say(&format!("logged in at auth/{mount} as {username}"));
        Ok(given.token)
    }

    fn no_login(&self, as_whom: &Credentials<'_>, error: &VaultError) -> Problem {
        if !error.is_answered_for_the_caller() {
            return self.lost("login", error);
        }
        let Credentials {
            mount, username, ..
        } = as_whom;
        Problem::new(
            Exit::Denied,
            format!(
                "Vault at {} does not let {username} log in at auth/{mount} ({error}): is the password right, and is that auth method mounted there?",
                self.vault.address()
            ),
        )
    }

    /// Looks first, so that what is none of ours stays whole.
    async fn unwrap(&mut self, token: &SecretString, file: &Path) -> Result<Given, Problem> {
        let file = file.display();
        let look = self.vault.wrapping(token);
        let wrapping = self.interrupt.unless_it_comes(look).await?;
        let wrapping = wrapping.map_err(|error| self.spent(&file, &error))?;
        if !is_a_tokens_making(&wrapping.creation_path) {
            return Err(Problem::new(
                Exit::BadData,
                format!(
                    "ALARM: what is wrapped in {file} was made at {}, and not by the creation of a token: somebody may have put it there in the place of yours. It was not unwrapped",
                    one_line(&wrapping.creation_path, LONGEST_TEXT)
                ),
            ));
        }
        let given = self.vault.unwrap(token, self.interrupt).await;
        let given = given.map_err(|error| self.spent(&file, &error))?;
        self.login = Some(given.token.clone());
        say(&format!("unwrapped: the token in {file}"));
        self.interrupt.go_on()?;
        Ok(given)
    }

    fn spent(&self, file: &dyn std::fmt::Display, error: &VaultError) -> Problem {
        if !error.is_answered_for_the_caller() {
            return self.lost("unwrapped token", error);
        }
        Problem::new(
            Exit::BadData,
            format!(
                "ALARM: the wrapped token in {file} was unwrapped before, or its time is over ({error}). If it was in time and you did not unwrap it, somebody else has the token that was inside: revoke that, look into Vault's audit log for sys/wrapping/unwrap, and ship another"
            ),
        )
    }

    /// Looks whether the tokens of this role live on, which their look-up does not tell.
    async fn judge_role(&self, by: &SecretString, name: &RoleName) -> Result<(), Problem> {
        let look = self.vault.role(by, name);
        let problem = match self.interrupt.unless_it_comes(look).await? {
            Ok(role) if role.period().is_none() => {
                "gives tokens that are not periodic: set its period"
            }
            Ok(role) if role.max_ttl().is_some() => {
                "has an explicit max TTL: no renewal goes beyond"
            }
            Ok(role) if !role.is_orphan() => {
                "gives tokens that end with the login's: set orphan=true"
            }
            Ok(_) => return Ok(()),
            Err(error) => {
                complain(&format!(
                    "whether the token role `{name}` gives periodic tokens is not known: this login may not read it ({error})"
                ));
                return Ok(());
            }
        };
        let problem = format!("the token role `{name}` {problem}");
        Err(Problem::new(Exit::Denied, problem))
    }

    async fn create(&mut self, by: &SecretString, login: &Login) -> Result<Given, Problem> {
        let order = self.order;
        if let Some(role) = &order.role {
            self.judge_role(by, role).await?;
        }
        let name = format!("vaulttmpfs-{}", order.node);
        let metadata = [
            ("applications", Some(APPLICATIONS)),
            ("node", Some(order.node.as_str())),
            ("cluster", order.cluster.as_deref()),
            ("creator", login.creator()),
        ];
        let new = NewGenerator {
            role: order.role.as_ref(),
            policies: &order.policies,
            period: order.period,
            display_name: &name,
            metadata: metadata
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect::<BTreeMap<_, _>>(),
        };
        match self.vault.create(by, &new, self.interrupt).await {
            Ok(given) => {
                self.made = Some(given.token.clone());
                for warning in &given.warnings {
                    complain(&format!("Vault says: {}", one_line(warning, LONGEST_TEXT)));
                }
                Ok(given)
            }
            Err(error) => Err(self.not_created(&new, &error)),
        }
    }

    fn not_created(&self, new: &NewGenerator<'_>, error: &VaultError) -> Problem {
        let (address, path) = (self.vault.address(), new.path());
        if !error.is_answered_for_the_caller() {
            return self.lost(&format!("token named token-{}", new.display_name), error);
        }
        let mend = match new.role {
            Some(role) if error.is_unknown_role() => {
                format!("create the token role `{role}`, or name another")
            }
            Some(role) if error.is_policy_not_allowed() => {
                format!("change --policies, or allowed_policies of the token role `{role}`")
            }
            Some(_) => {
                format!("its policy needs: path \"{path}\" {{ capabilities = [\"update\"] }}")
            }
            None => format!(
                "its policy needs: path \"{path}\" {{ capabilities = [\"update\", \"sudo\"] }}; or name a token role with --role, which needs less"
            ),
        };
        Problem::new(
            Exit::Denied,
            format!("Vault at {address} refused {path} to this login ({error}): {mend}"),
        )
    }

    /// A call that gives a token and came to nothing that Vault has said.
    fn lost(&self, what: &str, error: &VaultError) -> Problem {
        let mut problem = Problem::from(self.vault.trouble(error));
        if !error.create_may_be_repeated() {
            problem.message = format!(
                "{}; there may be a {what} all the same, which nobody has: it ends when its time is over",
                problem.message
            );
        }
        problem
    }

    /// Would the agent take this token, and can it live? If not, why.
    async fn fit(&self, token: &SecretString) -> Result<Result<Trial, String>, Problem> {
        let trial = self.session.trial(token.clone());
        match self.interrupt.unless_it_comes(trial).await? {
            Ok(trial) => Ok(match unfit(&trial.generator) {
                None => Ok(trial),
                Some(why) => Err(format!("it {why}")),
            }),
            Err(failure) if failure.reason == Reason::GeneratorToken => Ok(Err(failure.message)),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn put(&mut self, given: &Given, trial: &Trial) -> Result<(), Problem> {
        let put = self.place.put(&given.token);
        self.interrupt.unless_it_comes(put).await??;
        self.made = None;
        let granted = Duration::from_secs(trial.generator.period);
        let wanted = self.order.period;
        let asked = if self.order.role.is_none() && granted < wanted {
            format!(" ({} was asked for)", to_go(wanted))
        } else {
            String::new()
        };
        say(&format!(
            "written: {}: {}, policies {}",
            self.place.name(),
            trial.generator.display_name,
            trial.generator.policies.join(", ")
        ));
        say(&format!(
            "Vault granted a period of {}{asked}; {}",
            to_go(granted),
            self.place.what_next()
        ));
        say_findings(trial);
        Ok(())
    }

    /// Ends what is not to stay.
    pub(super) async fn clean_up(&mut self) {
        for (token, what) in [
            (self.made.take(), "the token that was just made"),
            (self.login.take(), "the login's token"),
        ] {
            let Some(token) = token else { continue };
            let ended = timeout(ENDING, self.vault.revoke(&token)).await;
            if let Err(error) = ended.unwrap_or(Err(VaultError::TimedOut(ENDING))) {
                complain(&format!(
                    "{what} could not be revoked ({error}): it lives until its time is over"
                ));
            }
        }
    }
}

/// Is this a path at which tokens are made?
fn is_a_tokens_making(path: &str) -> bool {
    matches!(path, "auth/token/create" | "auth/token/create-orphan")
        || path
            .strip_prefix("auth/token/create/")
            .is_some_and(|role| role.parse::<RoleName>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_made_at_these_paths_only() {
        for path in [
            "auth/token/create",
            "auth/token/create-orphan",
            "auth/token/create/nodes",
        ] {
            assert!(is_a_tokens_making(path), "{path}");
        }
        for path in [
            "sys/wrapping/wrap",
            "secret/data/auth-token",
            "auth/token/renew-self",
            "auth/ldap/login/alice",
            "auth/tokens/create",
            "secret/auth/token/create",
            "auth/token/create/",
            "auth/token/create/a/b",
            "",
        ] {
            assert!(!is_a_tokens_making(path), "{path}");
        }
    }
}
