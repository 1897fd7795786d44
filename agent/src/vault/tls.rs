//! TLS as the settings want it: whom to trust, and as whom to come.

use crate::config::{self, VaultSettings};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Servers whose sessions are remembered, to be taken up again: Vault, and some to redirect to.
const SESSIONS: usize = 8;

/// Makes the configuration. Reads the certificates, so that a new call takes up changed files.
///
/// # Errors
/// One line that names the file or setting and what is wrong with it.
pub(super) fn configuration(settings: &VaultSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| format!("TLS cannot be set up: {error}");
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if settings.skip_verify {
        let anyone = Arc::new(Anyone(provider));
        builder.dangerous().with_custom_certificate_verifier(anyone)
    } else {
        builder.with_root_certificates(trusted(settings)?)
    };
    let mut configuration = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let unusable = || {
                format!(
                    "{} and {} are not a certificate and its key in PEM form",
                    certificate.display(),
                    key.display()
                )
            };
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
                .collect::<Result<_, _>>()
                .map_err(|_| unusable())?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| unusable())?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|_| unusable())?
        }
    };
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    configuration.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(configuration)
}

/// The CAs of the settings, or else the system's.
fn trusted(settings: &VaultSettings) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(source) = &settings.ca {
        let ca = config::read_ca(source).map_err(|error| error.to_string())?;
        for der in ca.der {
            roots
                .add(der.into())
                .map_err(|error| format!("a CA of VAULT_CACERT or VAULT_CAPATH: {error}"))?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    // One that is odd harms nobody; none at all is said by the failing handshake.
    roots.add_parsable_certificates(found.certs);
    Ok(roots)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Trusts any certificate (`VAULT_SKIP_VERIFY`), as long as who shows it has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
