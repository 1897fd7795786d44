//! The connection pool, made from the settings.

use super::gate::IN_FLIGHT;
use super::transport::Transport;
use crate::config::{self, VaultSettings};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// `OpenBao` closes an idle connection after 300 s (measured); one that we still hold then would
/// cost a mount a failed call. The keeper uses one well before.
const IDLE_CONNECTION: Duration = Duration::from_secs(280);

/// A connection that is not there in this time will hardly come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A dead peer is noticed by the kernel, without waking the agent.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Makes the pool. Reads the certificates, so that a new call takes up changed files.
///
/// # Errors
/// One line that names the file or setting and what is wrong with it.
pub(super) fn build(settings: &VaultSettings) -> Result<Transport, String> {
    // Once for the process; a second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("vaulttmpfs/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(IN_FLIGHT)
        .pool_idle_timeout(IDLE_CONNECTION)
        .tcp_keepalive(TCP_KEEPALIVE)
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout / 2))
        .timeout(settings.timeout);
    if let Some(source) = &settings.ca {
        let ca = config::read_ca(source).map_err(|error| error.to_string())?;
        let certificates: Result<Vec<_>, _> = ca
            .der
            .iter()
            .map(|der| reqwest::Certificate::from_der(der))
            .collect();
        client = client.tls_certs_only(certificates.map_err(|error| error.to_string())?);
    }
    if let Some((certificate, key)) = &settings.client_certificate {
        client = client.identity(identity(certificate, key)?);
    }
    if settings.skip_verify {
        client = client.tls_danger_accept_invalid_certs(true);
    }
    let mut url = settings.address.url().clone();
    // A redirect's target is checked for its own name.
    if let Some(name) = settings
        .server_name
        .as_ref()
        .filter(|_| settings.address.is_https())
    {
        let host = settings.address.host().trim_matches(['[', ']']).to_owned();
        client = client.dns_resolver(Arc::new(ServerName {
            name: name.clone(),
            host,
        }));
        url.set_host(Some(name))
            .map_err(|_| format!("VAULT_TLS_SERVER_NAME={name}: it is not a host's name"))?;
    }
    let http = client
        .build()
        .map_err(|error| format!("TLS cannot be set up: {}", super::error::chain(&error)))?;
    Ok(Transport {
        http,
        base: url.as_str().trim_end_matches('/').to_owned(),
        address: settings.address.clone(),
        redirect_hosts: settings.redirect_hosts.clone(),
        timeout: settings.timeout,
    })
}

fn identity(certificate: &Path, key: &Path) -> Result<reqwest::Identity, String> {
    let mut pem = Zeroizing::new(Vec::new());
    for path in [certificate, key] {
        let part = std::fs::read(path)
            .map(Zeroizing::new)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        pem.extend_from_slice(&part);
        pem.push(b'\n');
    }
    reqwest::Identity::from_pem(&pem).map_err(|_| {
        format!(
            "{} and {} are not a certificate and its key in PEM form",
            certificate.display(),
            key.display()
        )
    })
}

/// Finds Vault's host whatever name its certificate is checked for (`VAULT_TLS_SERVER_NAME`).
struct ServerName {
    name: String,
    host: String,
}

impl Resolve for ServerName {
    fn resolve(&self, asked: Name) -> Resolving {
        let host = if asked.as_str().eq_ignore_ascii_case(&self.name) {
            self.host.clone()
        } else {
            asked.as_str().to_owned()
        };
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
