//! `vaulttmpfs agent`: serves the node's mounts until it is told to stop.

use crate::config::{self, Locations, ProcessEnvironment, Settings};
use crate::exit::Exit;
use crate::failure::{Failure, Reason};
use crate::mount::Mounter;
use crate::server::{self, Agent};
use crate::vault::Session;
use crate::volumes::{Journal, JournalError, Origin, Volumes};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the agent.
#[must_use]
pub fn run() -> Exit {
    let locations = config::locations(&ProcessEnvironment);
    let settings = config::read(&ProcessEnvironment)
        .map_err(|errors| Failure::new(Reason::BadSettings, errors.to_string()));
    // A current-thread runtime: the work is waiting, and each thread would cost memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(&locations, settings)),
        Err(error) => {
            tracing::error!("the runtime cannot be started: {error}");
            Exit::Failed
        }
    }
}

async fn serve(locations: &Locations, settings: Result<Settings, Failure>) -> Exit {
    let Ok([mut terminate, mut interrupt, mut hangup]) = signals() else {
        tracing::error!("signals cannot be received");
        return Exit::Failed;
    };
    let agent = match assemble(locations, settings) {
        Ok(agent) => Arc::new(agent),
        Err(error) => {
            tracing::error!("{error}");
            return Exit::Unavailable;
        }
    };
    let (listener, _own_socket) = match server::bind(&locations.socket) {
        Ok(bound) => bound,
        Err(error) => {
            tracing::error!("{} cannot be served: {error}", locations.socket.display());
            return Exit::Unavailable;
        }
    };
    if let Agent::Misconfigured(failure) = &*agent {
        tracing::error!("bad settings, every mount is refused: {failure}");
    }
    let socket = locations.socket.display();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving on {socket}");
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        tracing::info!("stopping: what was accepted is finished first");
    };
    let background = async {
        match &*agent {
            Agent::Working {
                mounter,
                volumes,
                session,
            } => {
                // Not tasks of their own: should one panic, the agent ends and is started anew,
                // instead of living on without it.
                tokio::join!(session.keep(), volumes.live(session), mounter.warm()).0
            }
            Agent::Misconfigured(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = server::run(listener, shutdown, Arc::clone(&agent)) => {}
        never = background => match never {},
    }
    Exit::Done
}

/// Builds the agent. Bad settings make one that says so; a journal that is another's, none.
fn assemble(
    locations: &Locations,
    settings: Result<Settings, Failure>,
) -> Result<Agent, JournalError> {
    let settings = settings.and_then(|settings| {
        let delivered = settings
            .delivered
            .files()
            .map_err(|error| Failure::new(Reason::BadSettings, format!("the pods' CA: {error}")))?;
        Ok((settings, delivered))
    });
    let (settings, delivered) = match settings {
        Ok(good) => good,
        Err(failure) => return Ok(Agent::Misconfigured(failure)),
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let session = Session::new(&settings);
    let here = Origin::here(
        session.address().to_owned(),
        settings.vault.namespace.clone(),
    );
    let (journal, records) = match Journal::open(&locations.state_dir, &here) {
        Ok(open) => open,
        Err(error @ JournalError::Held(..)) => return Err(error),
        Err(error @ JournalError::Unusable(..)) => {
            let failure = Failure::new(Reason::BadSettings, error.to_string());
            return Ok(Agent::Misconfigured(failure));
        }
    };
    let volumes = Arc::new(Volumes::new(journal, records, here, &settings.lifecycle));
    let mounter = Arc::new(Mounter::new(
        settings,
        delivered,
        Arc::clone(&session),
        Arc::clone(&volumes),
    ));
    Ok(Agent::Working {
        mounter,
        volumes,
        session,
    })
}

fn signals() -> std::io::Result<[Signal; 3]> {
    Ok([
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        // Of a terminal that closes.
        signal(SignalKind::hangup())?,
    ])
}
