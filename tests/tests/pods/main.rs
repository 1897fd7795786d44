//! Real pods on a real kubelet: what it does with the driver, and what containers see. A test here is
//! a cluster of its own, and several scenarios on it; `tests/README.md` says what is real.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, naming the place"
)]

mod many;
mod outages;
mod reboot;
mod restarts;
mod volumes;

use std::thread;
use std::time::Instant;
use vaulttmpfs_tests::Cluster;

/// What is shown on a cluster beside other things.
type Scenario = fn(&Cluster);

/// Runs scenarios that do not disturb each other at the same time.
fn together(cluster: &Cluster, scenarios: &[(&str, Scenario)]) {
    thread::scope(|scope| {
        for (name, scenario) in scenarios {
            let run = move || timed(name, || scenario(cluster));
            let thread = thread::Builder::new().name((*name).to_owned());
            thread.spawn_scoped(scope, run).expect("a thread");
        }
    });
}

/// Runs a scenario, and says how long it took.
fn timed<T>(name: &str, scenario: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let made = scenario();
    println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    made
}
