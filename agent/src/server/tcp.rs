//! The metrics' TCP address: `/metrics`, `/healthz` and `/readyz` for Prometheus and whoever watches from
//! another machine, and nothing else. Mounts never come this way.

use super::answer::{self, Answer};
use super::pace::Pace;
use super::places::{Room, Seat};
use super::router;
use super::status::Agent;
use super::tls::Tls;
use crate::config::MetricsAddress;
use crate::failure::{Failure, Reason};
use crate::metrics::Metrics;
use crate::vault::Session;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

/// The most connections at once: see [`Room`] for which gives way to a new one.
const MOST: usize = 16;

/// Connections are accepted at least this far apart, and so are requests answered, all clients together: a
/// flood of either is not to keep mounts waiting, and a connection gets its share of this and no more.
const APART: Duration = Duration::from_millis(10);

/// After a failed accept this long passes before the next.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// The first and the longest pause between two tries to listen.
const BIND_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A TLS handshake must be over in this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The next request's head must be there in this time: Prometheus keeps its connection from one scrape to
/// the next, usually for a minute at most.
const NEXT_REQUEST: Duration = Duration::from_secs(90);

/// A request's head is small: hyper's least buffer, in bytes.
const HEAD_SIZE: usize = 8 * 1024;

/// A client is told to connect anew after this time, and shows its certificate again.
const LONGEST_CONNECTION: Duration = Duration::from_secs(3600);

/// The TCP address of the metrics, listened at or not.
pub struct TcpAddress {
    address: SocketAddr,
    tls: Option<Tls>,
    room: Room,
    accepts: Pace,
    /// Its own: else a new connection's first request would wait for the next accept's turn.
    requests: Pace,
    /// Why nobody listens there, if so.
    unbound: Mutex<Option<String>>,
    stirred: Arc<Notify>,
}

/// One connection, once its handshake is over.
struct Visit {
    at: Arc<TcpAddress>,
    agent: Arc<Agent>,
    seat: Arc<Seat>,
    begun: Instant,
    /// What it was made with.
    configuration: Option<Arc<ServerConfig>>,
}

impl TcpAddress {
    /// One at which nobody listens yet.
    #[must_use]
    pub fn new(settings: &MetricsAddress, session: &Arc<Session>, metrics: &Arc<Metrics>) -> Self {
        let stirred = Arc::new(Notify::new());
        let tls = settings.tls.as_ref().map(|tls| {
            let (session, metrics) = (Arc::clone(session), Arc::clone(metrics));
            Tls::new(tls, session, metrics, Arc::clone(&stirred))
        });
        Self {
            address: settings.address,
            tls,
            room: Room::new(MOST),
            accepts: Pace::new(APART),
            requests: Pace::new(APART),
            unbound: Mutex::default(),
            stirred,
        }
    }

    /// What is wrong with it, and what to do: each a line.
    #[must_use]
    pub fn concerns(&self) -> Vec<String> {
        let unbound = self.unbound.lock();
        let mut concerns: Vec<_> = unbound
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect();
        concerns.extend(self.tls.iter().flat_map(Tls::concerns));
        concerns
    }

    /// Waits until [`Self::concerns`] may be others.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// When the certificate ends, where Vault issued it: seconds since 1970.
    pub(super) fn certificate_ends(&self) -> Option<u64> {
        self.tls.as_ref()?.ends()
    }

    /// Listens, answers, and keeps the certificate alive.
    pub async fn serve(self: &Arc<Self>, agent: &Arc<Agent>) -> Infallible {
        let keep = async {
            let Some(tls) = &self.tls else {
                return std::future::pending().await;
            };
            // What is wrong with the files is said before a client comes.
            let _ = tls.current();
            tls.keep().await
        };
        tokio::join!(self.accept(agent), keep).0
    }

    async fn accept(self: &Arc<Self>, agent: &Arc<Agent>) -> Infallible {
        let listener = self.bound().await;
        tracing::info!("metrics are at {} too", self.address);
        loop {
            self.accepts.turn().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    // None has work in progress: there always is a place.
                    if let Some(seat) = self.room.take() {
                        tokio::spawn(visited(Arc::clone(self), Arc::clone(agent), stream, seat));
                    }
                }
                Err(error) => {
                    tracing::warn!("a connection for metrics was not accepted: {error}");
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
            }
        }
    }

    /// Listens. The address may be another's, or not be there yet: that keeps nobody from mounting.
    async fn bound(&self) -> TcpListener {
        let mut pause = BIND_PAUSES.0;
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => {
                    self.note(None);
                    return listener;
                }
                Err(error) => self.note(Some(self.not_bound(&error))),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BIND_PAUSES.1);
        }
    }

    fn not_bound(&self, error: &io::Error) -> String {
        format!(
            "metrics cannot be served at {} ({error}): is VAULTTMPFS_METRICS_ADDR an address of this machine, with a free port above 1023?",
            self.address
        )
    }

    fn note(&self, why: Option<String>) {
        let mut unbound = self.unbound.lock().unwrap_or_else(PoisonError::into_inner);
        if *unbound == why {
            return;
        }
        if let Some(why) = &why {
            tracing::warn!("{why}");
        }
        *unbound = why;
        self.stirred.notify_one();
    }
}

async fn visited(at: Arc<TcpAddress>, agent: Arc<Agent>, stream: TcpStream, seat: Arc<Seat>) {
    tokio::select! {
        () = visit(at, agent, stream, &seat) => {}
        () = seat.give_way.notified() => {}
    }
}

async fn visit(at: Arc<TcpAddress>, agent: Arc<Agent>, stream: TcpStream, seat: &Arc<Seat>) {
    let configuration = at.tls.as_ref().map(Tls::current);
    let visit = |configuration| Visit {
        at: Arc::clone(&at),
        agent,
        seat: Arc::clone(seat),
        begun: Instant::now(),
        configuration,
    };
    match configuration {
        None => visit(None).speak(stream).await,
        // There is no certificate yet.
        Some(None) => {}
        Some(Some(configuration)) => {
            let handshake = TlsAcceptor::from(Arc::clone(&configuration)).accept(stream);
            match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => visit(Some(configuration)).speak(stream).await,
                Ok(Err(error)) => at.heed(&error),
                Err(_) => {}
            }
        }
    }
}

impl TcpAddress {
    /// A handshake failed. That is the client's affair, but where its certificate is of a CA that may be new.
    fn heed(&self, error: &io::Error) {
        tracing::debug!("a client of the metrics was refused: {error}");
        let refused = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        if let (true, Some(tls)) = (refused, &self.tls) {
            tls.refused();
        }
    }
}

fn nothing_here() -> Failure {
    Failure::new(
        Reason::NotFound,
        "nothing is served here; see /metrics, /healthz and /readyz",
    )
}

impl Visit {
    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| self.answer(request));
        // A broken connection is the client's affair: nothing can be said to it any more.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_REQUEST)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        self.seat.asks();
        self.at.requests.turn().await;
        let mut answer = match router::observe(&self.agent, request.method(), request.uri()) {
            Some(Ok(answer)) => answer,
            Some(Err(failure)) => answer::refusal(&failure),
            None => answer::refusal(&nothing_here()),
        };
        if self.is_over() {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    /// Whether the client is to connect anew for its next request, which costs it nothing: to see the
    /// certificate that counts now, and to be judged by the CAs that do.
    fn is_over(&self) -> bool {
        let now = self.at.tls.as_ref().and_then(Tls::current);
        let same = match (&self.configuration, &now) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        };
        !same || self.begun.elapsed() > LONGEST_CONNECTION
    }
}
