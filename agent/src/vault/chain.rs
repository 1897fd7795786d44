//! The certificates that Vault shows, and what is thought of them: for a person who wants to know which
//! one is not trusted. The handshake is that of every call, with the same CAs, name and client
//! certificate; nothing is sent after it.

use super::error::chain;
use super::tls::{self, Judge, Shown};
use crate::certificate::Certificate;
use crate::config::VaultSettings;
use rustls::CertificateError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What came of a handshake.
#[derive(Debug)]
pub struct Chain {
    /// What Vault showed, its own certificate first; empty where it came to none.
    pub certificates: Vec<Certificate>,
    /// The CAs that count.
    pub trusted: Vec<Certificate>,
    /// Why the certificates are not trusted, if so. It is no obstacle with `VAULT_SKIP_VERIFY`.
    pub distrust: Option<rustls::Error>,
    /// Why the handshake failed otherwise, if so: the chain of causes.
    pub failure: Option<String>,
}

impl Chain {
    /// Makes a handshake on this connection.
    ///
    /// # Errors
    /// TLS cannot be set up: one line that names the file or setting.
    pub async fn shown(settings: &VaultSettings, connection: TcpStream) -> Result<Self, String> {
        let host = settings.address.host().trim_matches(['[', ']']);
        let name = settings.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| "VAULT_ADDR has no host's name")?;
        let recorder = Arc::new(Recorder::new(settings)?);
        let configuration = tls::judged_by(settings, Arc::clone(&recorder))?;
        let connector = TlsConnector::from(Arc::new(configuration));
        let handshake = connector.connect(name, connection).await;
        let seen = recorder
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let trusted = tls::trusted_certificates(settings)?;
        let parsed = |all: &[CertificateDer<'_>]| {
            let parsed = all.iter().filter_map(|der| Certificate::parse(der));
            parsed.collect::<Vec<_>>()
        };
        let failure = handshake.err().filter(|_| seen.distrust.is_none());
        Ok(Self {
            certificates: parsed(&seen.certificates),
            trusted: parsed(&trusted),
            distrust: seen.distrust,
            failure: failure.map(|error| chain(&error)),
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Seen {
    certificates: Vec<CertificateDer<'static>>,
    distrust: Option<rustls::Error>,
}

/// Judges as every call does, and remembers.
#[derive(Debug)]
struct Recorder {
    /// Nothing where no CA is trusted.
    judge: Option<Arc<WebPkiServerVerifier>>,
    lenient: bool,
    seen: Mutex<Seen>,
}

impl Recorder {
    fn new(settings: &VaultSettings) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(tls::trusted(settings)?);
        let judge = WebPkiServerVerifier::builder_with_provider(roots, provider);
        Ok(Self {
            judge: judge.build().ok(),
            lenient: settings.skip_verify,
            seen: Mutex::default(),
        })
    }
}

impl Judge for Arc<Recorder> {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), rustls::Error> {
        let &Shown {
            certificate,
            others,
            name,
            ocsp,
            now,
        } = shown;
        let judgement = match &self.judge {
            Some(judge) => judge.verify_server_cert(certificate, others, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let shown = std::iter::once(certificate).chain(others);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen {
            certificates: shown.map(|one| one.clone().into_owned()).collect(),
            distrust: judgement.as_ref().err().cloned(),
        };
        match judgement {
            Err(error) if !self.lenient => Err(error),
            _ => Ok(()),
        }
    }
}
