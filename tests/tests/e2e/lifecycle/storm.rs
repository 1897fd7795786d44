//! Pods come and go in a rush while the agent is killed again and again and Vault is sealed in
//! between. Afterwards the living tokens are exactly those of the living volumes.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{
    Kubelet, Lab, Numbers, Options, Outcome, Pod, Volume, eventually_within, text,
};

/// Pods that start or stop at the same time.
const WORKERS: usize = 12;

/// In seconds; the agent renews at a third.
const PERIOD: u64 = 24;

/// A kubelet comes again after a failure, for so long.
const PATIENCE: Duration = Duration::from_secs(240);

struct Storm {
    volumes: usize,
    kills: usize,
    seals: usize,
}

/// Calls until it goes well, as the kubelet does.
fn at_last(what: &str, mut call: impl FnMut() -> Outcome) {
    eventually_within(PATIENCE, what, || {
        let outcome = call();
        let done = outcome.status == "Success";
        if !done {
            thread::sleep(Duration::from_millis(200));
        }
        done.then_some(())
    });
}

/// One pod's life: mounted, and perhaps unmounted, and perhaps mounted again.
fn live(kubelet: &Kubelet, options: &Options, number: usize, numbers: &mut Numbers) {
    let volume: Volume = kubelet.volume(&Pod::new(&format!("web-{number}")), "vault");
    at_last("a mount", || kubelet.mount(&volume, options));
    thread::sleep(Duration::from_millis(numbers.below(60)));
    if numbers.below(2) == 0 {
        return;
    }
    at_last("an unmount", || kubelet.unmount(&volume));
    if numbers.below(3) == 0 {
        at_last("another mount", || kubelet.mount(&volume, options));
    }
}

impl Storm {
    fn rage(&self) {
        let mut lab = Lab::builder()
            .applications(&json!({ "period": format!("{PERIOD}s") }))
            // Hundreds of volumes with so short a period want more calls than the default allows.
            .set("VAULTTMPFS_MAX_VAULT_RATE", "200")
            .start();
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (kubelet, options) = (lab.kubelet.clone(), lab.options());
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (kubelet, options, begun, done) = (&kubelet, &options, &begun, &done);
                scope.spawn(move || {
                    let mut numbers = Numbers::from_seed(seed + worker as u64);
                    loop {
                        let number = begun.fetch_add(1, Ordering::SeqCst);
                        if number >= self.volumes {
                            return;
                        }
                        live(kubelet, options, number, &mut numbers);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            self.trouble(&mut lab, &done, &mut Numbers::from_seed(!seed));
        });
        lab.agent.wait_until_ready();
        calm(&lab);
    }

    /// Evenly over the storm's progress, so that there is always something in flight.
    fn trouble(&self, lab: &mut Lab, done: &AtomicUsize, numbers: &mut Numbers) {
        for kill in 0..self.kills {
            let progress = self.volumes * kill / (self.kills + 1);
            eventually_within(PATIENCE, "the storm to go on", || {
                (done.load(Ordering::SeqCst) >= progress).then_some(())
            });
            thread::sleep(Duration::from_millis(numbers.below(80)));
            let seal = kill % self.kills.div_ceil(self.seals) == 0;
            if seal {
                lab.vault.seal();
                thread::sleep(Duration::from_millis(numbers.below(300)));
            }
            lab.agent.kill();
            thread::sleep(Duration::from_millis(numbers.below(100)));
            lab.agent.start();
            if seal {
                thread::sleep(Duration::from_millis(500 + numbers.below(1000)));
                lab.vault.unseal();
            }
        }
    }
}

/// The accessors of the tokens in all mounted volumes, each directory once.
fn mounted(lab: &Lab) -> BTreeSet<String> {
    let mounts = lab.node.volumes();
    let accessors: BTreeSet<String> = mounts
        .iter()
        .map(|mount| {
            let json = std::fs::read_to_string(mount.point.join("vault-token.json")).unwrap();
            let json: Value = serde_json::from_str(&json).unwrap();
            text(&json["wrapped_accessor"])
        })
        .collect();
    let directories: BTreeSet<_> = mounts.iter().map(|mount| &mount.point).collect();
    assert_eq!(
        directories.len(),
        mounts.len(),
        "two volumes on one directory"
    );
    assert_eq!(accessors.len(), mounts.len(), "one token in two volumes");
    accessors
}

fn living(lab: &Lab) -> BTreeSet<String> {
    let tokens = lab.vault.root().pod_tokens();
    tokens
        .iter()
        .map(|token| text(&token["accessor"]))
        .collect()
}

/// Says what became of a volume, for whoever looks into a failure.
fn tell(lab: &Lab, accessor: &str) {
    let records = lab.node.records();
    let record = records
        .iter()
        .map(|(_, record)| record)
        .find(|record| record["accessor"] == accessor);
    let Some(record) = record else {
        return println!("a token that is not in the journal");
    };
    let id = text(&record["id"]);
    for field in [
        "state", "ttl_ms", "created", "renewed", "expires", "seen", "lost",
    ] {
        println!("{id} {field}: {}", record[field]);
    }
    for line in lab.agent.log().lines().filter(|line| line.contains(&id)) {
        println!("{line}");
    }
}

/// What must hold once the storm is over: after a period, and the minute that volumes have that
/// vanished without the agent hearing of it.
fn calm(lab: &Lab) {
    let expected = mounted(lab);
    let begun = Instant::now();
    let within = Duration::from_secs(60 + 3 * PERIOD);
    let (mut more, mut less) = (0, 0);
    while begun.elapsed() < within {
        let living = living(lab);
        more = living.difference(&expected).count();
        let dead: Vec<&String> = expected.difference(&living).collect();
        less = dead.len();
        for accessor in dead {
            tell(lab, accessor);
        }
        assert_eq!(
            less,
            0,
            "living volumes whose tokens are dead, of {}",
            expected.len()
        );
        if more == 0 {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    println!(
        "{} volumes; calm after {:?}",
        expected.len(),
        begun.elapsed()
    );
    for accessor in living(lab).difference(&expected) {
        tell(lab, accessor);
    }
    assert_eq!((more, less), (0, 0), "living tokens without a volume");
    // And so it stays.
    thread::sleep(Duration::from_secs(PERIOD + PERIOD / 2));
    assert_eq!(living(lab), expected);
    assert_eq!(mounted(lab), expected);
    let shown = lab.agent.volumes();
    let attached = shown
        .iter()
        .filter(|one| one["state"] == "attached" && one["lost"] == false);
    assert_eq!(attached.count(), expected.len());
    // What ended by absence waits a minute, and what met a sealed Vault for its next try.
    eventually_within(Duration::from_secs(180), "nothing is owed any more", || {
        (lab.agent.volumes().len() == expected.len()).then_some(())
    });
}

#[test]
fn a_storm_loses_nothing() {
    let storm = Storm {
        volumes: 60,
        kills: 5,
        seals: 2,
    };
    storm.rage();
}

#[test]
#[ignore = "long"]
fn a_heavy_storm_loses_nothing() {
    let storm = Storm {
        volumes: 300,
        kills: 20,
        seals: 5,
    };
    storm.rage();
}
