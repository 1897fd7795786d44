//! `vaulttmpfs adopt`: hands the agent the volumes that are mounted and that it does not know, after
//! its state directory was lost. Root reads the accessors from the volumes' own files, where the
//! agent cannot; the agent takes one only if Vault knows its token as that pod's.

use super::{client, complain, say};
use crate::exit::Exit;
use hyper::Method;
use nix::fcntl::OFlag;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vaulttmpfs_api::{MountDir, VOLUMES_PATH, VolumeId};
use zeroize::Zeroizing;

/// The largest file that is taken for a token's, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A pod may have filled its volume with files: so many are looked at.
const MOST_FILES: usize = 64;

/// Runs the command.
#[must_use]
pub fn run() -> Exit {
    let volumes = match strangers() {
        Ok(volumes) => volumes,
        Err(problem) => {
            complain(&problem);
            return Exit::Failed;
        }
    };
    if volumes.is_empty() {
        say("nothing to do: the agent knows every volume that is mounted");
    }
    let mut all = true;
    for (id, points) in &volumes {
        match adopt(*id, points) {
            Ok(dir) => say(&format!("taken up: {}", dir.as_str())),
            Err(why) => {
                all = false;
                let point = points.first().map(|point| point.display());
                let point = point.map(|point| point.to_string()).unwrap_or_default();
                complain(&format!("not taken up: {point} (volume {id}): {why}"));
            }
        }
    }
    if all { Exit::Done } else { Exit::Failed }
}

/// The volumes that are mounted and that the agent does not list, with their mount points.
fn strangers() -> Result<BTreeMap<VolumeId, Vec<PathBuf>>, String> {
    #[derive(Deserialize)]
    struct List {
        volumes: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        id: VolumeId,
    }
    let list = client::succeed(&Method::GET, VOLUMES_PATH, b"")?;
    let list: List =
        serde_json::from_slice(&list).map_err(|_| "the agent's list is not one".to_owned())?;
    let known: HashSet<VolumeId> = list.volumes.iter().map(|volume| volume.id).collect();
    let table = fs::read("/proc/self/mountinfo")
        .map_err(|error| format!("the mount table cannot be read: {error}"))?;
    let mut mounted = mounted(&String::from_utf8_lossy(&table));
    mounted.retain(|id, _| !known.contains(id));
    Ok(mounted)
}

/// A line is `ID PARENT DEV ROOT DIRECTORY OPTIONS [TAGS…] - TYPE SOURCE SUPER-OPTIONS` (proc(5)).
fn mounted(mountinfo: &str) -> BTreeMap<VolumeId, Vec<PathBuf>> {
    let mut volumes: BTreeMap<VolumeId, Vec<PathBuf>> = BTreeMap::new();
    for line in mountinfo.lines() {
        if let Some((id, point)) = volume(line) {
            volumes.entry(id).or_default().push(point);
        }
    }
    volumes
}

fn volume(line: &str) -> Option<(VolumeId, PathBuf)> {
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
    Some((VolumeId::from_source(source)?, unescape(point).into()))
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

/// Hands one volume over, by the first of its accessors that the agent takes.
fn adopt(id: VolumeId, points: &[PathBuf]) -> Result<MountDir, String> {
    let dir = points
        .iter()
        .find_map(|point| MountDir::parse(point.to_str()?).ok())
        .ok_or("it is not mounted where the kubelet mounts volumes")?;
    let mut why = "none of its files names the token's accessor".to_owned();
    for accessor in accessors(Path::new(dir.as_str()))? {
        let body = serde_json::json!({
            "mount_dir": dir.as_str(),
            "accessor": accessor.expose_secret(),
        });
        let body = Zeroizing::new(body.to_string());
        let path = format!("{VOLUMES_PATH}/{id}/adopt");
        match client::succeed(&Method::POST, &path, body.as_bytes()) {
            Ok(_) => return Ok(dir),
            Err(problem) => why = problem,
        }
    }
    Err(why)
}

/// What the volume's JSON files name as their token's accessor.
fn accessors(directory: &Path) -> Result<Vec<SecretString>, String> {
    let entries = fs::read_dir(directory)
        .map_err(|error| format!("its directory cannot be read: {error}"))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .take(MOST_FILES)
        .collect();
    files.sort();
    Ok(files.iter().filter_map(|path| accessor(path)).collect())
}

fn accessor(path: &Path) -> Option<SecretString> {
    #[derive(Deserialize)]
    struct Token {
        wrapped_accessor: Option<SecretString>,
        auth: Option<Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        accessor: Option<SecretString>,
    }
    let mut text = Zeroizing::new(Vec::new());
    let read = regular_file(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut text);
    if read.is_err() || text.len() as u64 > MAX_FILE {
        return None;
    }
    let token: Token = serde_json::from_slice(&text).ok()?;
    token
        .wrapped_accessor
        .or_else(|| token.auth?.accessor)
        .filter(|accessor| !accessor.expose_secret().is_empty())
}

/// A pod may write into its volume: no link is followed, and no pipe waited for.
fn regular_file(path: &Path) -> Option<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
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
        assert_eq!(mounted(&table), expected);
        assert_eq!(unescape("a\\134b\\9"), "a\\b9");
    }

    #[test]
    fn accessors_are_found_in_plain_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("a.json"), r#"{"token":"x","wrapped_accessor":"one"}"#).unwrap();
        fs::write(path("b.json"), r#"{"auth":{"accessor":"two"}}"#).unwrap();
        fs::write(path("c.json"), r#"{"auth":null,"wrapped_accessor":""}"#).unwrap();
        fs::write(path("d.json"), "no json").unwrap();
        fs::write(path("e"), r#"{"wrapped_accessor":"three"}"#).unwrap();
        std::os::unix::fs::symlink(path("a.json"), path("f.json")).unwrap();
        let found = accessors(directory.path()).unwrap();
        let found: Vec<&str> = found.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(found, ["one", "two"]);
    }
}
