//! The mount table as this thread's namespace has it.

use std::path::{Path, PathBuf};

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its id, unique while it lasts.
    pub id: u64,
    /// Where it is attached.
    pub point: PathBuf,
    /// Its own options, for example `rw,nosuid`.
    pub options: String,
    /// The kind of filesystem.
    pub kind: String,
    /// What it was made from.
    pub source: String,
    /// The filesystem's options, for example `size=1024k`.
    pub super_options: String,
}

/// All mounts, later ones on top of earlier ones.
#[must_use]
pub fn mount_table() -> Vec<Mount> {
    // Not /proc/self: that is the process's first thread, which may live in another namespace.
    mount_table_of("thread-self")
}

/// The same as a process has it, named by its id.
pub(crate) fn mount_table_of(process: &str) -> Vec<Mount> {
    let table = std::fs::read_to_string(format!("/proc/{process}/mountinfo"));
    let table = table.expect("the mount table");
    table.lines().map(parse).collect()
}

impl Mount {
    /// Whether it is attached at `path`, which must have no symbolic link in it.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        self.point == path
    }

    /// Whether both kinds of options together hold this one.
    #[must_use]
    pub fn has_option(&self, option: &str) -> bool {
        self.options
            .split(',')
            .chain(self.super_options.split(','))
            .any(|one| one == option)
    }
}

/// Fields are `id parent major:minor root point options [optional…] - kind source super-options`.
fn parse(line: &str) -> Mount {
    let fields: Vec<&str> = line.split(' ').collect();
    let dash = fields
        .iter()
        .position(|field| *field == "-")
        .expect("a dash in mountinfo");
    Mount {
        id: fields[0].parse().expect("a mount's id"),
        point: PathBuf::from(unescape(fields[4])),
        options: fields[5].to_owned(),
        kind: fields[dash + 1].to_owned(),
        source: unescape(fields[dash + 2]),
        super_options: fields[dash + 3].to_owned(),
    }
}

/// The kernel writes blank, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(3);
        let byte = u8::from_str_radix(code, 8).expect("an octal escape");
        text.push(char::from(byte));
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line() {
        let line =
            "71 60 0:44 / /a\\040b rw,nosuid shared:1 master:2 - tmpfs vaulttmpfs:00 rw,size=64k";
        let mount = parse(line);
        assert!(mount.is_at(Path::new("/a b")));
        assert_eq!((mount.id, mount.source.as_str()), (71, "vaulttmpfs:00"));
        assert!(mount.has_option("nosuid") && mount.has_option("size=64k"));
    }
}
