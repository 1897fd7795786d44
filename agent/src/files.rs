//! The files of a volume: names, content, owners, sizes.

mod name;
mod secret;

pub use name::{FileNameError, check_token_filename};

use crate::options::FileOptions;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
use std::fmt;
use vaulttmpfs_api::{Directory, File, MAX_ANSWER, Owner};
use zeroize::Zeroize;

/// The file with Vault's URL.
pub const VAULT_ADDR_FILE: &str = "vault-addr";
/// The file with the Vault namespace.
pub const NAMESPACE_FILE: &str = "vault-namespace";
/// The file with the CAs by which to trust Vault.
pub const CA_FILE: &str = "ca.crt";

/// What a pod gets.
pub enum Credential<'a> {
    /// A token to unwrap once.
    Wrapped {
        /// The wrapping token.
        token: &'a SecretString,
        /// The time to unwrap it, in seconds from its creation.
        ttl: u64,
        /// When it was made, as Vault writes it (RFC 3339).
        creation_time: &'a str,
        /// The accessor of the token inside.
        wrapped_accessor: &'a str,
    },
    /// A token as it is.
    Unwrapped {
        /// The token.
        token: &'a SecretString,
        /// Vault's whole answer, JSON.
        secret: &'a str,
    },
}

/// The content of the files beside the token's; each is left out where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveredFiles {
    /// Vault's URL as a pod reaches it.
    pub vault_addr: Option<String>,
    /// The Vault namespace.
    pub namespace: Option<String>,
    /// CAs in PEM.
    pub ca: Option<String>,
}

/// Why a volume's files cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderError {
    /// Vault's answer is not the JSON of this token.
    NotASecret,
    /// The files do not fit into an answer to the shim.
    TooLarge,
}

/// Everything in a volume's root may be seen; the files themselves have modes of their own.
const DIRECTORY_MODE: u32 = 0o755;

/// Facts about Vault are no secrets: every process of the pod may read them.
const EXTRA_MODE: u32 = 0o644;

const GROUP_READ: u32 = 0o040;

/// A file takes whole pages of its tmpfs. 64 KiB is the largest page of Linux's architectures.
const LARGEST_PAGE: u64 = 64 * 1024;

/// What the JSON around a file's content takes in an answer, its name aside, with room to spare.
const ANSWER_OVERHEAD: usize = 256;

/// Makes a volume's root and files: the token's two with the pod's mode (readable by the pod's group
/// where it has one), the others with 0644, all owned by root and that group. The contents of the
/// token's two are the first plugin's. The root's size holds all files and one page more, whatever
/// the page's size.
pub fn render(
    credential: &Credential<'_>,
    options: &FileOptions,
    delivered: &DeliveredFiles,
) -> Result<(Directory, Vec<File<'static>>), RenderError> {
    let owner = Owner {
        uid: 0,
        gid: options.group.unwrap_or_default(),
    };
    let mode = options.permissions | options.group.map_or(0, |_| GROUP_READ);
    let mut volume = Volume {
        owner,
        size: LARGEST_PAGE,
        files: Vec::new(),
    };
    let name = &options.token_filename;
    volume.add(name, mode, credential.token().expose_secret().as_bytes());
    volume.add(&format!("{name}.json"), mode, &secret::json(credential)?);
    for (name, content) in [
        (VAULT_ADDR_FILE, &delivered.vault_addr),
        (NAMESPACE_FILE, &delivered.namespace),
        (CA_FILE, &delivered.ca),
    ] {
        if let Some(content) = content {
            volume.add(name, EXTRA_MODE, content.as_bytes());
        }
    }
    volume.finish()
}

/// Overwrites the content of files that are not needed any more.
pub fn wipe(files: Vec<File<'static>>) {
    for file in files {
        if let Cow::Owned(mut bytes) = file.bytes {
            bytes.zeroize();
        }
    }
}

impl Credential<'_> {
    fn token(&self) -> &SecretString {
        match self {
            Self::Wrapped { token, .. } | Self::Unwrapped { token, .. } => token,
        }
    }
}

struct Volume {
    owner: Owner,
    size: u64,
    files: Vec<File<'static>>,
}

impl Volume {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.size += (content.len() as u64).next_multiple_of(LARGEST_PAGE);
        self.files.push(File {
            name: Cow::Owned(name.to_owned()),
            mode,
            owner: self.owner,
            bytes: Cow::Owned(STANDARD.encode(content)),
        });
    }

    fn finish(self) -> Result<(Directory, Vec<File<'static>>), RenderError> {
        let takes = |file: &File| ANSWER_OVERHEAD + 6 * file.name.len() + file.bytes.len();
        if ANSWER_OVERHEAD + self.files.iter().map(takes).sum::<usize>() > MAX_ANSWER {
            wipe(self.files);
            return Err(RenderError::TooLarge);
        }
        let directory = Directory {
            mode: DIRECTORY_MODE,
            owner: self.owner,
            size: self.size,
        };
        Ok((directory, self.files))
    }
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotASecret => "Vault's answer is not the JSON of the token",
            Self::TooLarge => "the volume's files are larger than the shim takes",
        })
    }
}

impl std::error::Error for RenderError {}

#[cfg(test)]
mod tests;
