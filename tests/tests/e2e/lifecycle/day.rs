//! A day of a node's life, compressed: the agent stays as small as it was, and its calls come
//! evenly.

use super::{RENEW, mounted};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, Volume, text};

const VOLUMES: usize = 200;

const RENEWALS: usize = 100;

/// In seconds: so short that a hundred renewals take minutes.
const PERIOD: u64 = 15;

/// The slowest volume is renewed after five twelfths of a period; with half as much again.
const BOUND: Duration = Duration::from_secs(RENEWALS as u64 * PERIOD * 5 / 12 * 3 / 2);

/// What the agent holds: its memory in KiB and its open files.
#[derive(Clone, Copy, Debug)]
struct Size {
    memory: u64,
    files: usize,
}

impl Size {
    fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Self { memory, files }
    }
}

/// How often each volume was seen with another moment of renewal.
#[derive(Default)]
struct Seen(HashMap<String, (u64, usize)>);

impl Seen {
    fn look(&mut self, lab: &Lab) {
        for volume in lab.agent.volumes() {
            assert_eq!(volume["lost"], false, "{volume}");
            let Some(renewed) = volume["renewed_wall_ms"].as_u64() else {
                continue;
            };
            let (last, times) = self.0.entry(text(&volume["id"])).or_default();
            if *last != renewed {
                (*last, *times) = (renewed, *times + 1);
            }
        }
    }

    fn fewest(&self) -> usize {
        if self.0.len() < VOLUMES {
            return 0;
        }
        self.0.values().map(|(_, times)| *times).min().unwrap_or(0)
    }
}

#[test]
#[ignore = "long"]
fn a_day_of_two_hundred_volumes() {
    let lab = Lab::builder()
        .applications(&json!({ "period": format!("{PERIOD}s") }))
        .set("VAULTTMPFS_MAX_VAULT_RATE", "200")
        .proxied()
        .start();
    let volumes: Vec<Volume> = (0..VOLUMES)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    let begun = Instant::now();
    let (mut seen, mut sizes) = (Seen::default(), Vec::new());
    while seen.fewest() < RENEWALS {
        assert!(begun.elapsed() < BOUND, "{} renewals", seen.fewest());
        std::thread::sleep(Duration::from_secs(1));
        seen.look(&lab);
        sizes.push(Size::of(lab.agent.id()));
    }
    let settled = begun + Duration::from_secs(PERIOD);
    let (worst, mean) = histogram(&lab.proxy().times(RENEW), settled, Instant::now());
    println!("worst second: {worst} calls, mean {mean:.1}");

    // What came after a fifth of the day, against its end.
    let (early, late) = (&sizes[sizes.len() / 5], sizes.last().unwrap());
    println!("early {early:?}, late {late:?}, {} looks", sizes.len());
    assert!(
        late.memory <= early.memory + early.memory / 20 + 512,
        "memory grows"
    );
    assert!(late.files <= early.files + 2, "open files grow");
    assert!(f64::from(worst) <= 3.0 * mean, "calls in a bunch");
    assert_eq!(lab.living(), volumes.len());
}

/// Prints how many seconds had how many calls, and returns the worst second's and the mean.
fn histogram(times: &[Instant], from: Instant, until: Instant) -> (u32, f64) {
    let seconds = usize::try_from((until - from).as_secs()).unwrap();
    let mut calls = vec![0_u32; seconds];
    for time in times.iter().filter(|time| **time >= from) {
        let second = usize::try_from((*time - from).as_secs()).unwrap();
        if let Some(count) = calls.get_mut(second) {
            *count += 1;
        }
    }
    let mean = f64::from(calls.iter().sum::<u32>()) / f64::from(u32::try_from(seconds).unwrap());
    let worst = calls.iter().copied().max().unwrap_or(0);
    println!("calls a second: seconds");
    for low in (0..=worst).step_by(5) {
        let count = calls
            .iter()
            .filter(|calls| (low..low + 5).contains(calls))
            .count();
        println!("{low:4}-{:<4} {count:5} {}", low + 4, "#".repeat(count / 4));
    }
    (worst, mean)
}
