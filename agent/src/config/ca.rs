//! The CAs by which Vault is trusted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where CAs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaSource {
    /// One PEM file.
    File(PathBuf),
    /// Every file in a directory and those below it, as Vault's own client reads it.
    Directory(PathBuf),
}

/// CAs as they were read.
#[derive(Clone, PartialEq, Eq)]
pub struct Ca {
    /// The certificates and nothing else, each once, in PEM written anew.
    pub pem: String,
    /// The same certificates in DER.
    pub der: Vec<Vec<u8>>,
}

/// Why CAs cannot be had.
#[derive(Debug)]
pub struct CaError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Io(io::Error),
    NotAFile,
    TooMuch,
    NoCertificate,
    BadCertificate,
}

/// The most bytes read for one source. A system's whole directory of CAs is about 1 MB.
const MOST_READ: u64 = 4 * 1024 * 1024;

/// The most bytes of PEM, so that with the token's files it fits into an answer to the shim.
const MOST_PEM: usize = 512 * 1024;

/// How deep directories are followed.
const DEEPEST: usize = 8;

/// Reads CAs. A file without a certificate, or with a bad one, is an error; other PEM sections, a
/// private key among them, are left out.
pub fn read_ca(source: &CaSource) -> Result<Ca, CaError> {
    let mut reading = Reading {
        left: MOST_READ,
        ca: Ca {
            pem: String::new(),
            der: Vec::new(),
        },
    };
    let path = match source {
        CaSource::File(path) => {
            reading.file(path)?;
            path
        }
        CaSource::Directory(path) => {
            reading.directory(path, DEEPEST)?;
            path
        }
    };
    match reading.ca {
        ca if ca.der.is_empty() => Err(CaError::new(path, Problem::NoCertificate)),
        ca if ca.pem.len() > MOST_PEM => Err(CaError::new(path, Problem::TooMuch)),
        ca => Ok(ca),
    }
}

struct Reading {
    /// Bytes that may still be read.
    left: u64,
    ca: Ca,
}

impl Reading {
    /// Every file in name order, so that the same directory always gives the same text. Names that
    /// begin with a dot are left out: Kubernetes keeps a mounted volume's own links there.
    fn directory(&mut self, path: &Path, deeper: usize) -> Result<(), CaError> {
        let fail = |error| CaError::new(path, Problem::Io(error));
        let mut entries = std::fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(fail)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if !entry.file_type().map_err(fail)?.is_dir() {
                self.file(&entry.path())?;
            } else if deeper > 0 {
                self.directory(&entry.path(), deeper - 1)?;
            } else {
                return Err(CaError::new(path, Problem::TooMuch));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), CaError> {
        let content = self.content(path)?;
        let mut seen = false;
        for certificate in CertificateDer::pem_slice_iter(&content) {
            let bad = || CaError::new(path, Problem::BadCertificate);
            let certificate = certificate.map_err(|_| bad())?;
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|_| bad())?;
            seen = true;
            self.add(&certificate);
        }
        if seen {
            Ok(())
        } else {
            Err(CaError::new(path, Problem::NoCertificate))
        }
    }

    fn content(&mut self, path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, CaError> {
        let fail = |error| CaError::new(path, Problem::Io(error));
        // Opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path).map_err(fail)?;
        if !metadata.is_file() {
            return Err(CaError::new(path, Problem::NotAFile));
        }
        let file = File::open(path).map_err(fail)?;
        // Room for all from the start: a private key in it must not stay behind in a smaller buffer.
        let size = metadata.len().min(self.left) + 1;
        let mut content = zeroize::Zeroizing::new(Vec::with_capacity(
            usize::try_from(size).unwrap_or_default(),
        ));
        let read = file
            .take(self.left + 1)
            .read_to_end(&mut content)
            .map_err(fail)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| CaError::new(path, Problem::TooMuch))?;
        Ok(content)
    }

    fn add(&mut self, certificate: &[u8]) {
        if !self.ca.der.iter().any(|known| known == certificate) {
            write_pem(&mut self.ca.pem, certificate);
            self.ca.der.push(certificate.to_vec());
        }
    }
}

/// One certificate in the strict form of RFC 7468: lines of 64 characters.
fn write_pem(pem: &mut String, certificate: &[u8]) {
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        STANDARD.encode_string(line, pem);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
}

impl CaError {
    fn new(path: &Path, problem: Problem) -> Self {
        Self {
            path: path.to_owned(),
            problem,
        }
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({} certificates)", self.der.len())
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::Io(error) => write!(f, "{path} cannot be read: {error}"),
            Problem::NotAFile => write!(f, "{path} is not a file"),
            Problem::TooMuch => write!(f, "{path} holds more than a list of CAs"),
            Problem::NoCertificate => write!(f, "{path} holds no PEM certificate"),
            Problem::BadCertificate => write!(f, "{path} holds a certificate that cannot be read"),
        }
    }
}

impl std::error::Error for CaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Io(error) => Some(error),
            _ => None,
        }
    }
}
