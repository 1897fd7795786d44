//! The kubelets that run on this node.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The most of an environment that is read, in bytes: the kernel lets a program be started with a
/// quarter of its stack, 2 MiB by default.
const MAX_ENVIRONMENT: u64 = 8 * 1024 * 1024;

/// A running kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Its process id.
    pub id: u32,
}

/// The kubelets that run now: processes of that name, root's, in the pid namespace of this one. What a
/// user or a container calls by that name is none.
///
/// # Errors
/// `/proc` cannot be read.
pub fn running() -> io::Result<Vec<Kubelet>> {
    let mut found = by_any_name()?;
    found.retain(|kubelet| kubelet.has_its_name().unwrap_or(false));
    Ok(found)
}

/// All processes that may be a kubelet, whatever they are called, as `k3s` and `hyperkube` are: root's,
/// in the pid namespace of this one.
///
/// # Errors
/// `/proc` cannot be read.
pub fn by_any_name() -> io::Result<Vec<Kubelet>> {
    let own = fs::read_link("/proc/self/ns/pid")?;
    let mut found: Vec<Kubelet> = processes()?
        .map(|id| Kubelet { id })
        // One that has ended meanwhile is none.
        .filter(|kubelet| kubelet.may_be_one(&own).unwrap_or(false))
        .collect();
    found.sort_by_key(|kubelet| kubelet.id);
    Ok(found)
}

/// The ids of all processes.
///
/// # Errors
/// `/proc` cannot be read.
pub fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

impl Kubelet {
    fn has_its_name(self) -> io::Result<bool> {
        Ok(fs::read(self.file("comm"))? == b"kubelet\n")
    }

    fn may_be_one(self, pid_namespace: &Path) -> io::Result<bool> {
        Ok(is_roots(&fs::read_to_string(self.file("status"))?)
            && fs::read_link(self.file("ns/pid"))? == pid_namespace)
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.id))
    }

    /// Its environment, in the order in which it was given. What is not `NAME=VALUE` is left out.
    ///
    /// # Errors
    /// It cannot be read, or is larger than any program is started with.
    pub fn environment(self) -> io::Result<Vec<(String, OsString)>> {
        // /proc says of no file how long it is, nor that it is plain.
        let mut bytes = Zeroizing::new(Vec::new());
        let file = fs::File::open(self.file("environ"))?;
        file.take(MAX_ENVIRONMENT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_ENVIRONMENT {
            let long = format!("longer than {MAX_ENVIRONMENT} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, long));
        }
        Ok(environment(&bytes))
    }

    /// What it was told by an option of its command line, `--NAME=VALUE` or `--NAME VALUE`; the last
    /// one counts. Nothing where it was not.
    ///
    /// # Errors
    /// It cannot be read; the kubelet may have ended.
    pub fn option(self, name: &str) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.file("cmdline"))?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes)?;
        Ok(option(&bytes, name))
    }

    /// A path as it sees it: it may live in a container.
    #[must_use]
    pub fn path(self, path: &Path) -> PathBuf {
        let relative = path.strip_prefix("/").unwrap_or(path);
        self.file("root").join(relative)
    }

    /// The mount namespace that it lives in.
    ///
    /// # Errors
    /// It cannot be read; the kubelet may have ended.
    pub fn mount_namespace(self) -> io::Result<PathBuf> {
        fs::read_link(self.file("ns/mnt"))
    }

    /// The mount table that it sees.
    ///
    /// # Errors
    /// It cannot be read; the kubelet may have ended.
    pub fn mount_table(self) -> io::Result<String> {
        let bytes = fs::read(self.file("mountinfo"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn option(command_line: &[u8], name: &str) -> Option<String> {
    let mut arguments = command_line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy);
    let mut value = None;
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.trim_start_matches('-').strip_prefix(name) else {
            continue;
        };
        if !argument.starts_with('-') {
            continue;
        }
        match rest.strip_prefix('=') {
            Some(given) => value = Some(given.to_owned()),
            None if rest.is_empty() => value = arguments.next().map(Into::into),
            None => {}
        }
    }
    value
}

fn environment(bytes: &[u8]) -> Vec<(String, OsString)> {
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let equals = entry.iter().position(|byte| *byte == b'=')?;
            let name = String::from_utf8(entry[..equals].to_vec()).ok()?;
            Some((name, OsString::from_vec(entry[equals + 1..].to_vec())))
        })
        .collect()
}

/// By all four user ids: a process may belong to root in `/proc` for other reasons (proc(5)).
fn is_roots(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.is_some_and(|ids| {
        let mut ids = ids.split_whitespace().peekable();
        ids.peek().is_some() && ids.all(|id| id == "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_names_and_values() {
        let bytes = b"A=1\0B=x=y\0\0nothing\0\xff=1\0C=\xff\0D=";
        let expected: Vec<(String, OsString)> = [
            ("A", b"1".as_slice()),
            ("B", b"x=y"),
            ("C", b"\xff"),
            ("D", b""),
        ]
        .map(|(name, value)| (name.to_owned(), OsString::from_vec(value.to_vec())))
        .to_vec();
        assert_eq!(environment(bytes), expected);
    }

    #[test]
    fn an_option_is_found_however_it_is_written() {
        let line = b"/usr/bin/kubelet\0--v=2\0--root-dir\0/k\0--volume-plugin-dir=/a\0-volume-plugin-dir=/b\0--config\0";
        let found = |name| option(line, name);
        assert_eq!(found("volume-plugin-dir").as_deref(), Some("/b"));
        assert_eq!(found("root-dir").as_deref(), Some("/k"));
        assert_eq!(found("root"), None);
        assert_eq!(found("config").as_deref(), Some(""));
        assert_eq!(option(b"", "v"), None);
    }

    #[test]
    fn only_root_is_root() {
        assert!(is_roots("Name:\tx\nUid:\t0\t0\t0\t0\n"));
        for status in ["", "Uid:\n", "Uid:\t1000\t0\t0\t0\n", "Uid:\t0\t1\t0\t0\n"] {
            assert!(!is_roots(status), "{status:?}");
        }
    }
}
