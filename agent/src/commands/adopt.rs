//! `vaulttmpfs adopt`: hands the agent the volumes that are mounted and that it does not know, after
//! its state directory was lost. Root reads the accessors from the volumes' own files, where the
//! agent cannot; the agent takes one only if Vault knows its token as that pod's.

use super::{client, complain, say};
use crate::exit::Exit;
use crate::{mount_table, plain_file};
use hyper::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fs;
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
    let table = fs::read(mount_table::OWN)
        .map_err(|error| format!("the mount table cannot be read: {error}"))?;
    let mut mounted = mount_table::volumes(&String::from_utf8_lossy(&table));
    mounted.retain(|id, _| !known.contains(id));
    Ok(mounted)
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
    // A pod may write into its volume: no link is followed, and no pipe waited for.
    let text = plain_file::read(path, MAX_FILE).ok()?;
    let token: Token = serde_json::from_slice(&text).ok()?;
    token
        .wrapped_accessor
        .or_else(|| token.auth?.accessor)
        .filter(|accessor| !accessor.expose_secret().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

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
