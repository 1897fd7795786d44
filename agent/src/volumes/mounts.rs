//! Which volumes are mounted, as the kernel's mount table shows it to this process.

use crate::descriptor;
use crate::mount_table::{self, Mount};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
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
}
