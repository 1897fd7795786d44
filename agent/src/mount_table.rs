//! The kernel's mount table, for commands that look at it once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use vaulttmpfs_api::{MountDir, VolumeId};

/// The mount table of the namespace that this process is in.
pub const OWN: &str = "/proc/self/mountinfo";

/// The volumes in a mount table, with their mount points.
#[must_use]
pub fn volumes(mountinfo: &str) -> BTreeMap<VolumeId, Vec<PathBuf>> {
    let mut volumes: BTreeMap<VolumeId, Vec<PathBuf>> = BTreeMap::new();
    for mount in mountinfo.lines().filter_map(tmpfs) {
        if let Some(id) = VolumeId::from_source(mount.source) {
            volumes.entry(id).or_default().push(mount.point);
        }
    }
    volumes
}

/// Where another driver of this name has mounted a tmpfs of its own.
#[must_use]
pub fn volumes_of_others(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(tmpfs)
        .filter(|mount| VolumeId::from_source(mount.source).is_none())
        .map(|mount| mount.point)
        .filter(|point| {
            point
                .to_str()
                .is_some_and(|text| MountDir::parse(text).is_ok())
        })
        .collect()
}

struct Mount<'a> {
    point: PathBuf,
    source: &'a str,
}

/// The tmpfs of a line, which is `ID PARENT DEV ROOT DIRECTORY OPTIONS [TAGS…] - TYPE SOURCE
/// SUPER-OPTIONS` (proc(5)).
fn tmpfs(line: &str) -> Option<Mount<'_>> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = filesystem.split(' ');
    let (Some("tmpfs"), Some(source)) = (fields.next(), fields.next()) else {
        return None;
    };
    let mut fields = mount.split(' ').skip(3);
    let (Some("/"), Some(point)) = (fields.next(), fields.next()) else {
        // A part of a volume, bound elsewhere.
        return None;
    };
    Some(Mount {
        point: unescape(point).into(),
        source,
    })
}

/// The kernel writes blank, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|it| u8::from_str_radix(it, 8).ok());
        match code {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => text.push_str(part),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn whole_volumes_of_ours_are_found() {
        let table = format!(
            "30 20 0:5 / /k/a\\040b rw shared:1 - tmpfs vaulttmpfs:{ID} rw\n\
             31 20 0:5 /part /elsewhere rw - tmpfs vaulttmpfs:{ID} rw\n\
             32 20 0:6 / /k/c rw - ext4 vaulttmpfs:{ID} rw\n\
             33 20 0:7 / /k/d rw - tmpfs tmpfs rw\n"
        );
        let expected = BTreeMap::from([(ID.parse().unwrap(), vec![PathBuf::from("/k/a b")])]);
        assert_eq!(volumes(&table), expected);
        assert_eq!(unescape("a\\134b\\9"), "a\\b9");
    }

    #[test]
    fn volumes_of_another_driver_are_known_by_their_place() {
        let of = |name| format!("/k/pods/u/volumes/cloudwatt~vaulttmpfs/{name}");
        let table = format!(
            "30 20 0:5 / {} rw - tmpfs vaulttmpfs:{ID} rw\n\
             31 20 0:6 / {} rw - tmpfs tmpfs rw\n\
             32 20 0:7 / /k/pods/u/volumes/kubernetes.io~secret/x rw - tmpfs tmpfs rw\n",
            of("ours"),
            of("theirs"),
        );
        assert_eq!(volumes_of_others(&table), [PathBuf::from(of("theirs"))]);
    }
}
