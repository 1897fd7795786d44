//! The driver alone, beside the floor: both ask an agent that answers at once.

use crate::process::run;
use crate::sides::{Sides, percentile, volume};
use crate::table::{Row, Table};
use std::fs;
use std::process::Command;
use std::time::Duration;
use vaulttmpfs_tests::{Kubelet, Lab, instructions, system_calls};

const ROUNDS: usize = 1500;
const WARM_UP: usize = 50;

/// Times of `mount`, `unmount` and `init`.
type Times = [Vec<Duration>; 3];
const CALLS: [&str; 3] = ["mount", "unmount", "init"];

pub(crate) fn measure(lab: &Lab, sides: &Sides, table: &mut Table) {
    let [driver, floor] = sides.files.each_ref().map(|file| {
        let found = fs::metadata(file).expect("the program");
        found.len() as f64
    });
    table.add(Row::new("driver", driver, "bytes").beside(floor, "floor"));
    for (name, count) in [
        ("instructions", instructions as Count),
        ("system calls", system_calls),
    ] {
        let driver = counts(lab, &sides.driver_alone, count);
        let floor = counts(lab, &sides.floor, count);
        for (call, (driver, floor)) in CALLS.iter().zip(driver.into_iter().zip(floor)) {
            table.add(
                Row::new(format!("`{call}`, agent at once: {name}"), driver, "")
                    .beside(floor, "floor"),
            );
        }
    }
    let (mut driver, mut floor) = (Times::default(), Times::default());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            (driver, floor) = (Times::default(), Times::default());
        }
        // Who goes first changes.
        if round % 2 == 0 {
            one_round(lab, &sides.driver_alone, &mut driver);
            one_round(lab, &sides.floor, &mut floor);
        } else {
            one_round(lab, &sides.floor, &mut floor);
            one_round(lab, &sides.driver_alone, &mut driver);
        }
    }
    for (call, (driver, floor)) in CALLS.iter().zip(driver.iter_mut().zip(&mut floor)) {
        for (name, percent) in [("median", 50), ("p99", 99)] {
            let row = Row::time(
                format!("`{call}`, agent at once: exec to exit, {name}"),
                percentile(driver, percent),
            )
            .beside(
                crate::table::milliseconds(percentile(floor, percent)),
                "floor",
            );
            table.add(if percent == 50 {
                row.at_most_times(1.2)
            } else {
                row
            });
        }
    }
}

type Count = fn(&Command) -> u64;

/// The counts of the three calls.
fn counts(lab: &Lab, side: &Kubelet, count: Count) -> [f64; 3] {
    let volume = volume(lab);
    let counts = commands(lab, side, &volume).map(|command| count(&command) as f64);
    fs::remove_dir(&volume.directory).expect("an empty directory");
    counts
}

fn one_round(lab: &Lab, side: &Kubelet, times: &mut Times) {
    let volume = volume(lab);
    for (mut command, times) in commands(lab, side, &volume).into_iter().zip(times) {
        times.push(run(&mut command));
    }
}

fn commands(lab: &Lab, side: &Kubelet, volume: &vaulttmpfs_tests::Volume) -> [Command; 3] {
    let [mount, directory, options] = side.mount_arguments(volume, &lab.options());
    [
        side.command(&[&mount, &directory, &options]),
        side.command(&["unmount", &directory]),
        side.command(&["init"]),
    ]
}
