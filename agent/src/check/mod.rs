//! A doctor for a node: looks at all that a pod's volume depends on, before the install and after it,
//! and says of each what is so and what to do.
//!
//! Each file is one subject, each of its findings a line of the [`report`]. A subject whose premise
//! failed is said not to be checked. Nothing is changed on the node, and at Vault nothing but a trial
//! token, where one is asked for. No wait is without bound, and all of them together stay below a
//! minute.

mod aside;
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
use aside::aside;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tls::Trust;
use tokio::time::Instant;

/// How long all of it may take.
const ALL: Duration = Duration::from_secs(55);

/// How long everything at Vault may take, a trial token aside. Whatever the node's side took, within
/// its bounds, there is that much time left.
const AT_VAULT: Duration = Duration::from_secs(25);

/// How long one call to Vault may take, whatever the settings say.
const ONE_CALL: Duration = Duration::from_secs(5);

/// The subjects, in order.
const SUBJECTS: [&str; 14] = [
    configuration::TITLE,
    socket::TITLE,
    drivers::TITLE,
    mounts::TITLE,
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
            // A name that never resolves holds its thread, and so does a file that hangs.
            runtime.shutdown_background();
        }
        Err(error) => report
            .group(configuration::TITLE)
            .failure(format!("the runtime cannot be started: {error}")),
    }
    report
}

async fn look(report: &mut Report, wish: &Wish) {
    let end = Instant::now() + ALL;
    let why = match on_the_node(report, wish.settings.clone()).await {
        Some(node) => beyond_it(report, node, wish.mint, end).await,
        None => "the settings are not good",
    };
    report.rest_not_checked(&SUBJECTS, why);
}

/// What the look at Vault begins with.
struct Node {
    environment: Arc<environment::Settings>,
    settings: config::Settings,
    roles_in_use: BTreeSet<String>,
}

/// What is on the node's side. Nothing where its settings are not good.
async fn on_the_node(report: &mut Report, file: Option<PathBuf>) -> Option<Node> {
    let find = move |_: &mut Report| Arc::new(environment::Settings::find(file.as_deref()));
    let environment = report.take(aside(configuration::TITLE, find).await)?;
    let has_unit = environment.has_unit;
    let socket = config::locations(&*environment).socket;
    let (of_them, at) = (Arc::clone(&environment), socket.clone());
    let (settings, at_socket) = tokio::join!(
        aside(configuration::TITLE, move |report| {
            configuration::check(report, &of_them)
        }),
        aside(socket::TITLE, move |report| {
            let installed = has_unit || at.exists() || drivers::is_installed();
            (installed, socket::file(report, &at, installed))
        }),
    );
    let settings = report.take(settings).flatten();
    // One that could not be looked for is expected all the same.
    let (installed, is_there) = report.take(at_socket).unwrap_or((true, false));
    let agent = if is_there {
        socket::check(report, &socket).await
    } else {
        None
    };
    let pid = agent.as_ref().map(|agent| agent.pid);
    let (at_drivers, at_mounts, roles_in_use) = tokio::join!(
        aside(drivers::TITLE, move |report| {
            drivers::check(report, installed);
        }),
        aside(mounts::TITLE, move |report| {
            mounts::check(report, pid, has_unit);
        }),
        socket::roles_in_use(&socket, agent.as_ref()),
    );
    report.take(at_drivers);
    report.take(at_mounts);
    Some(Node {
        environment,
        settings: settings?,
        roles_in_use,
    })
}

/// What is at Vault's side, bounded. Why the rest was not looked at.
async fn beyond_it(report: &mut Report, mut node: Node, mint: bool, end: Instant) -> &'static str {
    let timeout = &mut node.settings.vault.timeout;
    *timeout = (*timeout).min(ONE_CALL);
    let looked = at_vault(report, &node);
    match tokio::time::timeout(AT_VAULT, looked).await {
        Ok(Ok(reached)) => {
            if mint {
                mint::check(report, &node.settings, &reached, end).await;
            }
            "--mint has one made"
        }
        Ok(Err(stopped)) => stopped,
        Err(_) => "Vault took too long",
    }
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
async fn at_vault(report: &mut Report, node: &Node) -> Result<Reached, &'static str> {
    let settings = &node.settings;
    let path = settings.generator_token_path.clone();
    let environment = Arc::clone(&node.environment);
    let read = move |report: &mut Report| token::read(report, &path, &environment);
    let token = report.take(aside(token::FILE, read).await).flatten();
    let connection = network::check(report, &settings.vault).await;
    let connection = connection.ok_or("Vault cannot be reached")?;
    let address = connection.local_addr().ok().map(|address| address.ip());
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
        node: address,
    };
    let default = &settings.pod_defaults.role;
    let role = roles::check(report, default, &node.roles_in_use, &asking).await;
    Ok(Reached {
        probe,
        generator,
        role,
    })
}
