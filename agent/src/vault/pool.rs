//! The connections to Vault: kept, used again, and never more than calls in flight.
//!
//! A call takes the connection that was used last, or opens one where none is idle. Its connection is
//! idle again before the call is over, and so before its place in the gate is another's. hyper's own
//! pool opens one more whenever none is idle at that moment, and keeps it.

use super::error::{VaultError, chain};
use super::tls;
use super::transport::MAX_ANSWER;
use crate::config::VaultSettings;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// `OpenBao` closes an idle connection after 300 s (measured); one that we still hold then would
/// cost a mount a failed call. The keeper uses one well before.
const IDLE_CONNECTION: Duration = Duration::from_secs(280);

/// A connection that is not there in this time will hardly come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A dead peer is noticed by the kernel, without waking the agent: so long after the last word, then
/// so many times so far apart. In seconds.
const TCP_KEEPALIVE: (u32, u32, u32) = (60, 3, 15);

/// Room for a usual answer, in bytes.
const USUAL_ANSWER: usize = 2048;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("vaulttmpfs/", env!("CARGO_PKG_VERSION")));

/// The connections, idle or to be opened.
pub(super) struct Pool {
    /// Nothing for plain HTTP.
    tls: Option<TlsConnector>,
    connect_timeout: Duration,
    idle: Mutex<Vec<Idle>>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// A name, or an address without brackets.
    host: String,
    port: u16,
    /// As requests name it.
    authority: HeaderValue,
    /// What its certificate must be for.
    name: ServerName<'static>,
}

struct Idle {
    target: Target,
    connection: Connection,
    since: Instant,
}

type Connection = SendRequest<Full<Bytes>>;

/// An answer with its whole body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Target {
    /// A server by its host, which is an IPv6 address only in brackets. `name`, if any, is what its
    /// certificate must be for instead.
    ///
    /// # Errors
    /// What is no name of a server.
    pub(super) fn new(host: &str, port: u16, name: Option<&str>) -> Result<Self, String> {
        let authority = format!("{host}:{port}");
        let host = host.trim_matches(['[', ']']);
        let name = name.unwrap_or(host);
        let odd = || format!("{name} is not a host's name");
        Ok(Self {
            host: host.to_owned(),
            port,
            authority: HeaderValue::from_str(&authority).map_err(|_| odd())?,
            name: ServerName::try_from(name.to_owned()).map_err(|_| odd())?,
        })
    }
}

impl Pool {
    /// One without a connection. Reads the certificates.
    ///
    /// # Errors
    /// One line that names the file or setting and what is wrong with it.
    pub(super) fn new(settings: &VaultSettings) -> Result<Self, String> {
        let tls = if settings.address.is_https() {
            let configuration = Arc::new(tls::configuration(settings)?);
            Some(TlsConnector::from(configuration))
        } else {
            None
        };
        Ok(Self {
            tls,
            connect_timeout: CONNECT_TIMEOUT.min(settings.timeout / 2),
            idle: Mutex::default(),
        })
    }

    /// Sends a request and reads the whole answer to it.
    pub(super) async fn exchange(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, VaultError> {
        let headers = request.headers_mut();
        headers.insert(HOST, target.authority.clone());
        headers.insert(USER_AGENT, AGENT);
        let (mut connection, answer) = loop {
            let idle = self.take(target);
            let fresh = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect(target).await?,
            };
            let mut error = match connection.try_send_request(request).await {
                Ok(answer) => break (connection, answer),
                Err(error) => error,
            };
            match error.take_message() {
                // The server had closed it: nothing was sent.
                Some(unsent) if !fresh => request = unsent,
                Some(_) => return Err(VaultError::NoConnection(chain(error.error()))),
                None => return Err(VaultError::NoAnswer(chain(error.error()))),
            }
        };
        let answer = read(answer).await?;
        if connection.ready().await.is_ok() {
            self.put(target, connection);
        }
        Ok(answer)
    }

    fn take(&self, target: &Target) -> Option<Connection> {
        let mut idle = self.usable();
        let last = idle.iter().rposition(|idle| idle.target == *target)?;
        Some(idle.remove(last).connection)
    }

    fn put(&self, target: &Target, connection: Connection) {
        self.usable().push(Idle {
            target: target.clone(),
            connection,
            since: Instant::now(),
        });
    }

    /// The idle connections, those closed that are not worth keeping.
    fn usable(&self) -> MutexGuard<'_, Vec<Idle>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| !idle.connection.is_closed() && idle.since.elapsed() < IDLE_CONNECTION);
        idle
    }

    async fn connect(&self, target: &Target) -> Result<Connection, VaultError> {
        let connected = timeout(self.connect_timeout, self.opened(target)).await;
        connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| VaultError::NoConnection(chain(&error)))
    }

    async fn opened(&self, target: &Target) -> io::Result<Connection> {
        let stream = self.reach(target).await?;
        match &self.tls {
            None => speak(stream).await,
            Some(tls) => speak(tls.connect(target.name.clone(), stream).await?).await,
        }
    }

    /// Tries the host's addresses one after the other; each has its share of the time.
    async fn reach(&self, target: &Target) -> io::Result<TcpStream> {
        let found = lookup_host((target.host.as_str(), target.port)).await?;
        let addresses: Vec<SocketAddr> = found.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for (before, address) in addresses.iter().enumerate() {
            let share = u32::try_from(addresses.len() - before).unwrap_or(u32::MAX) + 1;
            match timeout(self.connect_timeout / share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return prepared(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    let (idle, count, interval) = TCP_KEEPALIVE;
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(&stream, sockopt::TcpKeepCount, &count)?;
    setsockopt(&stream, sockopt::TcpKeepInterval, &interval)?;
    Ok(stream)
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<Connection> {
    let (connection, work) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends with the connection; whoever uses it then hears why.
    tokio::spawn(work);
    Ok(connection)
}

async fn read(answer: http::Response<Incoming>) -> Result<Answer, VaultError> {
    let (head, mut body) = answer.into_parts();
    let expected = body.size_hint().lower();
    if expected > MAX_ANSWER as u64 {
        return Err(VaultError::TooLarge);
    }
    // Large enough at once, mostly: a buffer that grows leaves copies behind.
    let room = usize::try_from(expected).unwrap_or_default();
    let mut text = Zeroizing::new(Vec::with_capacity(room.max(USUAL_ANSWER)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| VaultError::NoAnswer(chain(&error)))?;
        let Ok(part) = frame.into_data() else {
            continue;
        };
        if text.len() + part.len() > MAX_ANSWER {
            return Err(VaultError::TooLarge);
        }
        text.extend_from_slice(&part);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: text,
    })
}
