//! What a call costs, in counts: no noise of the machine changes them, so a bound can be close.
//! `tests/bench` measures times.

use std::fs;
use std::process::Command;
use std::thread;
use vaulttmpfs_tests::{
    Kubelet, Lab, Pod, Volume, answer_at_once, eventually, instructions, system_calls,
};

/// Each bound is the count at the time of writing and a tenth more, as a compiler's next version may
/// want; for `unmount` that of a kernel before 6.13, where the mount table is read.
mod most {
    /// Of the driver's file.
    pub(super) const BYTES: u64 = 1_200_000;
    /// In user space: `mount` with four files, `unmount`, `init`.
    pub(super) const INSTRUCTIONS: [u64; 3] = [130_000, 65_000, 16_000];
    /// The same.
    pub(super) const SYSTEM_CALLS: [u64; 3] = [89, 55, 23];
}

/// Calls to Vault in flight at once, and so connections.
const POOL: usize = 16;

const CREATE: &str = "POST /v1/auth/token/create";

/// The default role is read for the mounts to come, and by the look at the generator token, which ends
/// with it.
const ROLE_READ_AT_START: &str =
    r#"vaulttmpfs_vault_requests_total{path="auth/token/roles/{role}",status="200"} 2"#;

#[test]
fn the_driver_stays_small() {
    let lab = Lab::builder().without_agent().start();
    let bytes = fs::metadata(lab.node.driver()).unwrap().len();
    assert!(bytes <= most::BYTES, "the driver has {bytes} bytes");

    let kubelet = beside_an_instant_agent(&lab);
    for (what, counts, most) in [
        (
            "instructions",
            counted(&lab, &kubelet, instructions),
            most::INSTRUCTIONS,
        ),
        (
            "system calls",
            counted(&lab, &kubelet, system_calls),
            most::SYSTEM_CALLS,
        ),
    ] {
        println!("{what} of mount, unmount, init: {counts:?}");
        for (count, most) in counts.into_iter().zip(most) {
            assert!(
                count <= most,
                "{what} of mount, unmount, init: {counts:?}, at most {most}"
            );
        }
    }
}

/// Of system calls none is more. The instructions of one and the same unmount were seen to differ by 10,000, so
/// only what takes some hundred for each volume shows in them.
#[test]
fn a_call_costs_the_same_however_many_volumes_there_are() {
    const VOLUMES: usize = 200;
    let lab = Lab::builder().without_agent().start();
    let kubelet = beside_an_instant_agent(&lab);
    let counts = || [system_calls, instructions].map(|count| counted(&lab, &kubelet, count));
    let alone = counts();
    for _ in 0..VOLUMES {
        let mounted = kubelet.mount(&made(&kubelet), &lab.options());
        mounted.assert_success();
    }
    let among_many = counts();
    println!("of mount, unmount, init: {alone:?}, with {VOLUMES} volumes {among_many:?}");
    let calls = if asks_for_one_mount() {
        &["mount", "unmount"][..]
    } else {
        &["mount"]
    };
    let ([few_calls, few], [many_calls, many]) = (alone, among_many);
    for (call, what) in calls.iter().enumerate() {
        assert_eq!(many_calls[call], few_calls[call], "system calls of {what}");
        let more = many[call].saturating_sub(few[call]);
        assert!(more <= few[call] / 2, "{what}: {more} instructions more");
    }
}

/// Can the kernel be asked for one mount alone? Since Linux 6.13; elsewhere an unmount reads the mount
/// table.
fn asks_for_one_mount() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(str::parse::<u32>);
    let (Some(Ok(version)), Some(Ok(patch_level))) = (numbers.next(), numbers.next()) else {
        panic!("no version in {release}");
    };
    (version, patch_level) >= (6, 13)
}

#[test]
fn a_mount_is_one_call_to_vault_on_a_connection_that_is_there() {
    let lab = Lab::builder().proxied().start();
    eventually("all to be read that is read at the start", || {
        lab.agent
            .call("GET", "/metrics", "")
            .body
            .contains(ROLE_READ_AT_START)
            .then_some(())
    });
    lab.kubelet
        .mount(&made(&lab.kubelet), &lab.options())
        .assert_success();
    let (calls, connections) = (lab.proxy().requests().len(), lab.proxy().connections());
    for _ in 0..20 {
        lab.kubelet
            .mount(&made(&lab.kubelet), &lab.options())
            .assert_success();
    }
    let made = lab.proxy().requests().split_off(calls);
    assert_eq!(made.len(), 20, "{made:?}");
    assert!(made.iter().all(|call| call.starts_with(CREATE)), "{made:?}");
    assert_eq!(
        lab.proxy().connections(),
        connections,
        "a connection was opened on a mount's path"
    );
}

#[test]
fn a_burst_opens_no_more_connections_than_it_has_calls_in_flight() {
    const MOUNTS: usize = 250;
    const AT_A_TIME: usize = 32;
    let lab = Lab::builder().proxied().start();
    let volumes: Vec<Volume> = (0..MOUNTS).map(|_| made(&lab.kubelet)).collect();
    thread::scope(|scope| {
        for worker in 0..AT_A_TIME {
            let (lab, volumes) = (&lab, &volumes);
            scope.spawn(move || {
                for volume in volumes.iter().skip(worker).step_by(AT_A_TIME) {
                    lab.kubelet.mount(volume, &lab.options()).assert_success();
                }
            });
        }
    });
    assert_eq!(lab.proxy().count(CREATE), MOUNTS, "one create a mount");
    let connections = lab.proxy().connections();
    assert!(connections <= POOL, "{connections} connections");
}

/// A kubelet whose driver asks an agent that answers at once.
fn beside_an_instant_agent(lab: &Lab) -> Kubelet {
    let instant = lab.node.path("instant.sock");
    answer_at_once(&instant);
    Kubelet::new(&lab.node.driver(), &lab.node.path("kubelet"), &instant)
}

/// What `mount` and `unmount` of a new volume, and `init`, come to.
fn counted(lab: &Lab, kubelet: &Kubelet, count: fn(&Command) -> u64) -> [u64; 3] {
    let volume = made(kubelet);
    let [mount, directory, options] = kubelet.mount_arguments(&volume, &lab.options());
    [
        kubelet.command(&[&mount, &directory, &options]),
        kubelet.command(&["unmount", &directory]),
        kubelet.command(&["init"]),
    ]
    .map(|call| count(&call))
}

/// A new pod's volume, its directory made.
fn made(kubelet: &Kubelet) -> Volume {
    let volume = kubelet.volume(&Pod::new("web-0"), "vault");
    fs::create_dir_all(&volume.directory).unwrap();
    volume
}
