//! The fleet, by simulation with the agent's own schedule: when the agents of a cluster call Vault.
//!
//! The worst begin is taken: all nodes start together. In the middle some lose their power, all at the
//! same moment. Mounts are not counted: when pods start is not the agent's to say.

use crate::table::{Row, Table};
use secrecy::SecretString;
use std::time::Duration;
use vaulttmpfs::clock::{Moment, millis};
use vaulttmpfs::config::{Lifecycle, RateLimit, WatchUnwrap};
use vaulttmpfs::options::{LifecycleOptions, Pod};
use vaulttmpfs::vault::lease::Lease;
use vaulttmpfs::vault::{Generator, Renewal, keeper};
use vaulttmpfs::volumes::plan::{self, Progress, Task};
use vaulttmpfs::volumes::{FORMAT, Kind, Origin, Record, State, Wrapping};
use vaulttmpfs_api::VolumeId;
use vaulttmpfs_tests::Numbers;

/// A cluster, and what happens to it.
struct Fleet {
    nodes: u64,
    /// Of them, those that lose their power.
    cut: u64,
    volumes: u64,
    /// Of the pods' tokens.
    period: Duration,
}

/// So many periods are looked at, and the power is lost when so many of them are over.
const PERIODS: u64 = 6;
const UNTIL_CUT: u64 = 3;

/// The busiest minute of a period, beside its mean: not in those in which agents start.
const MOST_TIMES: f64 = 1.3;

/// All times here are milliseconds since the begin.
const MINUTE: u64 = 60_000;

/// All nodes' agents, and then all their pods, start within this time.
const START: u64 = 5 * MINUTE;

/// From the power's end to the first pod after it.
const BOOT: u64 = 2 * MINUTE;

const GENERATOR_PERIOD: u64 = 768 * 3600;

const RULES: Lifecycle = Lifecycle {
    revoke: true,
    revoke_delay: Duration::ZERO,
    max_age: None,
    watch_unwrap: WatchUnwrap::Say,
    // The default: twenty a second.
    max_rate: RateLimit {
        interval: Duration::from_millis(50),
        burst: 1,
    },
};

/// Calls in each minute.
struct Calls(Vec<u32>);

pub(crate) fn measure(table: &mut Table) {
    for (hours, name) in [(1, "1 h"), (24, "24 h")] {
        let fleet = Fleet {
            nodes: 5000,
            cut: 100,
            volumes: 110,
            period: Duration::from_secs(hours * 3600),
        };
        let calls = fleet.calls();
        let name = format!("5000 nodes × 110 volumes, period {name}");
        for period in 0..PERIODS {
            let (mean, peak) = calls.mean_and_peak(&fleet, period);
            let (number, starts) = (period + 1, who_starts(period));
            let what = format!("{name}: busiest minute of period {number}{starts}");
            let row = Row::new(what, peak, "calls/s").beside(mean, "mean");
            table.add(if starts.is_empty() {
                row.at_most_times(MOST_TIMES)
            } else {
                row
            });
        }
        table.add_series(&format!("{name}: calls in each minute"), &calls.0);
    }
}

/// Whose agents start in a period, in words: nothing where none does.
const fn who_starts(period: u64) -> &'static str {
    match period {
        0 => ", in which all start",
        UNTIL_CUT => ", in which 100 nodes come back",
        _ => "",
    }
}

impl Fleet {
    fn period(&self) -> u64 {
        millis(self.period)
    }

    fn calls(&self) -> Calls {
        let (power_cut, end) = (UNTIL_CUT * self.period(), PERIODS * self.period());
        let minutes = usize::try_from(end / MINUTE).expect("some minutes");
        let mut calls = Calls(vec![0; minutes]);
        let mut random = Numbers::from_seed(1);
        for node in 0..self.nodes {
            let start = random.below(START);
            let first_end = if node < self.cut { power_cut } else { end };
            self.boot(start, first_end, &mut random, &mut calls);
            if node < self.cut {
                let start = power_cut + BOOT;
                self.boot(start, end, &mut random, &mut calls);
                // What the pods before the cut had.
                let interval = millis(RULES.max_rate.interval);
                (0..self.volumes).for_each(|paid| calls.note(start + paid * interval));
            }
        }
        calls
    }

    /// One boot of a node: the session with Vault, and its volumes.
    fn boot(&self, start: u64, end: u64, random: &mut Numbers, calls: &mut Calls) {
        keep(start, end, random, calls);
        for _ in 0..self.volumes {
            let created = start + random.below(START);
            let mut record = self.record(created, random);
            while let Some((at, task)) = plan::next(&record, &RULES, &Progress::default()) {
                if at >= end {
                    break;
                }
                calls.note(at);
                match task {
                    Task::Renew => record.renewed = Some(moment(at)),
                    Task::LookUnwrapped => record.wrapping = None,
                    other => panic!("{other:?} for a living volume"),
                }
            }
        }
    }

    fn record(&self, created: u64, random: &mut Numbers) -> Record {
        let created = moment(created);
        let [one, other] = [random.draw(), random.draw()].map(u64::to_be_bytes);
        let accessor = || SecretString::from("accessor").into();
        Record {
            format: FORMAT,
            kind: Kind::Token,
            id: VolumeId::from_bytes([one, other].concat().try_into().expect("16 bytes")),
            state: State::Attached,
            mount_dir: String::new(),
            pod: Pod {
                uid: String::new(),
                name: String::new(),
                namespace: String::new(),
                service_account: String::new(),
            },
            role: String::new(),
            policies: Vec::new(),
            wishes: LifecycleOptions::default(),
            accessor: Some(accessor()),
            created,
            ttl_ms: Some(self.period()),
            expires: None,
            ends: None,
            keep_within: None,
            renewed: None,
            wrapping: Some(Wrapping {
                accessor: accessor(),
                ends: created.after(Duration::from_secs(300)),
                unwrapped: None,
            }),
            unmanaged: None,
            lost: false,
            seen: true,
            seen_from: None,
            mount_namespace: None,
            attach_by: 0,
            ended: None,
            owed: Vec::new(),
            origin: Origin::default(),
        }
    }
}

/// What the session with Vault asks for by itself.
fn keep(start: u64, end: u64, random: &mut Numbers, calls: &mut Calls) {
    let generator = Generator {
        ttl: GENERATOR_PERIOD,
        period: GENERATOR_PERIOD,
        renewable: true,
        ..Generator::default()
    };
    let mut lease = Lease::of(&generator, start, byte(random));
    let (mut due, mut warm) = (lease.due, start);
    while let Some(at) = due.filter(|at| *at < end) {
        calls.note(at);
        let renewal = Renewal {
            ttl: Duration::from_secs(GENERATOR_PERIOD),
            renewable: true,
        };
        lease.renewed(renewal, at);
        due = lease.due;
    }
    while warm < end {
        calls.note(warm);
        warm += millis(keeper::keep_warm(byte(random)));
    }
}

fn byte(random: &mut Numbers) -> u8 {
    random.draw().to_be_bytes()[0]
}

fn moment(at: u64) -> Moment {
    Moment {
        boottime: at,
        wall: at,
    }
}

impl Calls {
    fn note(&mut self, at: u64) {
        let minute = usize::try_from(at / MINUTE).ok();
        if let Some(calls) = minute.and_then(|minute| self.0.get_mut(minute)) {
            *calls += 1;
        }
    }

    /// Calls a second in a period, on the average and in the busiest minute.
    fn mean_and_peak(&self, fleet: &Fleet, period: u64) -> (f64, f64) {
        let minute = |at| usize::try_from(at / MINUTE).expect("some minutes");
        let begin = period * fleet.period();
        let during = &self.0[minute(begin)..minute(begin + fleet.period())];
        let all: u32 = during.iter().sum();
        let busiest = during.iter().max().copied().unwrap_or_default();
        let mean = f64::from(all) / during.len() as f64;
        (mean / 60.0, f64::from(busiest) / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_spread_in_every_period_in_which_nobody_starts() {
        let fleet = Fleet {
            nodes: 500,
            cut: 10,
            volumes: 110,
            period: Duration::from_secs(3600),
        };
        let calls = fleet.calls();
        for period in (0..PERIODS).filter(|period| who_starts(*period).is_empty()) {
            let (mean, peak) = calls.mean_and_peak(&fleet, period);
            assert!(mean > 40.0, "{mean}");
            assert!(peak / mean < 1.4, "{peak} beside {mean}");
        }
    }
}
