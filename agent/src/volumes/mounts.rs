//! Which volumes are mounted, as the kernel's mount table shows it to this process.

use crate::descriptor;
use crate::mount_table::{self, Mount, Points};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vaulttmpfs_api::{MountDir, VolumeId};

/// A volume in the mount table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// The peer group that it spread from; nothing where it was made in this very table.
    pub(super) group: Option<u64>,
}

/// A whole read of the mount table.
pub(super) struct Table {
    /// The volumes in it, by their source and never by a path, since a kubelet's root behind a symbolic
    /// link shows other paths here; each with the peer group that it spread from.
    volumes: HashMap<VolumeId, Option<u64>>,
    /// The peer group from which mounts spread to each other mount.
    groups: Points<Option<u64>>,
}

impl Table {
    /// Reads it. That costs 3 ms of CPU at 1,000 mounts (measured), and is done beside the mounts' thread.
    pub(super) async fn read() -> io::Result<Self> {
        tokio::task::spawn_blocking(|| {
            let table = fs::read(mount_table::OWN)?;
            Ok(Self::of(&String::from_utf8_lossy(&table)))
        })
        .await
        .map_err(io::Error::other)?
    }

    pub(super) fn of(mountinfo: &str) -> Self {
        let (mut volumes, mut by_id, mut groups) = (Vec::new(), HashMap::new(), Vec::new());
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            if let Some(id) = mount.volume() {
                volumes.push((id, mount.parent()));
            } else {
                by_id.insert(mount.id(), mount.group());
                groups.push((mount.point(), mount.group()));
            }
        }
        let origin = |parent| by_id.get(parent).copied().flatten();
        let volumes = volumes.into_iter();
        Self {
            volumes: volumes.map(|(id, parent)| (id, origin(parent))).collect(),
            groups: groups.into_iter().collect(),
        }
    }

    /// The volumes that are mounted.
    pub(super) fn volumes(&self) -> impl Iterator<Item = VolumeId> {
        self.volumes.keys().copied()
    }

    /// Where the volume is mounted: the peer group that it spread from, or none in a table of its own.
    pub(super) fn sight(&self, id: VolumeId) -> Option<Sight> {
        self.volumes.get(&id).map(|&group| Sight { group })
    }

    /// The peer group from which a mount at this directory would spread to this table, were it made;
    /// nothing where it would not, or where this process may not even look: systemd lets whatever is
    /// below `/home` vanish from a sandbox that may not see it.
    pub(super) fn group_at(&self, mount_dir: &str) -> Option<u64> {
        let directory = MountDir::parse(mount_dir).ok()?;
        let root = fs::canonicalize(directory.kubelet_root()).ok()?;
        *self.groups.over(&root.join(directory.tail()))?
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// These volumes, spread from a peer group.
    pub(in crate::volumes) fn table(ids: &[VolumeId], group: u64) -> Table {
        Table {
            volumes: ids.iter().map(|&id| (id, Some(group))).collect(),
            groups: [("/".into(), Some(group))].into_iter().collect(),
        }
    }

    #[test]
    fn only_tmpfs_with_our_source_counts() {
        let id = "0123456789abcdef0123456789abcdef";
        let text = format!(
            "20 1 8:1 / / rw shared:8 master:7 - ext4 /dev/vda rw\n\
             30 20 0:5 / /k/a rw shared:1 master:2 - tmpfs vaulttmpfs:{id} rw\n\
             31 20 0:6 / /k/vaulttmpfs:1123456789abcdef0123456789abcdef rw - tmpfs tmpfs rw\n\
             32 20 0:7 / /k/b rw - ext4 vaulttmpfs:2123456789abcdef0123456789abcdef rw\n\
             33 20 0:8 / /k/c rw - tmpfs vaulttmpfs:short rw\n\
             34 20 0:9 / /k/d rw - tmpfs\n"
        );
        let table = Table::of(&text);
        let id: VolumeId = id.parse().unwrap();
        assert_eq!(table.volumes().collect::<Vec<_>>(), [id]);
        assert_eq!(table.sight(id), Some(Sight { group: Some(7) }));
    }

    #[test]
    fn a_mount_would_spread_by_what_is_on_top_of_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        let at = |root: &str| format!("{root}/pods/u/volumes/cloudwatt~vaulttmpfs/v");
        let (real, link) = (real.display(), real.join("link"));
        let text = format!(
            "20 1 8:1 / / rw shared:8 master:7 - ext4 /dev/vda rw\n\
             21 20 0:5 / {real} rw shared:9 - tmpfs tmpfs rw\n\
             22 21 0:6 / {real} rw master:3 - ext4 /dev/vdb rw\n"
        );
        let table = Table::of(&text);
        for directory in [at(&real.to_string()), at(&link.display().to_string())] {
            assert_eq!(table.group_at(&directory), Some(3));
        }
        assert_eq!(table.group_at(&at("/var")), Some(7));
        assert_eq!(table.group_at(&at("/no-such-directory")), None);
        let private = Table::of("20 1 8:1 / / rw - ext4 /dev/vda rw\n");
        assert_eq!(private.group_at(&at("/var")), None);
    }
}
