//! An HTTPS client of the tests' own, for calls that are not the agent's.

use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// A client that trusts only this authority, follows no redirect and takes every status as an answer.
pub(crate) fn client(authority: &str) -> ureq::Agent {
    let root = Certificate::from_pem(authority.as_bytes()).expect("an authority's certificate");
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[root]))
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .allow_non_standard_methods(true)
        .max_idle_connections_per_host(64)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
}
