//! A certificate to show and its key, from PEM files.

use crate::plain_file;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The largest PEM file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads a certificate, with those that lead to its CA, and its key.
///
/// # Errors
/// One line that names the files and what is wrong with them.
pub fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let (chain, private) = (read_chain(certificate)?, read_key(key)?);
    certified(chain, &private)
        .map_err(|problem| format!("{} and {} {problem}", certificate.display(), key.display()))
}

/// Reads a certificate, with those that lead to its CA.
///
/// # Errors
/// As for [`read`].
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content(path)?).collect();
    chain
        .ok()
        .filter(|chain| {
            let own = chain.first().map(ParsedCertificate::try_from);
            own.is_some_and(|own| own.is_ok())
        })
        .ok_or_else(|| format!("{} holds no certificate in PEM form", path.display()))
}

fn read_key(path: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
    PrivateKeyDer::from_pem_slice(&content(path)?)
        .map(Zeroizing::new)
        .map_err(|_| format!("{} holds no private key in PEM form", path.display()))
}

fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    plain_file::read_named(path, MAX_FILE)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// A certificate with its key.
///
/// # Errors
/// What is wrong with the two, in words.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, String> {
    if chain.is_empty() {
        return Err("hold no certificate".to_owned());
    }
    let key = rustls::crypto::ring::sign::any_supported_type(key)
        .map_err(|_| "hold a key of an unknown kind".to_owned())?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err("do not belong together".to_owned()),
    }
}
