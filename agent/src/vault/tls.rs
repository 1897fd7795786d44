//! TLS as the settings want it: whom to trust, and as whom to come.

use crate::config::{self, VaultSettings};
use crate::identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use std::fmt::Debug;
use std::sync::Arc;

/// Servers whose sessions are remembered, to be taken up again: Vault, and some to redirect to.
const SESSIONS: usize = 8;

/// Makes the configuration. Reads the certificates, so that a new call takes up changed files.
///
/// # Errors
/// One line that names the file or setting and what is wrong with it.
pub(super) fn configuration(settings: &VaultSettings) -> Result<ClientConfig, String> {
    if settings.skip_verify {
        return judged_by(settings, Anyone);
    }
    let (builder, _) = builder()?;
    complete(builder.with_root_certificates(trusted(settings)?), settings)
}

/// The same, with another judge of the server's certificate.
///
/// # Errors
/// As for [`configuration`].
pub(super) fn judged_by(
    settings: &VaultSettings,
    judge: impl Judge + 'static,
) -> Result<ClientConfig, String> {
    let (builder, provider) = builder()?;
    let verifier = Arc::new(Verifier { provider, judge });
    let builder = builder.dangerous();
    complete(builder.with_custom_certificate_verifier(verifier), settings)
}

type Builder<Wants> = ConfigBuilder<ClientConfig, Wants>;

fn builder() -> Result<(Builder<WantsVerifier>, Arc<CryptoProvider>), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok((builder, provider))
}

/// Everything but who judges the server's certificate.
fn complete(
    builder: Builder<WantsClientCert>,
    settings: &VaultSettings,
) -> Result<ClientConfig, String> {
    let mut configuration = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let identity = SingleCertAndKey::from(identity::read(certificate, key)?);
            builder.with_client_cert_resolver(Arc::new(identity))
        }
    };
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    configuration.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(configuration)
}

/// The CAs of the settings, or else the system's.
pub(super) fn trusted(settings: &VaultSettings) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = trusted_certificates(settings)?;
    if settings.ca.is_none() {
        // One of the system's that is odd harms nobody; none at all is said by the failing handshake.
        roots.add_parsable_certificates(certificates);
        return Ok(roots);
    }
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| format!("a CA of VAULT_CACERT or VAULT_CAPATH: {error}"))?;
    }
    Ok(roots)
}

/// The certificates of these CAs.
pub(super) fn trusted_certificates(
    settings: &VaultSettings,
) -> Result<Vec<CertificateDer<'static>>, String> {
    match &settings.ca {
        Some(source) => {
            let ca = config::read_ca(source).map_err(|error| error.to_string())?;
            Ok(ca.der.into_iter().map(CertificateDer::from).collect())
        }
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

/// What a server shows, and what for.
pub(super) struct Shown<'a> {
    /// Its own.
    pub(super) certificate: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
    pub(super) name: &'a ServerName<'a>,
    pub(super) ocsp: &'a [u8],
    pub(super) now: UnixTime,
}

/// Whether a server's certificate is trusted.
pub(super) trait Judge: Debug + Send + Sync {
    /// Judges what a server shows.
    fn judge(&self, shown: &Shown<'_>) -> Result<(), rustls::Error>;
}

/// Trusts any certificate (`VAULT_SKIP_VERIFY`).
#[derive(Debug)]
struct Anyone;

impl Judge for Anyone {
    fn judge(&self, _: &Shown<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// Has a judge look at the certificate; whoever shows it must have its key in any case.
#[derive(Debug)]
struct Verifier<J> {
    provider: Arc<CryptoProvider>,
    judge: J,
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge.judge(&Shown {
            certificate,
            others,
            name,
            ocsp,
            now,
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
