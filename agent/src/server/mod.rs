//! The agent's socket: HTTP/1.1 over Unix, who may ask what, and how many at once.
//!
//! [`bind`] makes the socket, [`run`] accepts, [`places`] bounds the connections, [`peer`] tells who calls, [`router`] is the
//! one table of paths, and each kind of request is a file: [`volumes`], [`status`], [`metrics`]. The metrics may be
//! at a TCP address, too: [`tcp`], with its [`tls`].

mod answer;
mod bind;
mod connection;
mod health;
mod metrics;
mod pace;
mod peer;
mod places;
mod reload;
mod renewal;
mod revocations;
mod router;
mod settings;
mod status;
mod tcp;
mod tls;
mod volumes;

pub use bind::{OwnSocket, bind};
pub use status::{Agent, Duty};
pub use tcp::TcpAddress;

use crate::server::places::Places;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// After a failed accept (no descriptors, for example) this long passes before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Descriptors that are not a caller's: Vault's connections, the journal, the log.
const OWN_DESCRIPTORS: u64 = 128;

/// Serves until `shutdown` is done, then finishes every connection that was accepted and every
/// token that was asked for. Whoever has not yet been accepted waits for the next agent.
pub async fn run(listener: UnixListener, shutdown: impl Future<Output = ()>, agent: Arc<Agent>) {
    let places = Arc::new(Places::new(descriptors()));
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, _)) => serve(stream, &places, &agent, &stopping, &alive),
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    drop(alive);
    all_gone.recv().await;
}

fn serve(
    stream: UnixStream,
    places: &Arc<Places>,
    agent: &Arc<Agent>,
    stopping: &tokio::sync::watch::Receiver<bool>,
    alive: &mpsc::Sender<()>,
) {
    let Ok(peer) = peer::Peer::of(&stream) else {
        return;
    };
    let Some(place) = places.take(peer.is_root()) else {
        // The shim calls again when its connection ends without an answer.
        return;
    };
    let (agent, stopping, alive) = (Arc::clone(agent), stopping.clone(), alive.clone());
    tokio::spawn(connection::serve(
        stream, peer, place, agent, stopping, alive,
    ));
}

/// How many connections the process's limit of descriptors leaves, once raised as far as it goes.
fn descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return places::MOST;
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(limit.saturating_sub(OWN_DESCRIPTORS))
        .unwrap_or(places::MOST)
        .clamp(1, places::MOST)
}
