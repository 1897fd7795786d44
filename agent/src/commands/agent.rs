//! `vaulttmpfs agent`: serves the node's mounts until it is told to stop.

use crate::config::{self, Locations, ProcessEnvironment};
use crate::exit::Exit;
use crate::failure::{Failure, Reason};
use crate::interrupt::Interrupt;
use crate::metrics::Metrics;
use crate::mount::Mounter;
use crate::server::{self, Agent, Duty, OwnSocket, TcpAddress};
use crate::systemd;
use crate::vault::Session;
use crate::volumes::{Journal, JournalError, Origin, Volumes};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::{MissedTickBehavior, timeout};

/// Changes of what is said to systemd are at least this far apart.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// A bad setting or directory is looked at again at a call, but not more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Without a call it is looked at again after twice the pause before, up to this one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs the agent.
#[must_use]
pub fn run() -> Exit {
    let supervised = systemd::runs_us();
    let locations = config::locations(&ProcessEnvironment);
    let metrics = Arc::new(Metrics::default());
    let duty = match assemble(&locations, &metrics) {
        Ok(duty) => duty,
        Err(refusal) => {
            tracing::error!("{}", refusal.failure);
            // Started again and again for nothing, its socket would be given up for good.
            if !supervised {
                return refusal.exit;
            }
            Duty::Misconfigured(refusal.failure)
        }
    };
    let agent = Arc::new(Agent::new(duty, metrics, supervised));
    // A current-thread runtime: the work is waiting, and each thread would cost memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(&locations, &agent)),
        Err(error) => {
            tracing::error!("the runtime cannot be started: {error}");
            Exit::Failed
        }
    }
}

async fn serve(locations: &Locations, agent: &Arc<Agent>) -> Exit {
    let Ok(interrupt) = Interrupt::listen() else {
        tracing::error!("signals cannot be received");
        return Exit::Failed;
    };
    let (listener, _own_socket) = match socket(locations) {
        Ok(bound) => bound,
        Err(problem) => {
            tracing::error!("{problem}");
            return Exit::Unavailable;
        }
    };
    let stopping = Cell::new(false);
    let shutdown = async {
        let why = tokio::select! {
            _ = interrupt.comes() => "",
            () = agent.restart.notified() => " to start anew",
        };
        stopping.set(true);
        tracing::info!("stopping{why}: what was accepted is finished first");
        systemd::say_stopping();
        systemd::say_status("stopping: what was accepted is finished first");
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving");
    systemd::say_ready();
    tokio::select! {
        () = server::run(listener, shutdown, Arc::clone(agent)) => {}
        // Not tasks of their own: should one panic, the agent ends and is started anew, instead of
        // living on without it.
        never = work(locations, agent) => match never {},
        never = tell_status(agent, &stopping) => match never {},
        never = tell_alive() => match never {},
    }
    Exit::Done
}

/// Everything that goes on beside the calls.
async fn work(locations: &Locations, agent: &Arc<Agent>) -> Infallible {
    match &agent.duty {
        Duty::Working {
            mounter,
            volumes,
            session,
            tcp,
        } => {
            let serve_metrics = async {
                match tcp {
                    Some(tcp) => tcp.serve(agent).await,
                    None => std::future::pending().await,
                }
            };
            tokio::join!(
                session.keep(),
                volumes.live(session),
                mounter.warm(),
                serve_metrics
            )
            .0
        }
        Duty::Misconfigured(_) => {
            until_mended(locations, agent).await;
            agent.restart.notify_one();
            std::future::pending().await
        }
    }
}

/// Waits until the agent could be built. Looks whenever a call needed it, and by itself: the tokens of
/// pods that run want to be renewed though no call comes.
async fn until_mended(locations: &Locations, agent: &Agent) {
    let mut pause = LOOK_AGAIN;
    loop {
        if timeout(pause, agent.missed.notified()).await.is_err() {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if assemble(locations, &agent.metrics).is_ok() {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Tells systemd how the agent is, whenever that changes.
async fn tell_status(agent: &Agent, stopping: &Cell<bool>) -> Infallible {
    let mut said = String::new();
    while !stopping.get() {
        let summary = agent.summary();
        if summary != said {
            systemd::say_status(&summary);
            said = summary;
        }
        agent.stirred().await;
        tokio::time::sleep(STATUS_PAUSE).await;
    }
    std::future::pending().await
}

/// Tells systemd that this thread, which does everything, turns. Only where systemd wants to know.
async fn tell_alive() -> Infallible {
    let Some(patience) = systemd::watchdog() else {
        return std::future::pending().await;
    };
    let mut beat = tokio::time::interval(patience / 2);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        systemd::say_alive();
    }
}

/// The socket that systemd passed, or else one of the agent's own.
fn socket(locations: &Locations) -> Result<(UnixListener, Option<OwnSocket>), String> {
    if let Some(passed) = systemd::passed_socket()? {
        let listener = UnixListener::from_std(passed)
            .map_err(|error| format!("the passed socket cannot be served: {error}"))?;
        return Ok((listener, None));
    }
    let path = &locations.socket;
    let bound = server::bind(path);
    let (listener, own) =
        bound.map_err(|error| format!("{} cannot be served: {error}", path.display()))?;
    Ok((listener, Some(own)))
}

/// Why the agent cannot be built, and how the process ends where nobody starts it anew.
struct Refusal {
    failure: Failure,
    exit: Exit,
}

impl Refusal {
    fn settings(problem: &impl ToString) -> Self {
        Self {
            failure: Failure::new(Reason::BadSettings, problem.to_string()),
            exit: Exit::Usage,
        }
    }

    fn state_directory(problem: &JournalError) -> Self {
        Self {
            failure: Failure::new(Reason::BadSettings, problem.to_string()),
            exit: Exit::Unavailable,
        }
    }
}

/// Builds what does the work, from the process's environment.
fn assemble(locations: &Locations, metrics: &Arc<Metrics>) -> Result<Duty, Refusal> {
    let settings =
        config::read(&ProcessEnvironment).map_err(|errors| Refusal::settings(&errors))?;
    let delivered = settings
        .delivered
        .files()
        .map_err(|error| Refusal::settings(&format!("the pods' CA: {error}")))?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let session = Session::new(&settings, Arc::clone(metrics));
    let here = Origin::here(
        session.address().to_owned(),
        settings.vault.namespace.clone(),
    );
    let (journal, records) = Journal::open(&locations.state_dir, &here)
        .map_err(|problem| Refusal::state_directory(&problem))?;
    let volumes = Arc::new(Volumes::new(
        journal,
        records,
        here,
        &settings.lifecycle,
        Arc::clone(metrics),
    ));
    let tcp = settings
        .metrics
        .as_ref()
        .map(|at| Arc::new(TcpAddress::new(at, &session, metrics)));
    let mounter = Arc::new(Mounter::new(
        settings,
        delivered,
        Arc::clone(&session),
        Arc::clone(&volumes),
        Arc::clone(metrics),
    ));
    Ok(Duty::Working {
        mounter,
        volumes,
        session,
        tcp,
    })
}
