//! The kernel's mount table.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use vaulttmpfs_api::{MountDir, VolumeId};

/// The mount table of the namespace that this process is in.
pub const OWN: &str = "/proc/self/mountinfo";

/// One mount, as far as anyone here asks: a line of the table, which is `ID PARENT DEV ROOT POINT
/// OPTIONS [TAGS…] - TYPE SOURCE SUPER-OPTIONS` (proc(5)).
pub struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    root: &'a str,
    point: &'a str,
    tags: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    /// The mount of a line; nothing where the line is none.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.splitn(7, ' ');
        let (id, parent, _device) = (mount.next()?, mount.next()?, mount.next()?);
        let (root, point, _options) = (mount.next()?, mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        Some(Self {
            id,
            parent,
            root,
            point,
            tags: mount.next().unwrap_or_default(),
            kind: filesystem.next()?,
            source: filesystem.next()?,
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> PathBuf {
        unescape(self.point).into()
    }

    /// The id of the volume that this is, or is a part of.
    #[must_use]
    pub fn volume(&self) -> Option<VolumeId> {
        let source = (self.kind == "tmpfs").then_some(self.source)?;
        VolumeId::from_source(source)
    }

    /// Its id in this table, as [`Self::parent`] names it.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// The id of the mount that it is on.
    #[must_use]
    pub fn parent(&self) -> &'a str {
        self.parent
    }

    /// The peer group, by the kernel's number, from which mounts spread to it: its master's, as in a
    /// systemd service's sandbox, which is its host's slave; else its own. A mount that was cut off has
    /// neither (`mount_namespaces(7)`).
    #[must_use]
    pub fn group(&self) -> Option<u64> {
        self.master().or_else(|| self.tag("shared:"))
    }

    fn master(&self) -> Option<u64> {
        self.tag("master:")
    }

    fn tag(&self, name: &str) -> Option<u64> {
        let mut values = self
            .tags
            .split(' ')
            .filter_map(|tag| tag.strip_prefix(name));
        values.next()?.parse().ok()
    }

    /// Whether it shows all of its filesystem: no part of a volume that is bound elsewhere.
    fn is_whole(&self) -> bool {
        self.root == "/"
    }
}

/// The volumes in a mount table, with their mount points.
#[must_use]
pub fn volumes(mountinfo: &str) -> BTreeMap<VolumeId, Vec<PathBuf>> {
    let mut volumes: BTreeMap<VolumeId, Vec<PathBuf>> = BTreeMap::new();
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        if let Some(id) = mount.volume().filter(|_| mount.is_whole()) {
            volumes.entry(id).or_default().push(mount.point());
        }
    }
    volumes
}

/// Where another driver of this name has mounted a tmpfs of its own.
#[must_use]
pub fn volumes_of_others(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| mount.kind == "tmpfs" && mount.is_whole() && mount.volume().is_none())
        .map(|mount| mount.point())
        .filter(|point| {
            point
                .to_str()
                .is_some_and(|text| MountDir::parse(text).is_ok())
        })
        .collect()
}

/// Do mounts at this directory spread to a mount table from the one that it was copied from?
#[must_use]
pub fn follows(mountinfo: &str, directory: &str) -> bool {
    let mounts = mountinfo.lines().filter_map(Mount::parse);
    let masters: Points<_> = mounts.map(|it| (it.point(), it.master())).collect();
    masters
        .over(Path::new(directory))
        .is_some_and(Option::is_some)
}

/// What is known of each mount, by its point.
pub struct Points<T>(HashMap<PathBuf, T>);

impl<T> Points<T> {
    /// Of the mount that a directory is on, by its path without links.
    #[must_use]
    pub fn over(&self, directory: &Path) -> Option<&T> {
        let mut ancestors = directory.ancestors();
        ancestors.find_map(|point| self.0.get(point))
    }
}

impl<T> FromIterator<(PathBuf, T)> for Points<T> {
    /// In the order of the table: of several on one another the last is on top.
    fn from_iter<I: IntoIterator<Item = (PathBuf, T)>>(mounts: I) -> Self {
        Self(mounts.into_iter().collect())
    }
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

    #[test]
    fn a_sandbox_follows_its_host() {
        let table = "20 1 8:1 / / rw shared:7 master:1 - ext4 /dev/vda rw\n\
                     21 20 0:5 / /var/lib rw shared:8 - tmpfs tmpfs rw\n\
                     22 20 0:6 / /var/lib/kubelet rw shared:9 - tmpfs tmpfs rw\n\
                     23 20 0:7 / /var/lib/kubelet rw shared:9 master:3 - ext4 /dev/vdb rw\n\
                     24 20 0:8 / /var/lib/kubelet2\\040of\\040mine rw master:4 - ext4 /dev/vdc rw\n";
        assert!(follows(table, "/var/lib/kubelet/pods/1/volumes/d/v"));
        assert!(follows(table, "/k/pods/1/volumes/d/v"));
        assert!(follows(
            table,
            "/var/lib/kubelet2 of mine/pods/1/volumes/d/v"
        ));
        assert!(!follows(table, "/var/lib/kubelet2/pods/1/volumes/d/v"));
        assert!(!follows("", "/k"));
        let root = "20 1 8:1 / / rw shared:7 - ext4 /dev/vda rw\n";
        assert!(!follows(root, "/k"));
    }
}
