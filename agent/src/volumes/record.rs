//! What is known of one volume: the content of its journal file.

use crate::options::Pod;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fmt;
use vaulttmpfs_api::VolumeId;

/// The format of the journal's files that this agent writes and reads.
pub const FORMAT: u32 = 1;

/// One volume with its credential. Times named `…_wall` are milliseconds since 1970, the others
/// milliseconds on `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// What kind of credential it is.
    pub kind: Kind,
    /// The volume's id.
    pub id: VolumeId,
    /// How far the volume has come.
    pub state: State,
    /// The mount directory as the kubelet names it.
    pub mount_dir: String,
    /// Whom the volume is for.
    pub pod: Pod,
    /// The token role.
    pub role: String,
    /// The token's policies as asked for.
    pub policies: Vec<String>,
    /// The token's accessor; a batch token has none.
    pub accessor: Option<Accessor>,
    /// The wrapping token's accessor.
    pub wrapping_accessor: Option<Accessor>,
    /// When the wrapping token ends.
    pub wrapping_ends_wall: Option<u64>,
    /// When the token expires unless renewed; nothing where the role does not tell.
    pub expires_wall: Option<u64>,
    /// Why the token cannot be kept alive and ended, if so.
    pub unmanaged: Option<String>,
    /// What is still to be done at Vault, in this order.
    pub owed: Vec<Debt>,
    /// When the token was made.
    pub created_wall: u64,
    /// Until when the shim may attach the volume.
    pub attach_by: u64,
    /// When the volume ended.
    pub ended_wall: Option<u64>,
    /// Where the record belongs.
    pub origin: Origin,
}

/// The kind of a volume's credential. A later kind is one more word here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A token made through a token role.
    Token,
}

/// How far a volume has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The shim has the token, or will have it: nobody has said yet that it is mounted.
    Delivered,
    /// The shim has said, or the mount table has shown, that it is mounted.
    Attached,
    /// The pod has no use for the token any more.
    Ended,
}

/// Something to be done at Vault for a volume that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Debt {
    /// End the wrapping token by its accessor: first, and only while it lives.
    RevokeWrapping,
    /// End the token by its accessor.
    Revoke,
}

/// The machine, boot and Vault that a record belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Vault's address.
    pub vault_addr: String,
    /// Vault's namespace.
    pub namespace: Option<String>,
    /// Vault's cluster id; empty where Vault gives none.
    pub cluster_id: String,
}

/// An accessor: who has it can end the token. Never printed.
#[derive(Clone)]
pub struct Accessor(SecretString);

impl Accessor {
    /// The accessor's text, for a call to Vault.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<SecretString> for Accessor {
    fn from(accessor: SecretString) -> Self {
        Self(accessor)
    }
}

impl PartialEq for Accessor {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Accessor {}

impl fmt::Debug for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accessor({} characters)", self.expose().len())
    }
}

impl Serialize for Accessor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Accessor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}

impl Record {
    /// The volume has ended: from here on only what is owed counts. A token without an accessor
    /// owes nothing, it expires by itself.
    pub fn end(&mut self, now_wall: u64) {
        self.state = State::Ended;
        self.ended_wall = Some(now_wall);
        self.owed.clear();
        if self.wrapping_accessor.is_some() {
            self.owed.push(Debt::RevokeWrapping);
        }
        if self.accessor.is_some() {
            self.owed.push(Debt::Revoke);
        }
    }
}

impl Origin {
    /// This machine and boot, and the Vault of the settings.
    #[must_use]
    pub fn here(vault_addr: String, namespace: Option<String>) -> Self {
        let first_line = |path: &str| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            machine_id: first_line("/etc/machine-id"),
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            vault_addr,
            namespace,
            cluster_id: String::new(),
        }
    }

    /// Is it this machine's? A machine without an id is any.
    #[must_use]
    pub fn same_machine(&self, other: &Self) -> bool {
        self.machine_id == other.machine_id
            || self.machine_id.is_empty()
            || other.machine_id.is_empty()
    }
}
