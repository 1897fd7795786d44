//! One connection, from its acceptance to its end.

use super::peer::Peer;
use super::places::{Busy, Seat};
use super::router;
use super::status::Agent;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use vaulttmpfs_api::VolumeId;

/// A request's head, and the next one's, must be there in this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// When the agent stops, a connection without work in progress has this long to take its answer.
const LAST_MOMENT: Duration = Duration::from_secs(3);

/// A request's head is small: hyper's least buffer, in bytes.
const HEAD_SIZE: usize = 8 * 1024;

/// What a request handler knows of the connection it came by.
pub(super) struct Connection {
    pub(super) agent: Arc<Agent>,
    pub(super) peer: Peer,
    seat: Arc<Seat>,
    /// Volumes handed out here that the shim has not yet reported attached.
    waiting: Mutex<Vec<(VolumeId, Busy)>>,
    /// Lives as long as anything of this connection: the server waits for it when it stops.
    pub(super) alive: mpsc::Sender<()>,
}

pub(super) async fn serve(
    stream: UnixStream,
    peer: Peer,
    seat: Arc<Seat>,
    agent: Arc<Agent>,
    mut stopping: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    let connection = Arc::new(Connection {
        agent,
        peer,
        seat: Arc::clone(&seat),
        waiting: Mutex::default(),
        alive,
    });
    let service = service_fn(|request| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, Infallible>(router::answer(connection, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let mut last_moment = Box::pin(tokio::time::sleep(Duration::MAX));
    loop {
        tokio::select! {
            // A broken connection is the caller's affair: nothing can be said to it any more.
            _ = &mut served => break,
            () = seat.give_way.notified() => break,
            Ok(()) = stopping.changed() => {
                served.as_mut().graceful_shutdown();
                last_moment.set(tokio::time::sleep(LAST_MOMENT));
            }
            () = &mut last_moment => {
                if !seat.is_busy() {
                    break;
                }
                last_moment.set(tokio::time::sleep(LAST_MOMENT));
            }
        }
    }
}

impl Connection {
    /// Marks the connection as having something in progress.
    pub(super) fn busy(&self) -> Busy {
        self.seat.busy()
    }

    /// A volume goes out to the shim: its word is waited for.
    pub(super) fn handed_out(&self, id: VolumeId) {
        self.waiting().push((id, self.busy()));
    }

    /// The shim has given its word.
    pub(super) fn reported(&self, id: VolumeId) {
        self.waiting().retain(|(waiting, _)| *waiting != id);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(VolumeId, Busy)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for (id, _) in self.waiting().drain(..) {
            self.agent.hung_up(id, self.peer.pid());
        }
    }
}
