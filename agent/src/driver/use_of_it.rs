//! Who needs the driver or its place: volumes that are mounted, calls that run, and who watches.

use super::place::same;
use crate::config::{self, ProcessEnvironment};
use crate::options::Pod;
use crate::{kubelet, mount_table, plain_file};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use vaulttmpfs_api::{MountDir, VolumeId};

/// The largest record of a volume that is read for its pod's name, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// So many pods are named.
const MOST_NAMED: usize = 20;

/// Nobody needs it: no volume of ours is mounted, and no call of this program runs.
///
/// # Errors
/// Someone does, and who.
pub(super) fn none(driver: &Path) -> Result<(), String> {
    let volumes = volumes()?;
    if !volumes.is_empty() {
        return Err(mounted(&volumes));
    }
    match call(driver)? {
        Some(id) => Err(format!("a call of it is running, process {id}")),
        None => Ok(()),
    }
}

/// The volumes that this process or a kubelet sees: that may live in a mount namespace of its own, and
/// be called otherwise. So each namespace counts that a process has which may be one.
fn volumes() -> Result<BTreeMap<VolumeId, Vec<PathBuf>>, String> {
    let mut volumes = own_volumes()?;
    let kubelets =
        kubelet::by_any_name().map_err(|error| format!("/proc cannot be read ({error})"))?;
    let mut namespaces = BTreeSet::new();
    for kubelet in kubelets {
        // One that has just ended shows none.
        let (Ok(namespace), Ok(table)) = (kubelet.mount_namespace(), kubelet.mount_table()) else {
            continue;
        };
        if namespaces.insert(namespace) {
            volumes.extend(mount_table::volumes(&table));
        }
    }
    Ok(volumes)
}

fn own_volumes() -> Result<BTreeMap<VolumeId, Vec<PathBuf>>, String> {
    let table = fs::read(mount_table::OWN)
        .map_err(|error| format!("the mount table cannot be read ({error})"))?;
    Ok(mount_table::volumes(&String::from_utf8_lossy(&table)))
}

fn mounted(volumes: &BTreeMap<VolumeId, Vec<PathBuf>>) -> String {
    let journal = config::locations(&ProcessEnvironment)
        .state_dir
        .join("volumes");
    let mut pods: Vec<String> = volumes
        .iter()
        .map(|(id, points)| pod(&journal, *id, points))
        .collect();
    pods.sort();
    pods.dedup();
    let left_out = pods.len().saturating_sub(MOST_NAMED);
    pods.truncate(MOST_NAMED);
    if left_out > 0 {
        pods.push(format!("and {left_out} more"));
    }
    format!("volumes are mounted of the pods {}", pods.join(", "))
}

/// The pod's name as the agent's journal has it, which is its user's and may hold anything; else its
/// uid as the kubelet's directory has it.
fn pod(journal: &Path, id: VolumeId, points: &[PathBuf]) -> String {
    named(journal, id).unwrap_or_else(|| {
        let dir = points
            .iter()
            .find_map(|point| MountDir::parse(point.to_str()?).ok());
        dir.map_or_else(
            || format!("volume {id}"),
            |dir| format!("with the uid {}", dir.pod_uid()),
        )
    })
}

fn named(journal: &Path, id: VolumeId) -> Option<String> {
    #[derive(Deserialize)]
    struct Record {
        pod: Pod,
    }
    let text = plain_file::read(&journal.join(id.to_string()), MAX_RECORD).ok()?;
    let Record { pod } = serde_json::from_slice(&text).ok()?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    (is_name(&pod.name) && is_name(&pod.namespace))
        .then(|| format!("{}/{}", pod.namespace, pod.name))
}

/// Whether a process watches a directory, as a kubelet does its plugin directory, whatever it is called and
/// wherever it lives. Another file system's directory of that number may be taken for it.
pub(super) fn watched(directory: &Path) -> io::Result<bool> {
    let mark = format!(" ino:{:x} ", fs::metadata(directory)?.ino());
    Ok(kubelet::processes()?.any(|id| watches(id, &mark)))
}

fn watches(process: u32, mark: &str) -> bool {
    // One that has ended watches nothing.
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fdinfo")) else {
        return false;
    };
    files.flatten().any(|file| {
        let about = fs::read_to_string(file.path()).unwrap_or_default();
        about
            .lines()
            .any(|line| line.starts_with("inotify ") && line.contains(mark))
    })
}

/// A process that executes this file.
fn call(driver: &Path) -> Result<Option<u32>, String> {
    let own = fs::metadata(driver).map_err(|error| format!("it cannot be looked at ({error})"))?;
    let mut processes =
        kubelet::processes().map_err(|error| format!("/proc cannot be read ({error})"))?;
    Ok(processes.find(|id| {
        fs::metadata(format!("/proc/{id}/exe")).is_ok_and(|program| same(&program, &own))
    }))
}
