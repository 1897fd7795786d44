//! `vaulttmpfs bootstrap`: makes the node's generator token, and puts it where the agent looks for it.
//!
//! [`questions`] asks a person for what was not given, [`login`] is who comes to Vault, [`place`] where the
//! token goes, [`making`] makes it and leaves nothing half done, and [`vault_side`] is what Vault needs
//! for it, from the shipped example.

mod login;
mod making;
mod place;
mod questions;
mod values;
mod vault_side;

use super::{complain, say};
use crate::config::{self, Installed, Settings};
use crate::duration::to_go;
use crate::exit::Exit;
use crate::failure::{Failure, Reason};
use crate::interrupt::{Interrupt, Interrupted};
use crate::vault::{Direct, Generator, Session, Trial};
use clap::Args;
use login::Login;
use making::{Making, Order};
use place::Place;
use questions::{Question, Questions};
use std::sync::Arc;
use std::time::Duration;
use vault_side::VaultSide;

/// The policies of the generator token, as README.md makes them and the first plugin had them.
const POLICIES: &str = "applications_token_creator";

/// Survives three weeks without the agent: two thirds of it, as it is renewed at a third.
const PERIOD: &str = "768h";

/// How long it may take to look, and then to make the token, in times of one try of a call.
const PATIENCE: u32 = 10;

/// What is to be made, and by whom.
#[derive(Args, Debug)]
pub struct Bootstrap {
    /// How to log in: ldap or userpass. Without it and without a user, the token in `VAULT_TOKEN` counts.
    #[arg(long, env = "VAULTTMPFS_BOOTSTRAP_METHOD")]
    method: Option<String>,
    /// Where the auth method is mounted, where not under its name.
    #[arg(long, value_name = "PATH", env = "VAULTTMPFS_BOOTSTRAP_AUTH_MOUNT")]
    auth_mount: Option<String>,
    /// The user to log in as.
    #[arg(long, value_name = "NAME", env = "VAULTTMPFS_BOOTSTRAP_USERNAME")]
    username: Option<String>,
    /// A file whose first line is the user's password; `-` is standard input.
    #[arg(long, value_name = "FILE", env = "VAULTTMPFS_BOOTSTRAP_PASSWORD_FILE")]
    password_file: Option<String>,
    /// A file with a wrapped token: the generator token itself, or one that may make it. It is unwrapped once.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "auth_mount", "username", "password_file"],
          env = "VAULTTMPFS_BOOTSTRAP_WRAPPED_TOKEN_FILE")]
    wrapped_token_file: Option<String>,
    /// The token's policies, comma-separated.
    #[arg(long, value_name = "LIST", env = "VAULTTMPFS_BOOTSTRAP_POLICIES", help = format!("The token's policies, comma-separated. Default: {POLICIES}"))]
    policies: Option<String>,
    /// The token's period.
    #[arg(long, value_name = "DURATION", env = "VAULTTMPFS_BOOTSTRAP_PERIOD", help = format!("The token's period, where no token role sets it. Default: {PERIOD}"))]
    period: Option<String>,
    /// A token role to make the token by, for logins that may make no orphan otherwise.
    #[arg(long, value_name = "NAME", env = "VAULTTMPFS_BOOTSTRAP_ROLE")]
    role: Option<String>,
    /// The token's file, where it is not the agent's `VAULTTMPFS_GENERATOR_TOKEN_PATH`.
    #[arg(long, value_name = "FILE", conflicts_with = "systemd_creds")]
    path: Option<String>,
    /// Encrypt the token by systemd-creds.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = place::CREDENTIAL,
          env = "VAULTTMPFS_BOOTSTRAP_SYSTEMD_CREDS", help = format!("Encrypt the token by systemd-creds, for a unit's LoadCredentialEncrypted=, into FILE. Default: {}", place::CREDENTIAL))]
    systemd_creds: Option<String>,
    /// The key to encrypt by: host, tpm2, host+tpm2, or auto.
    #[arg(long, value_name = "KEY", default_value = "auto")]
    with_key: String,
    /// First make the policies and token roles of the shipped example that the token needs and Vault lacks.
    #[arg(long)]
    set_up_vault: bool,
    /// Make a new token even where a good one is there.
    #[arg(long)]
    force: bool,
}

/// Why there is no token in place, and how the process ends.
#[derive(Debug)]
struct Problem {
    exit: Exit,
    message: String,
}

impl Problem {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exit, message }
    }

    /// The same of work that was interrupted, and told by another exit status.
    fn cut_short(self, why: Interrupted) -> Self {
        let cut = Self::from(why);
        if cut.exit == self.exit {
            return self;
        }
        Self::new(cut.exit, format!("{}: {}", cut.message, self.message))
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(Exit::of(failure.reason), failure.message)
    }
}

impl From<Interrupted> for Problem {
    fn from(why: Interrupted) -> Self {
        match why {
            Interrupted::BySomebody => Self::new(Exit::Interrupted, "interrupted"),
            Interrupted::TimeIsOver => Self::new(
                Exit::Unavailable,
                format!("not done within {PATIENCE} times VAULT_CLIENT_TIMEOUT: is Vault slow?"),
            ),
        }
    }
}

/// Runs the command.
#[must_use]
pub fn run(wish: &Bootstrap) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(wish.fulfil()),
        Err(error) => Err(Problem::new(Exit::Failed, error.to_string())),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(problem) => {
            complain(&problem.message);
            problem.exit
        }
    }
}

impl Bootstrap {
    async fn fulfil(&self) -> Result<(), Problem> {
        let interrupt = Interrupt::listen()
            .map_err(|error| Problem::new(Exit::Failed, format!("signals: {error}")))?;
        let questions = Questions::new(interrupt.clone());
        let mut settings = settings()?;
        for doubt in settings.vault.doubts() {
            complain(&doubt);
        }
        let place = self.place(&questions, &settings).await?;
        let bound = settings.vault.timeout.saturating_mul(PATIENCE);
        let looking = interrupt.within(bound);
        looking.unless_it_comes(place.prepare()).await??;
        // What is said of the token names the file.
        settings.generator_token_path = place.path().to_owned();
        let vault = Direct::new(&settings.vault)?;
        looking.unless_it_comes(vault.health()).await??;
        let session = Session::new(&settings, Arc::default());
        if !self.force {
            let kept = self.kept(&session, &place);
            if looking.unless_it_comes(kept).await?? {
                return Ok(());
            }
        }
        let order = self.order(&questions, &settings).await?;
        let login = Login::of(self, &questions).await?;
        let interrupt = interrupt.within(bound);
        let mut making = Making::new(&vault, &session, &interrupt, &place, &order);
        let mut outcome = making.carry_out(&login).await;
        if let Err(why) = interrupt.go_on() {
            outcome = outcome.map_err(|problem| {
                complain("cut short: what was made is ended first");
                problem.cut_short(why)
            });
        }
        making.clean_up().await;
        outcome
    }

    async fn place(&self, questions: &Questions, settings: &Settings) -> Result<Place, Problem> {
        if let Some(path) = given(self.systemd_creds.as_ref()) {
            let path =
                values::path(path).map_err(|expected| wrong("--systemd-creds", &expected))?;
            let key =
                values::key(&self.with_key).map_err(|expected| wrong("--with-key", &expected))?;
            return Ok(Place::Encrypted { path, key });
        }
        let usual = settings.generator_token_path.display().to_string();
        let question = Question {
            option: "--path",
            text: "File for the generator token",
            default: Some(&usual),
        };
        let path = questions
            .answer(given(self.path.as_ref()), &question, values::path)
            .await?;
        Ok(Place::File(path))
    }

    /// Is a good token there already? It says so, or why not.
    async fn kept(&self, session: &Session, place: &Place) -> Result<bool, Problem> {
        let token = match place.present().await {
            Ok(Some(token)) => token,
            Ok(None) => return Ok(false),
            Err(why) => {
                complain(&format!("{}: {why}; another token is made", place.name()));
                return Ok(false);
            }
        };
        let wanted = given(self.policies.as_ref()).unwrap_or(POLICIES);
        let wanted = values::policies(wanted).map_err(|expected| wrong("--policies", &expected))?;
        let why_not = match session.trial(token).await {
            Ok(trial) => match unfit(&trial.generator).or_else(|| too_weak(&trial, &wanted)) {
                None => {
                    say(&format!(
                        "kept: the generator token in {} is good: {}; --force makes another",
                        place.name(),
                        described(&trial.generator)
                    ));
                    say_findings(&trial);
                    return Ok(true);
                }
                Some(why) => format!("the generator token there {why}"),
            },
            Err(failure) if failure.reason == Reason::GeneratorToken => failure.message,
            Err(failure) => return Err(failure.into()),
        };
        complain(&format!("{}: {why_not}; another is made", place.name()));
        Ok(false)
    }

    async fn order(&self, questions: &Questions, settings: &Settings) -> Result<Order, Problem> {
        let question = Question {
            option: "--policies",
            text: "Policies of the generator token",
            default: Some(POLICIES),
        };
        let policies = questions
            .answer(given(self.policies.as_ref()), &question, values::policies)
            .await?;
        let question = Question {
            option: "--role",
            text: "Token role to make it by (empty: none)",
            default: Some(""),
        };
        let role = questions
            .answer(given(self.role.as_ref()), &question, values::role)
            .await?;
        let question = Question {
            option: "--period",
            text: "Period",
            default: Some(PERIOD),
        };
        // A role has a period of its own.
        let unasked = role.is_some().then_some(PERIOD);
        let period = questions
            .answer(
                given(self.period.as_ref()).or(unasked),
                &question,
                values::period,
            )
            .await?;
        Ok(Order {
            vault_side: self
                .set_up_vault
                .then(|| VaultSide::for_policies(&policies))
                .transpose()
                .map_err(|problem| Problem::new(Exit::Usage, problem))?,
            policies,
            period,
            role,
            node: settings.node.clone(),
            cluster: settings.cluster.clone(),
        })
    }
}

/// The agent's settings, where a person or a script runs a command.
fn settings() -> Result<Settings, Problem> {
    let bad = |message: String| Problem::new(Exit::Usage, message);
    let installed = Installed::read().map_err(|error| {
        let file = config::settings_file();
        bad(format!("{} cannot be read: {error}", file.display()))
    })?;
    config::read(&installed).map_err(|errors| bad(errors.to_string()))
}

/// What a variable that is empty gives is nothing.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

fn wrong(option: &str, expected: &str) -> Problem {
    Problem::new(Exit::Usage, format!("{option}: expected {expected}"))
}

/// Why this is no token to live by, whatever it may do.
fn unfit(token: &Generator) -> Option<String> {
    if !token.orphan {
        Some("is no orphan: it ends with the token that made it".to_owned())
    } else if !token.renewable || token.period == 0 {
        Some("is not periodic: it ends, however often it is renewed".to_owned())
    } else if token.explicit_max_ttl > 0 {
        let longest = to_go(Duration::from_secs(token.explicit_max_ttl));
        Some(format!(
            "has an explicit max TTL of {longest}: no renewal goes beyond"
        ))
    } else {
        None
    }
}

/// Why another token would do more than this one. One with the wanted policies is as good as another.
fn too_weak(trial: &Trial, wanted: &[String]) -> Option<String> {
    let has_all = wanted
        .iter()
        .all(|policy| trial.generator.policies.contains(policy));
    let lacks = trial.concerns.first().filter(|_| !has_all)?;
    Some(format!("could do more: {lacks}"))
}

/// The token for a person: no secret is in it.
fn described(token: &Generator) -> String {
    let duration = |seconds| to_go(Duration::from_secs(seconds));
    format!(
        "{}, policies {}, period {}, has {} to live unless renewed",
        token.display_name,
        token.policies.join(", "),
        duration(token.period),
        duration(token.ttl)
    )
}

fn say_findings(trial: &Trial) {
    for line in trial.concerns.iter().chain(&trial.warnings) {
        complain(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Generator {
        Generator {
            orphan: true,
            renewable: true,
            period: 24 * 3600,
            policies: vec!["default".into(), "a".into()],
            ..Generator::default()
        }
    }

    #[test]
    fn only_an_orphan_that_can_live_on_is_fit() {
        assert_eq!(unfit(&token()), None);
        for (change, why) in [
            (
                (|token| token.orphan = false) as fn(&mut Generator),
                "orphan",
            ),
            (|token| token.period = 0, "periodic"),
            (|token| token.renewable = false, "periodic"),
            (
                |token| {
                    token.role = "nodes".into();
                    token.renewable = false;
                },
                "periodic",
            ),
            (|token| token.explicit_max_ttl = 7200, "2h"),
        ] {
            let mut token = token();
            change(&mut token);
            let said = unfit(&token).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_token_is_too_weak_where_the_wanted_policies_may_do_more() {
        let trial = |concerns: &[&str]| Trial {
            generator: token(),
            concerns: concerns.iter().map(ToString::to_string).collect(),
            warnings: Vec::new(),
        };
        let wanted = |policy: &str| vec![policy.to_owned()];
        assert_eq!(too_weak(&trial(&[]), &wanted("b")), None);
        assert_eq!(too_weak(&trial(&["no right"]), &wanted("a")), None);
        assert!(too_weak(&trial(&["no right"]), &wanted("b")).is_some());
    }
}
