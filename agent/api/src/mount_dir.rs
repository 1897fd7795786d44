//! The directory that the kubelet asks to mount on, checked as text.

use std::fmt;

/// The component of a mount directory that names this driver: vendor and driver joined as the
/// kubelet does it (`pkg/volume/flexvolume`, `EscapeQualifiedName`).
pub const DRIVER_DIRECTORY: &str = "cloudwatt~vaulttmpfs";

/// Longer paths cannot be opened: Linux' `PATH_MAX`, its NUL included.
const MAX_LENGTH: usize = 4095;

/// The longest pod uid taken: a uid is 32 hexadecimal digits (static pods) or 36 characters.
const MAX_POD_UID: usize = 128;

/// A mount directory of this driver: absolute, without empty, `.` or `..` components, ending in
/// `/pods/UID/volumes/cloudwatt~vaulttmpfs/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MountDir {
    path: String,
    /// Where the last five components begin, at `pods`.
    tail: usize,
}

/// Why a path is not a mount directory of this driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountDirError {
    /// It does not begin with a slash.
    NotAbsolute,
    /// It is longer than a path may be.
    TooLong,
    /// It holds a NUL or another control character.
    ControlCharacter,
    /// A component is empty, `.` or `..`.
    Unclean,
    /// It does not end in `/pods/UID/volumes/cloudwatt~vaulttmpfs/NAME`.
    NotAVolume,
    /// The pod's uid in it is not one.
    BadPodUid,
}

impl MountDir {
    /// Checks a path as the kubelet gives it.
    pub fn parse(path: &str) -> Result<Self, MountDirError> {
        if path.len() > MAX_LENGTH {
            return Err(MountDirError::TooLong);
        }
        if path.chars().any(char::is_control) {
            return Err(MountDirError::ControlCharacter);
        }
        let Some(relative) = path.strip_prefix('/') else {
            return Err(MountDirError::NotAbsolute);
        };
        if relative
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(MountDirError::Unclean);
        }
        let mut parts = relative.rsplitn(6, '/');
        let (Some(name), Some(DRIVER_DIRECTORY), Some("volumes"), Some(uid), Some("pods"), Some(_)) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(MountDirError::NotAVolume);
        };
        if uid.len() > MAX_POD_UID || !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(MountDirError::BadPodUid);
        }
        let tail =
            "pods/".len() + uid.len() + "/volumes/".len() + DRIVER_DIRECTORY.len() + 1 + name.len();
        Ok(Self {
            tail: path.len() - tail,
            path: path.to_owned(),
        })
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// What comes before the last five components, without the slash between: the kubelet's root,
    /// which may be a symbolic link.
    #[must_use]
    pub fn kubelet_root(&self) -> &str {
        &self.path[..self.tail - 1]
    }

    /// The last five components, `pods/UID/volumes/cloudwatt~vaulttmpfs/NAME`.
    #[must_use]
    pub fn tail(&self) -> &str {
        &self.path[self.tail..]
    }

    /// The pod's uid.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        self.component(1)
    }

    /// The volume's name in the pod.
    #[must_use]
    pub fn volume_name(&self) -> &str {
        self.component(4)
    }

    fn component(&self, index: usize) -> &str {
        self.tail().split('/').nth(index).unwrap_or_default()
    }
}

impl fmt::Display for MountDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("it does not begin with a slash"),
            Self::TooLong => write!(f, "it is longer than {MAX_LENGTH} bytes"),
            Self::ControlCharacter => f.write_str("it holds a control character"),
            Self::Unclean => f.write_str("a component of it is empty, `.` or `..`"),
            Self::NotAVolume => {
                write!(
                    f,
                    "it does not end in /pods/UID/volumes/{DRIVER_DIRECTORY}/NAME"
                )
            }
            Self::BadPodUid => f.write_str("the pod uid in it is not letters, digits and dashes"),
        }
    }
}

impl std::error::Error for MountDirError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const API_POD: &str = "/var/lib/kubelet/pods/0f0e4f0c-8d5c-4f0b-9c39-5a8b3c1d2e4f/volumes/cloudwatt~vaulttmpfs/vol1";

    #[test]
    fn takes_what_the_kubelet_gives() {
        let dir = MountDir::parse(API_POD).unwrap();
        assert_eq!(dir.as_str(), API_POD);
        assert_eq!(dir.kubelet_root(), "/var/lib/kubelet");
        assert_eq!(dir.pod_uid(), "0f0e4f0c-8d5c-4f0b-9c39-5a8b3c1d2e4f");
        assert_eq!(dir.volume_name(), "vol1");
        let dir = MountDir::parse(
            "/k/pods/afd196c8a70643bdc8c3b5e59c5eb89b/volumes/cloudwatt~vaulttmpfs/a",
        )
        .unwrap();
        assert_eq!(
            dir.tail(),
            "pods/afd196c8a70643bdc8c3b5e59c5eb89b/volumes/cloudwatt~vaulttmpfs/a"
        );
        assert_eq!(dir.kubelet_root(), "/k");
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("/{}{API_POD}", "x".repeat(4096));
        for (path, why) in [
            ("", MountDirError::NotAbsolute),
            (
                "pods/u/volumes/cloudwatt~vaulttmpfs/v",
                MountDirError::NotAbsolute,
            ),
            ("/", MountDirError::Unclean),
            (
                "/pods/u/volumes/cloudwatt~vaulttmpfs/v",
                MountDirError::NotAVolume,
            ),
            (
                "/k/pods/u/volumes/cloudwatt~vaulttmpfs",
                MountDirError::NotAVolume,
            ),
            (
                "/k/pods/u/volumes/cloudwatt~vaulttmpfs/v/",
                MountDirError::Unclean,
            ),
            (
                "/k/pods/u/volumes/cloudwatt~vaulttmpfs/v/w",
                MountDirError::NotAVolume,
            ),
            (
                "/k/pods/u/volumes/kubernetes.io~secret/v",
                MountDirError::NotAVolume,
            ),
            (
                "/k/pods/u/volumes/cloudwatt~vaulttmpfs/..",
                MountDirError::Unclean,
            ),
            (
                "/k/../pods/u/volumes/cloudwatt~vaulttmpfs/v",
                MountDirError::Unclean,
            ),
            (
                "/k/./pods/u/volumes/cloudwatt~vaulttmpfs/v",
                MountDirError::Unclean,
            ),
            (
                "/k//pods/u/volumes/cloudwatt~vaulttmpfs/v",
                MountDirError::Unclean,
            ),
            (
                "/k/pods/u%2e/volumes/cloudwatt~vaulttmpfs/v",
                MountDirError::BadPodUid,
            ),
            (
                "/k/pods/u/volumes/cloudwatt~vaulttmpfs/v\0",
                MountDirError::ControlCharacter,
            ),
            (
                "/k/pods/u/volumes/cloudwatt~vaulttmpfs/v\n",
                MountDirError::ControlCharacter,
            ),
            (long.as_str(), MountDirError::TooLong),
        ] {
            assert_eq!(MountDir::parse(path), Err(why), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_climbs(path in "\\PC{0,80}|(/(pods|volumes|cloudwatt~vaulttmpfs|\\.\\.?|[a-z]{0,3})){0,9}") {
            if let Ok(dir) = MountDir::parse(&path) {
                prop_assert_eq!(format!("{}/{}", dir.kubelet_root(), dir.tail()), path);
                prop_assert!(!dir.as_str().split('/').any(|part| part == ".."));
                prop_assert!(!dir.pod_uid().is_empty() && !dir.volume_name().is_empty());
            }
        }
    }
}
