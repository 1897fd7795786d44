//! What happens to a node around running pods: the kubelet, the driver and the mounts come and
//! go, and in the end the package does.

use crate::timed;
use nix::mount::{MntFlags, umount2};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use vaulttmpfs_tests::{Cluster, Lab, PodManifest, RealPod, Said, in_own_namespaces};

fn manifest(name: &str) -> PodManifest {
    PodManifest::new(name)
        .volume("secret", &[("vault/policies", "app")])
        .script("echo up")
}

#[test]
fn running_pods_outlive_what_happens_to_the_node() {
    in_own_namespaces(|| {
        // Longer than a kubelet needs to start on a busy machine.
        let lab = Lab::builder().set("VAULT_CLIENT_TIMEOUT", "105s");
        let mut cluster = Cluster::start_with(lab);
        let unmounted = timed("unmounted by hand", || unmounted_by_hand(&cluster));
        let mut pods = Vec::from(timed("kubelet restarted", || {
            kubelet_restarted(&mut cluster)
        }));
        pods.push(timed("kubelet killed in a mount", || {
            kubelet_killed_in_a_mount(&mut cluster)
        }));
        // All at once: the kubelet takes its time to end a pod.
        timed("driver replaced", || driver_replaced(&cluster, pods));
        cluster.wait_until_gone(&[&unmounted]);
        assert_eq!(cluster.lab.living(), 0);
        timed("package removed", || package_removed(&mut cluster));
    });
}

/// What is mounted stays as it is; what is not is mounted anew, with a token of its own.
fn kubelet_restarted(cluster: &mut Cluster) -> [RealPod; 3] {
    let kept = cluster.run(&manifest("kept"));
    let lost = cluster.run(&manifest("lost"));
    let (mounts, token) = (cluster.mounts_of(&kept), cluster.wait_for_volumes(&[&kept]));
    let old = cluster.wait_for_volumes(&[&lost]);
    cluster.kubelet.stop();
    unmount(cluster, &lost);
    cluster.kubelet.start();
    cluster.wait(&lost, "to be mounted anew", || {
        (!cluster.mounts_of(&lost).is_empty()).then_some(())
    });
    // The old token's end is awaited with the pod's: nobody called for it, so that it is given a grace.
    assert_ne!(cluster.tokens_in(&[&lost]), old);
    // The kubelet is through with all of them when it starts others.
    let other = cluster.run(&manifest("other"));
    assert_eq!(cluster.mounts_of(&kept), mounts);
    assert_eq!(cluster.wait_for_volumes(&[&kept]), token);
    assert_eq!(
        cluster.output_of(&kept).matches("up").count(),
        1,
        "its container ran on"
    );
    [kept, lost, other]
}

/// The kubelet finds nothing to unmount when the pod ends, which is as well. Nobody calls for its token, so
/// that it is given a grace, which is not waited for here.
fn unmounted_by_hand(cluster: &Cluster) -> RealPod {
    let pod = cluster.run(&manifest("unmounted"));
    cluster.wait_for_volumes(&[&pod]);
    unmount(cluster, &pod);
    assert!(cluster.is_running(&pod));
    cluster.delete(&pod);
    // A kubelet that starts would mount it again.
    cluster.wait_until_forgotten(&pod);
    pod
}

/// The new driver unmounts what the old one mounted, and the kubelet knows no moment without one.
fn driver_replaced(cluster: &Cluster, mut pods: Vec<RealPod>) {
    let node = &cluster.lab.node;
    let old = cluster.run(&manifest("old-driver"));
    let (trace, built) = (node.path("trace"), node.built_driver());
    let traced = format!(
        "#!/bin/sh\necho \"$1 $2\" >>{}\nexec {} \"$@\"\n",
        trace.display(),
        built.display()
    );
    replace_driver(cluster, traced.as_bytes());
    let other = cluster.run(&manifest("new-driver"));
    cluster.wait_for_volumes(&[&other]);
    let volume = |pod| cluster.volumes_of(pod).join("secret").display().to_string();
    let (mounted, unmounted) = (volume(&other), volume(&old));
    pods.extend([old, other]);
    cluster.end(&Vec::from_iter(&pods));
    let trace = fs::read_to_string(trace).expect("the new driver's trace");
    for call in [format!("mount {mounted}"), format!("unmount {unmounted}")] {
        assert!(trace.lines().any(|line| line == call), "{call}: {trace}");
    }
    replace_driver(cluster, &fs::read(built).unwrap());
}

/// By rename, from outside its directory: a file beside it would be an event of its own.
fn replace_driver(cluster: &Cluster, program: &[u8]) {
    let new = cluster.lab.node.path("plugins/.new");
    fs::write(&new, program).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, cluster.lab.node.driver()).unwrap();
}

/// The driver's call goes on without the kubelet; the next kubelet calls another beside it.
fn kubelet_killed_in_a_mount(cluster: &mut Cluster) -> RealPod {
    cluster.lab.vault.freeze();
    let pod = cluster.create(&manifest("twice"));
    wait_for_calls(cluster, &pod, 1);
    cluster.kubelet.kill();
    cluster.kubelet.start();
    wait_for_calls(cluster, &pod, 2);
    cluster.lab.vault.thaw();
    cluster.wait_until_running(&pod);
    wait_for_calls(cluster, &pod, 0);
    cluster.wait_for_volumes(&[&pod]);
    pod
}

/// The driver stays until the last volume is gone, and then goes by what the removal told. The last
/// token ends with its period: nobody is there to revoke it.
fn package_removed(cluster: &mut Cluster) {
    let place = cluster.lab.node.path("plugins");
    let driver = cluster.lab.node.driver();
    let built = cluster.lab.node.built_driver();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let installed = install_driver(
        cluster,
        &["--from", &path(&built), "--plugin-dir", &path(&place)],
    );
    assert_eq!(installed.status, 0, "{installed:?}");
    let pod = cluster.run(&manifest("without-package"));
    cluster.wait_for_volumes(&[&pod]);

    // What packaging/deb/prerm does.
    cluster.lab.agent.stop();
    let said = install_driver(cluster, &["--remove"]);
    assert_eq!(said.status, 3, "{said:?}");
    assert!(said.errors.contains("shop/without-package"), "{said:?}");
    assert!(driver.exists());

    cluster.delete(&pod);
    cluster.wait_until_unmounted(&pod);
    cluster.wait_until_forgotten(&pod);
    let (_, finish) = said.errors.split_once("finish with: ").expect("a command");
    let finished = Said::by(Command::new("sh").args(["-ec", finish]));
    assert_eq!(finished.status, 0, "{finished:?}");
    assert_eq!(fs::read_dir(place).unwrap().count(), 0);
}

/// As root runs it on a node whose directories are the agent's.
fn install_driver(cluster: &Cluster, arguments: &[&str]) -> Said {
    let arguments = [&["install-driver"], arguments].concat();
    let settings = &cluster.lab.agent.settings;
    cluster.lab.command_with(&arguments, settings)
}

fn wait_for_calls(cluster: &Cluster, pod: &RealPod, count: usize) {
    cluster.wait(pod, &format!("to be mounted by {count} calls"), || {
        (cluster.driver_calls(pod) == count).then_some(())
    });
}

fn unmount(cluster: &Cluster, pod: &RealPod) {
    let mounts = cluster.mounts_of(pod);
    assert_eq!(mounts.len(), 1);
    umount2(&mounts[0].point, MntFlags::empty()).expect("an umount by hand");
}
