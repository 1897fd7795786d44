//! A faulty proxy in front of Vault, for what a real server cannot be made to do: an answer that is
//! cut, endless, late or not JSON, a rate limit that passes, a gateway's error page.
//!
//! It speaks TLS with a certificate of its own and asks OpenBao for everything that no fault is
//! ordered for, so the rest of the conversation stays real.

mod connection;
mod fault;

pub use fault::Fault;

use crate::{Authority, Identity, OpenBao, https};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The proxy. Dropped, it closes every connection.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// What all connections share.
struct Shared {
    tls: Arc<ServerConfig>,
    upstream: ureq::Agent,
    vault: String,
    faults: Mutex<Vec<Order>>,
    seen: Mutex<Vec<(Instant, String)>>,
    accepted: AtomicUsize,
    /// Requests being answered now, and the most there ever were.
    busy: AtomicUsize,
    busiest: AtomicUsize,
    closing: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A fault for the next requests that begin with some words.
struct Order {
    request: String,
    left: usize,
    fault: Fault,
}

impl Proxy {
    /// Starts one in front of this server, with a certificate of the same authority.
    #[must_use]
    pub fn start(vault: &OpenBao) -> Self {
        Self::start_as(vault, vault.authority())
    }

    /// Starts one whose certificate is of another authority's making.
    #[must_use]
    pub fn start_as(vault: &OpenBao, authority: &Authority) -> Self {
        Self::start_with(vault, &authority.identity())
    }

    /// Starts one with this certificate.
    #[must_use]
    pub fn start_with(vault: &OpenBao, identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        let address = listener.local_addr().expect("the proxy's address");
        let shared = Arc::new(Shared {
            tls: server_configuration(identity),
            upstream: https::client(&vault.authority().certificate()),
            vault: vault.address().to_owned(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            accepted: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let for_listener = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &for_listener));
        Self { shared, address }
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Orders a fault for the next `times` requests that begin so, for example
    /// `POST /v1/auth/token/create`. Earlier orders go first.
    pub fn order(&self, times: usize, request: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().push(Order {
            request: request.to_owned(),
            left: times,
            fault,
        });
    }

    /// Orders a fault for all requests that begin so.
    pub fn always(&self, request: &str, fault: Fault) {
        self.order(usize::MAX, request, fault);
    }

    /// Lets every answer go that was ordered to be held.
    pub fn release(&self) {
        for order in self.shared.faults.lock().unwrap().iter() {
            if let Fault::Held(gate) = &order.fault {
                gate.open();
            }
        }
    }

    /// From now on everything goes well.
    pub fn heal(&self) {
        self.release();
        self.shared.faults.lock().unwrap().clear();
    }

    /// Closes all connections, as a server does that restarts.
    pub fn hang_up(&self) {
        for connection in self.shared.open.lock().unwrap().drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// How many requests that begin so have come, whatever came of them.
    #[must_use]
    pub fn count(&self, request: &str) -> usize {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, one)| one.starts_with(request))
            .count()
    }

    /// When requests that begin so have come.
    #[must_use]
    pub fn times(&self, request: &str) -> Vec<Instant> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, one)| one.starts_with(request))
            .map(|(at, _)| *at)
            .collect()
    }

    /// All requests so far, as `METHOD PATH`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        {
            let seen = self.shared.seen.lock().unwrap();
            seen.iter().map(|(_, one)| one.clone()).collect()
        }
    }

    /// How many requests were being answered at the same time, at most.
    #[must_use]
    pub fn busiest(&self) -> usize {
        self.shared.busiest.load(Ordering::SeqCst)
    }

    /// How many connections were ever made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.hang_up();
        // Wakes the listener, which then sees that it is to end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Notes a request, and says what is wrong with it.
    fn take(&self, request: &str) -> Option<Fault> {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.busiest.fetch_max(busy, Ordering::SeqCst);
        let seen = (Instant::now(), request.to_owned());
        self.seen.lock().unwrap().push(seen);
        let mut faults = self.faults.lock().unwrap();
        let order = faults
            .iter_mut()
            .find(|order| order.left > 0 && request.starts_with(&order.request))?;
        order.left -= 1;
        Some(order.fault.clone())
    }

    /// The request is answered, however.
    fn done(&self) {
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let Ok(copy) = connection.try_clone() else {
            continue;
        };
        shared.open.lock().unwrap().push(copy);
        let shared = Arc::clone(shared);
        // A broken connection is the client's affair: the test sees what the client makes of it.
        std::thread::spawn(move || connection::serve(connection, &shared));
    }
}

fn server_configuration(identity: &Identity) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .expect("the proxy's certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("the proxy's key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the proxy's certificate and key");
    Arc::new(configuration)
}
