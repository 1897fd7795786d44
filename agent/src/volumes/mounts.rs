//! Which volumes are mounted, as the kernel's mount table shows it to this process.

use std::collections::HashSet;
use std::io;
use vaulttmpfs_api::{SOURCE_PREFIX, VolumeId};

/// The ids of the volumes that are mounted now: found by their source, never by a path, since a
/// kubelet's root behind a symbolic link shows other paths here.
pub(super) fn mounted() -> io::Result<HashSet<VolumeId>> {
    std::fs::read_to_string("/proc/self/mountinfo").map(|table| ids(&table))
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
}
