//! A doctor for a node: looks at all that a pod's volume depends on, before the install and after it,
//! and says of each what is so and what to do.
//!
//! Each file is one subject, each of its findings a line of the [`report`]. A subject whose premise
//! failed is said not to be checked. Nothing is changed on the node, and at Vault nothing but a trial
//! token, where one is asked for. No wait is without bound, and all of them together stay below a
//! minute.

mod configuration;
mod drivers;
mod environment;
mod health;
mod mint;
mod mounts;
mod network;
mod report;
mod rights;
mod roles;
mod socket;
mod tls;
mod token;

pub use report::{Finding, Level, Report};

use crate::config;
use crate::vault::{Generator, Needs, Probe, Role};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tls::Trust;

/// How long everything at Vault may take, a trial token aside.
const AT_VAULT: Duration = Duration::from_secs(25);

/// How long one call to Vault may take, whatever the settings say.
const ONE_CALL: Duration = Duration::from_secs(5);

/// The subjects at Vault, in order.
const VAULTS: [&str; 10] = [
    token::FILE,
    network::TITLE,
    tls::TITLE,
    health::CLOCK,
    health::TITLE,
    token::TITLE,
    rights::TITLE,
    rights::WRAPPING,
    roles::TITLE,
    mint::TITLE,
];

/// What is to be looked at besides the usual.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Make a trial token, and end it.
    pub mint: bool,
    /// The file with the settings, instead of the agent's own.
    pub settings: Option<PathBuf>,
}

/// Looks at everything.
#[must_use]
pub fn report(wish: &Wish) -> Report {
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(look(&mut report, wish));
            // A name that never resolves holds its thread.
            runtime.shutdown_background();
        }
        Err(error) => report
            .group(configuration::TITLE)
            .failure(format!("the runtime cannot be started: {error}")),
    }
    report
}

async fn look(report: &mut Report, wish: &Wish) {
    let environment = environment::Settings::find(wish.settings.as_deref());
    let settings = configuration::check(report, &environment);
    let socket = config::locations(&environment).socket;
    let installed = environment.has_unit || socket.exists() || drivers::is_installed();
    let agent = socket::check(report, &socket, installed).await;
    drivers::check(report, installed);
    mounts::check(report, agent.as_ref(), environment.has_unit);
    let in_use = match agent {
        Some(_) => socket::roles_in_use(&socket).await,
        None => BTreeSet::new(),
    };
    let mut why = "the settings are not good";
    if let Some(mut settings) = settings {
        settings.vault.timeout = settings.vault.timeout.min(ONE_CALL);
        let looked = at_vault(report, &settings, &environment, &in_use);
        match tokio::time::timeout(AT_VAULT, looked).await {
            Ok(Ok(Reached {
                probe,
                generator,
                role,
            })) => {
                if wish.mint {
                    mint::check(report, &settings, &probe, &generator, role.as_ref()).await;
                }
                why = "--mint has one made";
            }
            Ok(Err(stopped)) => why = stopped,
            Err(_) => why = "Vault took too long",
        }
    }
    report.rest_not_checked(&VAULTS, why);
}

/// Why no kubelet was found: which process is one, only root can tell.
fn no_kubelet() -> &'static str {
    if nix::unistd::geteuid().is_root() {
        "no kubelet runs here"
    } else {
        "root is needed to see it"
    }
}

/// What a trial token is made with.
struct Reached {
    probe: Probe,
    generator: Generator,
    /// The default role, where it could be read.
    role: Option<Role>,
}

/// What is at Vault's side, step by step. An error: why the rest was not looked at.
async fn at_vault(
    report: &mut Report,
    settings: &config::Settings,
    environment: &environment::Settings,
    in_use: &BTreeSet<String>,
) -> Result<Reached, &'static str> {
    let token = token::read(report, settings, environment);
    let connection = network::check(report, &settings.vault).await;
    let connection = connection.ok_or("Vault cannot be reached")?;
    let node = connection.local_addr().ok().map(|address| address.ip());
    match tls::check(report, &settings.vault, connection).await {
        Trust::Good => {}
        trust => {
            if trust == Trust::ByAnotherClock {
                health::clock_alone(report, settings).await;
            }
            return Err("Vault's certificate is not trusted, or there is no TLS");
        }
    }
    let probe = match Probe::new(settings) {
        Ok(probe) => probe,
        Err(problem) => {
            report.group(tls::TITLE).failure(problem);
            return Err("there is no TLS");
        }
    };
    if !health::check(report, &probe).await {
        return Err("Vault does not serve");
    }
    let probe = probe.with_token(token.ok_or("no generator token could be read")?);
    let Some(generator) = token::check(report, settings, &probe).await else {
        return Err("the generator token is not good");
    };
    let needs = Needs::of(settings);
    rights::check(report, &needs, &probe).await;
    rights::wrapping(report, &needs, &probe).await;
    let asking = roles::Asking {
        probe: &probe,
        generator: &generator,
        node,
    };
    let role = roles::check(report, &settings.pod_defaults.role, in_use, &asking).await;
    Ok(Reached {
        probe,
        generator,
        role,
    })
}
