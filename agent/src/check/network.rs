//! The way to Vault: is its name known, and does anything listen?

use super::report::Report;
use crate::config::VaultSettings;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

pub(super) const TITLE: &str = "network";

/// How long a name may take: the system's resolver waits 5 s for a server before it asks the next.
const RESOLVING: Duration = Duration::from_secs(8);

/// How long a connection may take, all addresses at once.
const CONNECTING: Duration = Duration::from_secs(4);

/// More addresses of one name are not tried.
const MOST_ADDRESSES: usize = 8;

/// A connection, where there is one.
pub(super) async fn check(report: &mut Report, vault: &VaultSettings) -> Option<TcpStream> {
    let mut group = report.group(TITLE);
    let host = vault.address.host().trim_matches(['[', ']']);
    let port = vault.address.port();
    let addresses: Vec<SocketAddr> = match timeout(RESOLVING, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            group.failure(format!(
                "the name {host} does not resolve ({error}): is VAULT_ADDR right, and what does `getent hosts {host}` say?"
            ));
            return None;
        }
        Err(_) => {
            group.failure(format!(
                "the name {host} does not resolve within {} s: do the servers in /etc/resolv.conf answer?",
                RESOLVING.as_secs()
            ));
            return None;
        }
    };
    if addresses.is_empty() {
        group.failure(format!(
            "the name {host} has no address: is VAULT_ADDR right?"
        ));
        return None;
    }
    if host.parse::<std::net::IpAddr>().is_err() {
        let all: Vec<_> = addresses.iter().map(|it| it.ip().to_string()).collect();
        group.ok(format!("{host} is {}", all.join(", ")));
    }
    let tries = addresses.into_iter().take(MOST_ADDRESSES).map(|address| {
        tokio::spawn(async move {
            let begun = Instant::now();
            let connected = timeout(CONNECTING, TcpStream::connect(address)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            (address, connected, begun.elapsed())
        })
    });
    let tries: Vec<_> = tries.collect();
    let mut first = None;
    let mut failed = Vec::new();
    for outcome in tries {
        match outcome.await {
            Ok((address, Ok(stream), took)) => {
                group.ok(format!(
                    "{address} takes connections, after {}",
                    milliseconds(took)
                ));
                first = first.or(Some(stream));
            }
            Ok((address, Err(error), _)) => failed.push(no_connection(address, &error)),
            Err(error) => failed.push(error.to_string()),
        }
    }
    for problem in failed {
        if first.is_some() {
            group.warning(problem);
        } else {
            group.failure(problem);
        }
    }
    first
}

fn no_connection(address: SocketAddr, error: &io::Error) -> String {
    let step = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: is VAULT_ADDR's port right, and does Vault run?"
        }
        io::ErrorKind::TimedOut => "does a firewall between here and there drop it?",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "this node has no route there: ip route get"
        }
        _ => "see this node's network",
    };
    format!("{address} takes no connection ({error}): {step}")
}

/// As in `3.2 ms`.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
