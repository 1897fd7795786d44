//! A volume on its way from the agent to the shim.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Asks for a volume. Body of `POST /v1/volumes`.
#[derive(Serialize, Deserialize)]
pub struct MountRequest<'a> {
    /// The mount directory as the kubelet gave it.
    #[serde(borrow)]
    pub mount_dir: Cow<'a, str>,
    /// The kubelet's options without those under [`crate::SECRET_OPTION_PREFIX`].
    #[serde(borrow)]
    pub options: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// The time that the caller has left, in milliseconds from now.
    pub left_ms: u64,
    /// The mount namespace that the volume will be in: the inode of `/proc/self/ns/mnt`. The agent
    /// learns by it which namespaces' mounts it sees.
    #[serde(default)]
    pub mount_namespace: Option<u64>,
}

/// A volume to attach. Answer to `POST /v1/volumes`.
#[derive(Serialize, Deserialize)]
pub struct VolumeAnswer<'a> {
    /// The volume's id.
    pub id: VolumeId,
    /// After this moment the volume must not be attached any more: milliseconds on
    /// `CLOCK_BOOTTIME`.
    pub attach_by: u64,
    /// The volume's root.
    pub directory: Directory,
    /// The volume's files, each directly in its root.
    #[serde(borrow)]
    pub files: Vec<File<'a>>,
}

/// The root directory of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Permission bits.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
    /// The tmpfs's size limit in bytes.
    pub size: u64,
}

/// Numeric owner of a file or directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One file of a volume.
#[derive(Serialize, Deserialize)]
pub struct File<'a> {
    /// A single path component.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Permission bits.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
    /// The content in standard base64 with padding, so that it may be any bytes.
    #[serde(borrow)]
    pub bytes: Cow<'a, str>,
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A short constant word for programs, for example `vault-unreachable`.
    pub reason: String,
    /// For a person: what is wrong and what to do.
    pub message: String,
}

/// A volume's random 128-bit id, 32 lower-case hexadecimal digits as text. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId([u8; 16]);

/// A text that is not a volume's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeIdError;

impl VolumeId {
    /// The id of these random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's random bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id in the source of a mount of ours, or nothing for anyone else's.
    #[must_use]
    pub fn from_source(source: &str) -> Option<Self> {
        source.strip_prefix(crate::SOURCE_PREFIX)?.parse().ok()
    }

    /// The source of the volume's tmpfs.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}{self}", crate::SOURCE_PREFIX)
    }
}

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(VolumeIdError);
        }
        u128::from_str_radix(text, 16)
            .map(|id| Self(id.to_be_bytes()))
            .map_err(|_| VolumeIdError)
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for VolumeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a volume's id is 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for VolumeIdError {}

impl Serialize for VolumeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VolumeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "File({:?}, {:o}, {} characters)",
            self.name,
            self.mode,
            self.bytes.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = VolumeId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(VolumeId::from_source(&id.source()), Some(id));
        for bad in [
            "",
            "0",
            "+0102030405060708090a0b0c0d0e0ff",
            "000102030405060708090A0B0C0D0EFF",
        ] {
            assert_eq!(bad.parse::<VolumeId>(), Err(VolumeIdError), "{bad:?}");
        }
        assert_eq!(VolumeId::from_source("tmpfs"), None);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let answer: VolumeAnswer = serde_json::from_str(
            r#"{"id":"000102030405060708090a0b0c0d0eff","attach_by":5,"later":{},
               "directory":{"mode":493,"owner":{"uid":0,"gid":7,"x":1},"size":4096},
               "files":[{"name":"a\u0062","mode":420,"owner":{"uid":0,"gid":7},"bytes":"YQ==","sha":"x"}]}"#,
        )
        .unwrap();
        assert_eq!(answer.files[0].name, "ab");
        assert!(matches!(answer.files[0].bytes, Cow::Borrowed("YQ==")));
        assert_eq!(
            format!("{:?}", answer.files[0]),
            r#"File("ab", 644, 4 characters)"#
        );
    }
}
