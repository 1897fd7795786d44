//! What happens to a node around running pods: the kubelet, the driver and the mounts come and go.

use nix::mount::{MntFlags, umount2};
use std::fs;
use vaulttmpfs_tests::{Cluster, PodManifest, RealPod, in_own_namespaces};

fn manifest(name: &str) -> PodManifest {
    PodManifest::new(name)
        .volume("secret", &[("vault/policies", "app")])
        .script("echo up")
}

#[test]
fn running_pods_outlive_what_happens_to_the_node() {
    in_own_namespaces(|| {
        let mut cluster = Cluster::start();
        kubelet_restarted(&mut cluster);
        unmounted_by_hand(&cluster);
        driver_replaced(&cluster);
        kubelet_killed_in_a_mount(&mut cluster);
        assert_eq!(cluster.lab.living(), 0);
    });
}

/// What is mounted stays as it is; what is not is mounted anew, with a token of its own.
fn kubelet_restarted(cluster: &mut Cluster) {
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
    assert_ne!(cluster.wait_for_volumes(&[&lost]), old);
    // The kubelet is through with all of them when it starts others.
    let other = cluster.run(&manifest("other"));
    assert_eq!(cluster.mounts_of(&kept), mounts);
    assert_eq!(cluster.wait_for_volumes(&[&kept]), token);
    assert_eq!(
        cluster.output_of(&kept).matches("up").count(),
        1,
        "its container ran on"
    );
    cluster.end(&[&kept, &lost, &other]);
}

fn unmounted_by_hand(cluster: &Cluster) {
    let pod = cluster.run(&manifest("unmounted"));
    cluster.wait_for_volumes(&[&pod]);
    unmount(cluster, &pod);
    cluster.end(&[&pod]);
}

/// The new driver unmounts what the old one mounted, and the kubelet knows no moment without one.
fn driver_replaced(cluster: &Cluster) {
    let old = cluster.run(&manifest("old-driver"));
    let installed = cluster.lab.node.driver();
    let new = installed.with_extension("new");
    // A file beside it in its directory would be an event of its own.
    let new = cluster
        .lab
        .node
        .path("plugins")
        .join(new.file_name().unwrap());
    fs::copy(&installed, &new).unwrap();
    fs::rename(&new, &installed).unwrap();
    let other = cluster.run(&manifest("new-driver"));
    cluster.wait_for_volumes(&[&other]);
    cluster.end(&[&old, &other]);
}

/// The driver's call goes on without the kubelet; the next kubelet calls another beside it.
fn kubelet_killed_in_a_mount(cluster: &mut Cluster) {
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
    cluster.end(&[&pod]);
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
