//! Which volumes are mounted, as the kernel's mount table shows it to this process.

use crate::descriptor;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vaulttmpfs_api::{SOURCE_PREFIX, VolumeId};

/// The kernel's mount table. Reading costs 3 ms of CPU at 1,000 mounts (measured).
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// The ids of the volumes that are mounted now: found by their source, never by a path, since a
/// kubelet's root behind a symbolic link shows other paths here. Read beside the mounts' thread.
pub(super) async fn mounted() -> io::Result<HashSet<VolumeId>> {
    tokio::task::spawn_blocking(|| {
        let table = std::fs::read(MOUNT_TABLE)?;
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

/// The mount table as it is now; empty where it cannot be read.
pub(super) fn table() -> String {
    let table = std::fs::read(MOUNT_TABLE).unwrap_or_default();
    String::from_utf8_lossy(&table).into_owned()
}

/// Do mounts at this directory spread to this process's mount table from the one that it was copied
/// from? So it is in a systemd service's sandbox, which is its host's slave; a table that was cut off,
/// or never was a copy, has no master (`mount_namespaces(7)`).
pub(super) fn follows(mountinfo: &str, directory: &str) -> bool {
    let covers = |point: &str| {
        let rest = directory.strip_prefix(point.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mountinfo
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_once(" - ")?.0.split(' ').skip(4);
            let point = fields.next().filter(|point| covers(point))?;
            Some((point.len(), fields.any(|tag| tag.starts_with("master:"))))
        })
        // Of several on one another the last is on top.
        .max_by_key(|(length, _)| *length)
        .is_some_and(|(_, follows)| follows)
}

/// Tells when something was mounted or unmounted, anywhere in this process's mount namespace.
pub(super) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Starts to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let table = File::open(MOUNT_TABLE)?;
        descriptor::follow(table, Interest::PRIORITY).map(Self)
    }

    /// Waits for a change since the last one that was waited for.
    pub(super) async fn next(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

/// A line is `ID PARENT DEV ROOT DIRECTORY OPTIONS [TAGS…] - TYPE SOURCE SUPER-OPTIONS` (proc(5)).
fn ids(mountinfo: &str) -> HashSet<VolumeId> {
    mountinfo
        .lines()
        .filter(|line| line.contains(SOURCE_PREFIX))
        .filter_map(|line| {
            let (_, filesystem) = line.split_once(" - ")?;
            let mut fields = filesystem.split(' ');
            match (fields.next()?, fields.next()?) {
                ("tmpfs", source) => VolumeId::from_source(source),
                _ => None,
            }
        })
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
                     23 20 0:7 / /var/lib/kubelet rw shared:9 master:3 - ext4 /dev/vdb rw\n";
        assert!(follows(table, "/var/lib/kubelet/pods/1/volumes/d/v"));
        assert!(follows(table, "/k/pods/1/volumes/d/v"));
        assert!(!follows(table, "/var/lib/kubelet2/pods/1/volumes/d/v"));
        assert!(!follows("", "/k"));
        assert!(!follows(
            "20 1 8:1 / / rw shared:7 - ext4 /dev/vda rw\n",
            "/k"
        ));
    }
}
