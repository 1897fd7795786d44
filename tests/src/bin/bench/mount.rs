//! One mount after the other, beside the sum of what it cannot do without: the bare call to Vault, and
//! the floor.

use crate::bare::Bare;
use crate::process::run;
use crate::sides::{Sides, clear, percentile, volume};
use crate::table::{Row, Table, milliseconds};
use std::time::Duration;
use vaulttmpfs_tests::Lab;

const RUNS: usize = 5;
const ROUNDS: usize = 300;
const WARM_UP: usize = 20;

/// A mount may take so many times the bare call and the floor together.
pub(crate) const MOST_TIMES: f64 = 1.15;

/// The times of one run: a mount, the bare call, the floor.
type Times = [Vec<Duration>; 3];

pub(crate) fn measure(lab: &Lab, sides: &Sides, table: &mut Table) {
    let bare = Bare::new(lab);
    one_run(lab, sides, &bare, WARM_UP);
    let connections = lab.vault.connections_of("create/applications");
    let mut runs: Vec<Times> = (0..RUNS)
        .map(|_| one_run(lab, sides, &bare, ROUNDS))
        .collect();
    let opened = lab.vault.connections_of("create/applications") - connections;

    let mut all = Times::default();
    for run in &runs {
        for (all, times) in all.iter_mut().zip(run) {
            all.extend(times);
        }
    }
    let [mount, bare, floor] = all.each_mut().map(|times| percentile(times, 50));
    table.add(Row::time("bare call to Vault, median", bare));
    let sum = milliseconds(bare + floor);
    table.add(
        Row::time("mount: exec to exit, median", mount)
            .beside(sum, "bare call + floor")
            .at_most_times(MOST_TIMES),
    );
    let [mount, bare, floor] = runs
        .iter_mut()
        .map(|run| run.each_mut().map(|times| percentile(times, 99)))
        .min_by_key(|[mount, bare, floor]| mount.as_nanos() * 1000 / (*bare + *floor).as_nanos())
        .expect("a run");
    let sum = milliseconds(bare + floor);
    table.add(
        Row::time("mount: exec to exit, p99, best of five runs", mount)
            .beside(sum, "bare call + floor")
            .at_most_times(MOST_TIMES),
    );
    table.add(Row::new("connections opened on a mount's path", opened as f64, "").at_most(0.0));
}

fn one_run(lab: &Lab, sides: &Sides, bare: &Bare, rounds: usize) -> Times {
    let mut times = Times::default();
    for round in 0..rounds {
        for side in 0..3 {
            let side = (round + side) % 3;
            times[side].push(match side {
                0 => mounted_by(lab, &lab.kubelet),
                1 => bare.time(),
                _ => mounted_by(lab, &sides.floor),
            });
        }
    }
    times
}

/// How long a mount by this driver takes. It is unmounted again.
pub(crate) fn mounted_by(lab: &Lab, side: &vaulttmpfs_tests::Kubelet) -> Duration {
    let volume = volume(lab);
    let time = run(&mut side.command(&side.mount_arguments(&volume, &lab.options())));
    clear(&volume);
    time
}
