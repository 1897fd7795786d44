//! The driver in the places where kubelets look for it: a place is a kubelet's volume plugin directory.
//!
//! A kubelet must never see half a driver or an empty directory of one: a single bad one may cost it all
//! its drivers. So everything is made in a directory beside, whose name begins with a dot, which a
//! kubelet passes over, and put in place by one rename. Nothing else is ever written into the driver's
//! directory: any event in it makes the kubelet begin with the driver anew.

mod hold;
mod kept;
mod list;
mod look;
mod place;
mod program;
mod use_of_it;

pub use kept::Kept;
pub use list::{List, place as place_name};
pub use look::{Look, look, try_out};
pub use place::{Place, Put, make_default, unmake_default};
pub use program::Program;

use crate::mount_table;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The driver's program in a place.
pub const RELATIVE: &str = "cloudwatt~vaulttmpfs/vaulttmpfs";

/// Where a kubelet looks for drivers unless `--volume-plugin-dir` names another directory.
pub const DEFAULT_PLACE: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// The driver as the packages bring it.
pub const PACKAGED: &str = "/usr/libexec/vaulttmpfs/vaulttmpfs-shim";

/// Why a place is not as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It was left alone on purpose; what it is, and what to do.
    Left(String),
    /// Something failed; what, and what to do.
    Failed(String),
}

impl Problem {
    /// What an error of the system comes to, with the next step where there is one.
    fn from_error(doing: &str, path: &Path, error: &io::Error) -> Self {
        let step = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ": make room on its file system and run this again"
            }
            ErrorKind::PermissionDenied => ": run this as root",
            _ => "",
        };
        Self::Failed(format!("{doing} {}: {error}{step}", path.display()))
    }

    /// The same of a plugin directory that is to get the driver: another one may do.
    fn from_place(doing: &str, path: &Path, error: &io::Error) -> Self {
        if error.kind() != ErrorKind::ReadOnlyFilesystem {
            return Self::from_error(doing, path, error);
        }
        Self::Failed(format!(
            "{doing} {}: {error}: start the kubelet with --volume-plugin-dir=DIR, a directory that can be written, and run \
             `vaulttmpfs install-driver --plugin-dir DIR`",
            path.display()
        ))
    }
}

/// Where another driver of this name has mounted volumes, which ours would not unmount.
#[must_use]
pub fn volumes_of_others() -> Vec<PathBuf> {
    let table = std::fs::read(mount_table::OWN).unwrap_or_default();
    mount_table::volumes_of_others(&String::from_utf8_lossy(&table))
}
