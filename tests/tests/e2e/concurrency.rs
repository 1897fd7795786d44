//! Many at once.

use std::thread;
use std::time::Duration;
use vaulttmpfs_tests::{Fault, Lab, Outcome, Pod, Volume};

const CREATE: &str = "POST /v1/auth/token/create";

/// The agent has at most so many calls to Vault in flight, and connections.
const MOST_IN_FLIGHT: usize = 16;

/// Calls the driver for all of them, some at the same time.
fn all(volumes: &[Volume], call: impl Fn(&Volume) -> Outcome + Sync) {
    thread::scope(|scope| {
        let (call, workers) = (&call, 20);
        for worker in 0..workers {
            scope.spawn(move || {
                for volume in volumes.iter().skip(worker).step_by(workers) {
                    call(volume).assert_success();
                }
            });
        }
    });
}

#[test]
fn a_hundred_volumes_in_parallel() {
    let lab = Lab::builder().proxied().start();
    let pods = |number| {
        lab.kubelet
            .volume(&Pod::new(&format!("web-{number}")), "vault")
    };
    let volumes: Vec<Volume> = (0..100).map(pods).collect();
    all(&volumes, |volume| lab.kubelet.mount(volume, &lab.options()));

    assert_eq!(lab.node.volumes().len(), 100);
    assert_eq!(lab.living(), 100);
    assert_eq!(lab.proxy().count(CREATE), 100, "one create a mount");
    let busiest = lab.proxy().busiest();
    assert!(
        (2..=MOST_IN_FLIGHT).contains(&busiest),
        "{busiest} calls in flight"
    );
    let connections = lab.proxy().connections();
    assert!(connections <= MOST_IN_FLIGHT, "{connections} connections");
    for volume in &volumes {
        assert_eq!(lab.unwrap(volume).read("secret/app").status, 200);
    }
    lab.assert_all_accounted_for();
    assert_eq!(lab.agent.volumes().len(), 100);

    all(&volumes, |volume| lab.kubelet.unmount(volume));
    lab.assert_nothing_left();
}

#[test]
fn two_mounts_of_one_directory_make_one_volume() {
    let lab = Lab::builder().proxied().start();
    // Slow enough that the second comes while the first is at it, as after a kubelet's restart.
    lab.proxy()
        .always(CREATE, Fault::Late(Duration::from_millis(500)));
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    let same = vec![volume.clone(); 2];
    all(&same, |volume| lab.kubelet.mount(volume, &lab.options()));
    assert_eq!(lab.node.volumes().len(), 1);
    assert_eq!(lab.living(), 1);
    assert_eq!(lab.proxy().count(CREATE), 1);
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
    lab.kubelet.unmount(&volume).assert_success();
}

#[test]
fn a_slow_mount_holds_up_no_other() {
    let lab = Lab::builder()
        .proxied()
        .set("VAULT_CLIENT_TIMEOUT", "90s")
        .start();
    lab.proxy().order(1, CREATE, Fault::held());
    let slow = lab.kubelet.volume(&Pod::new("slow-0"), "vault");
    let quick = lab.kubelet.volume(&Pod::new("quick-0"), "vault");
    thread::scope(|scope| {
        let slow = scope.spawn(|| lab.kubelet.mount(&slow, &lab.options()));
        vaulttmpfs_tests::eventually("the slow create", || {
            (lab.proxy().count(CREATE) == 1).then_some(())
        });
        let quick = lab.kubelet.mount(&quick, &lab.options());
        assert!(!slow.is_finished(), "{:?}", quick.took);
        lab.proxy().release();
        quick.assert_success();
        slow.join().unwrap().assert_success();
    });
}

#[test]
fn a_pod_that_is_deleted_while_it_is_mounted_leaves_nothing() {
    let lab = Lab::builder().proxied().start();
    lab.proxy()
        .always(CREATE, Fault::Late(Duration::from_millis(300)));
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    thread::scope(|scope| {
        let mount = scope.spawn(|| lab.kubelet.mount(&volume, &lab.options()));
        vaulttmpfs_tests::eventually("the create", || {
            (lab.proxy().count(CREATE) == 1).then_some(())
        });
        // It waits for its turn: the directory is the mount's until that is done.
        lab.kubelet.unmount_only(&volume).assert_success();
        mount.join().unwrap().assert_success();
    });
    lab.assert_nothing_left();
}
