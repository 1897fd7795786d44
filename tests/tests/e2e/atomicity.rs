//! Killed at any moment, a mount is whole or was never there.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, Numbers, Pod, Volume, eventually_within, text};

/// Mounts, and kills the driver after so long, if it is not done by then. Whether it was.
fn mount_and_kill(lab: &Lab, volume: &Volume, after: Duration) -> bool {
    std::fs::create_dir_all(&volume.directory).unwrap();
    let arguments = lab.kubelet.mount_arguments(volume, &lab.options());
    let mut command = lab.kubelet.command(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut driver = command.spawn().unwrap();
    // Sleeping would be too coarse for a mount of a few milliseconds.
    while begun.elapsed() < after && driver.try_wait().unwrap().is_none() {
        std::hint::spin_loop();
    }
    // It may just have ended.
    let _ = driver.kill();
    driver.wait().unwrap().success()
}

fn kill_at_random_moments(rounds: u32) {
    let lab = Lab::start();
    let warm = |number| {
        let volume = lab
            .kubelet
            .volume(&Pod::new(&format!("warm-{number}")), "vault");
        let outcome = lab.kubelet.mount(&volume, &lab.options());
        outcome.assert_success();
        u64::try_from(outcome.took.as_micros()).unwrap()
    };
    let shortest = (0..5).map(warm).min().unwrap();
    let seed = u64::from(std::process::id());
    let mut numbers = Numbers::from_seed(seed);
    let (mut whole, mut none) = (0, 0);
    for round in 0..rounds {
        let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
        // The machine may be slower by then.
        let span = (shortest * 3 / 2) << (round % 4);
        let after = Duration::from_micros(numbers.below(span));
        let done = mount_and_kill(&lab, &volume, after);
        let mounts = lab.node.volumes();
        let mounted = mounts.iter().any(|mount| mount.is_at(&volume.directory));
        assert!(
            mounted || !done,
            "seed {seed}, round {round}: done, and nothing is mounted"
        );
        if mounted {
            whole += 1;
            assert_eq!(
                volume.files(),
                ["ca.crt", "vault-token", "vault-token.json"]
            );
            assert_eq!(
                lab.unwrap(&volume).read("secret/app").status,
                200,
                "round {round}"
            );
        } else {
            none += 1;
            assert_eq!(
                volume.files(),
                [""; 0],
                "seed {seed}, round {round}, {after:?}"
            );
        }
        // The kubelet comes again, whatever became of the first: then all is well.
        if round % 5 == 0 {
            lab.kubelet.mount(&volume, &lab.options()).assert_success();
            assert_eq!(volume.files().len(), 3);
        }
    }
    assert!(
        whole > 0 && none > 0,
        "{whole} whole and {none} not there: kills came at one moment only"
    );
    lab.assert_all_accounted_for();

    // What is mounted stays alive, also when the agent has had time to see who is gone.
    let mounts = lab.node.volumes().into_iter();
    let ours: HashSet<String> = mounts.map(|mount| mount.source).collect();
    let patience = Duration::from_secs(60);
    eventually_within(patience, "the agent to give up just the rest", || {
        (ids(&lab, |state| state == "attached") == ours).then_some(())
    });
    assert!(ids(&lab, |state| state == "ended").is_disjoint(&ours));
}

#[test]
fn a_driver_killed_at_a_random_moment_leaves_all_or_nothing() {
    kill_at_random_moments(60);
}

#[test]
#[ignore = "long"]
fn a_driver_killed_at_very_many_random_moments_leaves_all_or_nothing() {
    kill_at_random_moments(1000);
}

/// Mounts one volume after the other, so many at least, while the agent is killed again and again:
/// until there were enough kills and enough volumes.
fn kill_the_agent_at_random_moments(mounts: usize) {
    let mut lab = Lab::start();
    let seed = u64::from(std::process::id());
    let mut numbers = Numbers::from_seed(seed);
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    lab.agent.kill();
    let begun = Instant::now();
    lab.agent.start();
    lab.agent.wait_until_ready();
    let start = u64::try_from(begun.elapsed().as_micros()).expect("a short time");
    let kills = AtomicUsize::new(0);
    let bound = Duration::from_secs(120 + mounts as u64);
    let begun = Instant::now();
    let good: Vec<Volume> = std::thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            let (mut tried, mut good) = (0, Vec::new());
            let enough = |tried: usize, good: usize| {
                let kills = kills.load(Ordering::SeqCst);
                tried >= mounts && good > mounts / 4 && kills > mounts / 20
            };
            while !enough(tried, good.len()) && begun.elapsed() < bound {
                let volume = kubelet.volume(&Pod::new("web-0"), "vault");
                let outcome = kubelet.mount(&volume, &options);
                tried += 1;
                if outcome.status == "Success" {
                    good.push(volume);
                }
            }
            good
        });
        while !mounting.is_finished() {
            // About half of its lives are long enough for a mount, however busy the machine is.
            if numbers.below(2) == 0 {
                lab.agent.wait_until_ready();
            }
            std::thread::sleep(Duration::from_micros(numbers.below(start)));
            lab.agent.kill();
            lab.agent.start();
            kills.fetch_add(1, Ordering::SeqCst);
        }
        mounting.join().unwrap()
    });
    lab.agent.wait_until_ready();
    let kills = kills.into_inner();
    assert!(
        kills > mounts / 20 && good.len() > mounts / 4,
        "{} volumes beside {kills} kills in {bound:?}, seed {seed}",
        good.len()
    );
    assert_eq!(
        lab.node.volumes().len(),
        good.len(),
        "a failure leaves nothing mounted"
    );
    let journal = lab.node.journal();
    for volume in &good {
        let accessor = text(&volume.read_json("vault-token.json")["wrapped_accessor"]);
        assert!(
            journal.contains(&accessor),
            "seed {seed}: a volume that the agent forgot"
        );
        assert_eq!(lab.unwrap(volume).read("secret/app").status, 200);
    }
    // One may still count as delivered: that it is attached was said to the agent's predecessor.
    let ended: HashSet<String> = ids(&lab, |state| state == "ended");
    let known = ids(&lab, |_| true);
    for mount in lab.node.volumes() {
        assert!(
            known.contains(&mount.source),
            "seed {seed}: forgotten: {mount:?}"
        );
        assert!(
            !ended.contains(&mount.source),
            "seed {seed}: given up: {mount:?}"
        );
    }
}

/// The sources of the volumes that the agent knows in these states.
fn ids(lab: &Lab, state: impl Fn(&str) -> bool) -> HashSet<String> {
    let mut volumes = lab.agent.volumes();
    volumes.retain(|volume| state(volume["state"].as_str().unwrap()));
    let sources = volumes
        .iter()
        .map(|volume| format!("vaulttmpfs:{}", text(&volume["id"])));
    sources.collect()
}

#[test]
fn an_agent_killed_at_random_moments_forgets_no_volume() {
    kill_the_agent_at_random_moments(60);
}

#[test]
#[ignore = "long"]
fn an_agent_killed_at_very_many_random_moments_forgets_no_volume() {
    kill_the_agent_at_random_moments(600);
}
