//! Can the driver mount, and does the agent see what it mounts?

use super::environment::UNIT;
use super::report::{Group, Report};
use crate::kubelet::{self, Kubelet};
use crate::mount_table;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const TITLE: &str = "mounts";

/// Where a kubelet has its pods unless `--root-dir` names another directory.
const USUAL_ROOT: &str = "/var/lib/kubelet";

/// From this version on the kernel has the calls by which the driver mounts.
const MOUNTS_SINCE: (u32, u32) = (5, 2);

/// From this version on a tmpfs can be kept out of swap.
const NOSWAP_SINCE: (u32, u32) = (6, 4);

/// `MountFlags=` of a unit, as systemd has it on the bus: `MS_PRIVATE` (mount(2)).
const PRIVATE: u64 = 1 << 18;

/// `agent`: the process id of one that answers; 0 where it does not say.
pub(super) fn check(report: &mut Report, agent: Option<u32>, has_unit: bool) {
    let mut group = report.group(TITLE);
    kernel(&mut group);
    match agent {
        Some(agent) if agent > 0 => propagation(&mut group, agent),
        _ if has_unit => unit(&mut group),
        _ => group.not_checked("whether the agent sees the kubelet's mounts: no agent answers"),
    }
}

fn kernel(group: &mut Group<'_>) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let Some(version) = version(release) else {
        return group.not_checked(format!("the kernel: its version is {release:?}"));
    };
    if version < MOUNTS_SINCE {
        return group.failure(format!(
            "the kernel is {release}: the driver needs Linux 5.2 or later"
        ));
    }
    group.ok(format!("the kernel is {release}"));
    // A line a swap area, below a head.
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if version < NOSWAP_SINCE && swaps.lines().count() > 1 {
        group.warning(format!(
            "volumes may be swapped out, and tokens with them: Linux {release} cannot keep them out (6.4 can); swapoff -a, or encrypt the swap"
        ));
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// By what the running agent sees.
fn propagation(group: &mut Group<'_>, agent: u32) {
    let of_agent = |name: &str| PathBuf::from(format!("/proc/{agent}/{name}"));
    let kubelets = kubelet::running().unwrap_or_default();
    // It names itself by its own pid namespace, which may be a container's.
    if fs::read(of_agent("comm")).is_ok_and(|name| name != b"vaulttmpfs\n") {
        return group.not_checked(
            "whether the agent sees the kubelet's mounts: it runs in a pid namespace of its own",
        );
    }
    let looked = fs::read(of_agent("mountinfo"))
        .and_then(|table| Ok((table, namespace(&of_agent("ns/mnt"))?)));
    let (table, agents_namespace) = match looked {
        Ok((table, namespace)) => (String::from_utf8_lossy(&table).into_owned(), namespace),
        Err(error) => {
            return group.not_checked(format!(
                "whether the agent sees the kubelet's mounts: its process {agent}: {error}; root is needed"
            ));
        }
    };
    unseen_volumes(group, &kubelets, &table);
    if kubelets.is_empty() {
        return group.not_checked(format!(
            "whether the agent sees the kubelet's mounts: {}",
            super::no_kubelet()
        ));
    }
    for kubelet in kubelets {
        let root = root(kubelet);
        let shown = root.display();
        match namespace(Path::new(&format!("/proc/{}/ns/mnt", kubelet.id))) {
            Ok(namespace) if namespace == agents_namespace => {
                group.ok("agent and kubelet share one mount namespace");
                continue;
            }
            Ok(_) => {}
            Err(error) => {
                group.not_checked(format!(
                    "whether the agent sees the kubelet's mounts: process {}: {error}; root is needed",
                    kubelet.id
                ));
                continue;
            }
        }
        let relative = root.strip_prefix("/").unwrap_or(&root);
        let of_the_agent = of_agent("root").join(relative);
        if identity(&kubelet.path(&root)) != identity(&of_the_agent) {
            group.failure(format!(
                "the agent does not see the kubelet's directory {shown}, and only unmount calls end volumes: below /home or /root set ProtectHome=read-only, below /tmp or /var/tmp PrivateTmp=no, in a drop-in of {}",
                UNIT.0
            ));
        } else if mount_table::follows(&table, &root.to_string_lossy()) {
            group.ok(format!(
                "the agent's mount namespace follows the node's at {shown}"
            ));
        } else {
            group.failure(format!(
                "the kubelet's mounts below {shown} do not reach the agent's mount namespace, and only unmount calls end volumes: no MountFlags=private in {}, and the node's own mount of it shared (mount --make-rshared /), then restart the agent",
                UNIT.0
            ));
        }
    }
}

/// Volumes that a kubelet, or this process, sees and the agent does not.
fn unseen_volumes(group: &mut Group<'_>, kubelets: &[Kubelet], agents: &str) {
    let seen = mount_table::volumes(agents);
    let mut all = fs::read(mount_table::OWN)
        .map(|table| mount_table::volumes(&String::from_utf8_lossy(&table)))
        .unwrap_or_default();
    for table in kubelets.iter().flat_map(|kubelet| kubelet.mount_table()) {
        all.extend(mount_table::volumes(&table));
    }
    let unseen: Vec<_> = all.keys().filter(|id| !seen.contains_key(id)).collect();
    if unseen.is_empty() {
        group.ok(format!(
            "the agent sees every volume that is mounted ({})",
            all.len()
        ));
    } else {
        group.failure(format!(
            "the agent does not see {} of {} mounted volumes, and only unmount calls end them: was one of the mount namespaces cut off?",
            unseen.len(),
            all.len()
        ));
    }
}

/// By what the unit says, while no agent runs.
fn unit(group: &mut Group<'_>) {
    match UNIT.property::<u64>("Service", "MountFlags") {
        Ok(flags) if flags & PRIVATE != 0 => group.failure(format!(
            "{} has MountFlags=private: the kubelet's mounts will not reach the agent; take that out",
            UNIT.0
        )),
        Ok(_) => group.ok(format!(
            "{} lets the kubelet's mounts reach the agent",
            UNIT.0
        )),
        Err(error) => group.not_checked(format!("the unit's mounts: {error}")),
    }
}

fn root(kubelet: Kubelet) -> PathBuf {
    let told = kubelet.option("root-dir").ok().flatten();
    let told = told.filter(|directory| !directory.is_empty());
    told.map_or_else(|| PathBuf::from(USUAL_ROOT), PathBuf::from)
}

fn namespace(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|namespace| namespace.ino())
}

/// Device and inode; nothing where it is not there, which is the same for all.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_versions() {
        for (release, expected) in [
            ("6.18.1-arch1", Some((6, 18))),
            ("5.2", Some((5, 2))),
            ("4.18.0-553.el8.x86_64", Some((4, 18))),
            ("6.1-rc1", Some((6, 1))),
            ("", None),
            ("six", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
