//! What is to be done for a volume next, and when: one pure function.

use super::record::{Record, State};
use crate::clock::{Moment, millis};
use crate::config::{Lifecycle, WatchUnwrap};
use std::collections::BTreeMap;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;

/// A token whose TTL nobody knows is renewed this soon, which tells its TTL.
const LEARN_TTL: Duration = Duration::from_secs(10);

/// No token is renewed more often, however short a TTL Vault names.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Ended by absence alone, a volume waits this long before anything is done about it: a mass of
/// vanished mounts may yet show that the agent, not the mounts, is wrong.
pub(super) const ABSENCE_GRACE: Duration = Duration::from_secs(60);

/// A token's end by its explicit max TTL is said so long before, or a third of its life.
const NOTICE: Duration = Duration::from_secs(24 * 3600);

/// An ended volume is remembered this long where its token's expiry is not known: Vault's default
/// for the longest lease (768 h).
const LONGEST_LEASE: Duration = Duration::from_secs(768 * 3600);

/// Something to be done for a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Renew the token.
    Renew,
    /// Look whether the token was unwrapped.
    LookUnwrapped,
    /// Say that the token ends by its explicit max TTL.
    GiveNotice,
    /// Do what is owed at Vault.
    Pay,
    /// Forget the volume: its token expired long since.
    Forget,
}

/// How a volume's tasks have gone in this process.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The token's coming end was said.
    pub(super) noticed: bool,
    /// The look whether it was unwrapped is over, whatever it showed.
    pub(super) looked: bool,
    /// The tasks that failed last. Each by itself: a look that Vault denies delays no renewal.
    failed: BTreeMap<Task, Failed>,
}

/// A task's failures in a row, and the time of the next try.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    times: u32,
    again: u64,
}

impl Progress {
    /// A task has failed. Returns how often it had before, in a row.
    pub(super) fn failed(&mut self, task: Task, now: Moment, expires: Option<Moment>) -> u32 {
        let failed = self.failed.entry(task).or_default();
        let before = failed.times;
        *failed = Failed {
            times: before + 1,
            again: retry(now, before, expires),
        };
        before
    }

    /// A task is done. Returns how often it had failed before, in a row.
    pub(super) fn succeeded(&mut self, task: Task) -> u32 {
        self.failed.remove(&task).map_or(0, |failed| failed.times)
    }

    /// A task, not before its next try.
    fn put_off(&self, at: u64, task: Task) -> (u64, Task) {
        let again = self.failed.get(&task).map_or(0, |failed| failed.again);
        (at.max(again), task)
    }
}

/// The next task of a volume and its time, in milliseconds on `CLOCK_BOOTTIME`. Volumes that are
/// only delivered have none: they are settled first.
#[must_use]
pub fn next(record: &Record, rules: &Lifecycle, progress: &Progress) -> Option<(u64, Task)> {
    match record.state {
        State::Delivered => None,
        State::Attached => [
            renewal(record, rules).map(|at| (at, Task::Renew)),
            look(record, rules)
                .filter(|_| !progress.looked)
                .map(|at| (at, Task::LookUnwrapped)),
            notice(record)
                .filter(|_| !progress.noticed)
                .map(|at| (at, Task::GiveNotice)),
        ]
        .into_iter()
        .flatten()
        .map(|(at, task)| progress.put_off(at, task))
        .min(),
        State::Ended if record.owed.is_empty() => Some((0, Task::Forget)),
        // Tried once at least, however late.
        State::Ended => Some(
            progress
                .put_off(payment(record, rules), Task::Pay)
                .min((forget(record), Task::Forget)),
        ),
    }
}

/// Is the token kept alive?
pub(super) fn is_renewed(record: &Record, rules: &Lifecycle) -> bool {
    record.state == State::Attached && renewal(record, rules).is_some()
}

/// A third of the TTL after the last renewal, give or take a quarter of that third, so that the
/// tokens of pods that started together are not renewed together. The same for a volume each time:
/// a restart of the agent renews nothing early.
fn renewal(record: &Record, rules: &Lifecycle) -> Option<u64> {
    if record.accessor.is_none()
        || record.lost
        || record.unmanaged.is_some()
        || !record.wishes.renew
    {
        return None;
    }
    let since = record.renewed.unwrap_or(record.created);
    let third = match record.ttl_ms {
        Some(ttl) => ttl / 3,
        None => millis(LEARN_TTL),
    };
    let at = since.boottime + jittered(third, random(record.id)).max(millis(LEAST_PAUSE));
    let too_old = rules
        .max_age
        .is_some_and(|age| at >= record.created.after(age).boottime);
    // One whose TTL is not known might be given a whole period by the renewal that would tell it.
    let too_long = record
        .keep_within
        .is_some_and(|end| record.ttl_ms.is_none_or(|ttl| at + ttl > end.boottime));
    (!too_old && !too_long).then_some(at)
}

/// How long an outage may be that a pod's token of this TTL survives for sure: it is renewed at five
/// twelfths of it at the latest.
#[must_use]
pub fn survives(ttl: Duration) -> Duration {
    ttl * 7 / 12
}

/// Three quarters to five quarters of a time, by a volume's own random number. So many steps that
/// volumes that started together do not meet again.
fn jittered(time: u64, random: u16) -> u64 {
    time * 3 / 4 + time / 2 * u64::from(random) / u64::from(u16::MAX)
}

fn random(id: VolumeId) -> u16 {
    let bytes = id.as_bytes();
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Nine tenths of the wrap TTL: after its end "unwrapped" and "expired" look the same.
fn look(record: &Record, rules: &Lifecycle) -> Option<u64> {
    let wrapping = record.wrapping.as_ref()?;
    if rules.watch_unwrap == WatchUnwrap::Off || wrapping.unwrapped.is_some() {
        return None;
    }
    let ttl = millis(wrapping.ends.since(record.created));
    Some(record.created.boottime + ttl * 9 / 10)
}

fn notice(record: &Record) -> Option<u64> {
    let ends = record
        .ends
        .filter(|_| record.wishes.renew && !record.lost)?;
    let before = NOTICE.min(ends.since(record.created) / 3);
    Some(ends.before(before).boottime)
}

fn payment(record: &Record, rules: &Lifecycle) -> u64 {
    let delay = match record.ended {
        Some(ended) if ended.by_absence => rules.revoke_delay.max(ABSENCE_GRACE),
        _ => rules.revoke_delay,
    };
    let ended = record.ended.map_or(record.created, |ended| ended.at);
    ended.after(delay).boottime
}

/// A full TTL after the token's expiry nothing can be owed for it any more. Its pod may have renewed
/// it until the very end of its volume, so the expiry counts from there.
fn forget(record: &Record) -> u64 {
    let ended = record.ended.map_or(record.created, |ended| ended.at);
    let ttl = record.ttl_ms.map_or(LONGEST_LEASE, Duration::from_millis);
    let expires = ended.after(ttl).max(record.expires.unwrap_or(ended));
    expires.after(ttl).boottime
}

/// When a retry is due after so many failures: 1 s doubling to 5 min, but within half of what a
/// token that expires has left.
fn retry(now: Moment, failures: u32, expires: Option<Moment>) -> u64 {
    let usual = (1000_u64 << failures.min(9)).min(300_000);
    let left = expires
        .map(|expires| millis(expires.since(now)))
        .filter(|left| *left > 0);
    now.boottime + left.map_or(usual, |left| usual.min(left / 2)).max(1000)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::RateLimit;
    use crate::volumes::record::tests::attached;
    use crate::volumes::{Debt, Wrapping};
    use secrecy::SecretString;

    pub(in crate::volumes) const RULES: Lifecycle = Lifecycle {
        revoke: true,
        revoke_delay: Duration::ZERO,
        max_age: None,
        watch_unwrap: WatchUnwrap::Say,
        max_rate: RateLimit {
            interval: Duration::ZERO,
            burst: 1,
        },
    };
    const MADE: u64 = 3_600_000;
    const MINUTE: u64 = 60_000;

    fn wrapped() -> Record {
        let record = attached(0);
        Record {
            wrapping: Some(Wrapping {
                accessor: SecretString::from("wrapping-accessor").into(),
                ends: record.created.after(Duration::from_secs(300)),
                unwrapped: None,
            }),
            ..record
        }
    }

    #[test]
    fn a_token_is_renewed_at_a_jittered_third_of_its_ttl() {
        for (byte, minutes) in [(0, 15), (255, 25)] {
            let at = MADE + minutes * MINUTE;
            assert_eq!(
                next(&attached(byte), &RULES, &Progress::default()),
                Some((at, Task::Renew))
            );
        }
        let renewed = Record {
            renewed: Some(attached(0).created.after(Duration::from_secs(3000))),
            ..attached(0)
        };
        let at = MADE + 50 * MINUTE + 15 * MINUTE;
        assert_eq!(
            next(&renewed, &RULES, &Progress::default()),
            Some((at, Task::Renew))
        );
    }

    #[test]
    fn what_is_not_renewed() {
        let mut unwilling = attached(0);
        unwilling.wishes.renew = false;
        let old = Lifecycle {
            max_age: Some(Duration::from_secs(600)),
            ..RULES
        };
        for (record, rules) in [
            (
                Record {
                    accessor: None,
                    ..attached(0)
                },
                &RULES,
            ),
            (
                Record {
                    lost: true,
                    ..attached(0)
                },
                &RULES,
            ),
            (
                Record {
                    unmanaged: Some("batch".into()),
                    ..attached(0)
                },
                &RULES,
            ),
            (
                Record {
                    keep_within: Some(attached(0).created.after(Duration::from_secs(4000))),
                    ..attached(0)
                },
                &RULES,
            ),
            (unwilling, &RULES),
            (attached(0), &old),
            (
                Record {
                    state: State::Delivered,
                    ..attached(0)
                },
                &RULES,
            ),
        ] {
            assert_eq!(
                next(&record, rules, &Progress::default()),
                None,
                "{record:?}"
            );
        }
    }

    #[test]
    fn an_unknown_ttl_is_learnt_soon() {
        let record = Record {
            ttl_ms: None,
            ..attached(0)
        };
        assert_eq!(
            next(&record, &RULES, &Progress::default()),
            Some((MADE + 7500, Task::Renew))
        );
        let kept_within = Record {
            keep_within: Some(record.created.after(Duration::from_secs(3600))),
            ..record
        };
        assert_eq!(next(&kept_within, &RULES, &Progress::default()), None);
    }

    #[test]
    fn a_wrapping_token_is_looked_at_once_before_its_end() {
        let at = MADE + 270_000;
        assert_eq!(
            next(&wrapped(), &RULES, &Progress::default()),
            Some((at, Task::LookUnwrapped))
        );
        let off = Lifecycle {
            watch_unwrap: WatchUnwrap::Off,
            ..RULES
        };
        assert_eq!(
            next(&wrapped(), &off, &Progress::default()).unwrap().1,
            Task::Renew
        );
        let mut looked = wrapped();
        looked.wrapping.as_mut().unwrap().unwrapped = Some(true);
        assert_eq!(
            next(&looked, &RULES, &Progress::default()).unwrap().1,
            Task::Renew
        );
    }

    #[test]
    fn an_end_is_said_a_day_or_a_third_of_the_life_before() {
        let ends = |hours: u64| Record {
            ends: Some(attached(0).created.after(Duration::from_secs(hours * 3600))),
            accessor: None,
            ..attached(0)
        };
        let hour = 60 * MINUTE;
        assert_eq!(
            next(&ends(3), &RULES, &Progress::default()),
            Some((MADE + 2 * hour, Task::GiveNotice))
        );
        assert_eq!(
            next(&ends(720), &RULES, &Progress::default()),
            Some((MADE + 696 * hour, Task::GiveNotice))
        );
        let noticed = Progress {
            noticed: true,
            ..Progress::default()
        };
        assert_eq!(next(&ends(3), &RULES, &noticed), None);
    }

    #[test]
    fn what_is_owed_is_paid_and_at_last_forgotten() {
        let mut record = wrapped();
        record.end(record.created, false, true);
        assert_eq!(record.owed, [Debt::RevokeWrapping, Debt::Revoke]);
        assert_eq!(
            next(&record, &RULES, &Progress::default()),
            Some((MADE, Task::Pay))
        );
        let later = Lifecycle {
            revoke_delay: Duration::from_secs(30),
            ..RULES
        };
        assert_eq!(
            next(&record, &later, &Progress::default()),
            Some((MADE + 30_000, Task::Pay))
        );
        record.end(record.created, true, true);
        assert_eq!(
            next(&record, &RULES, &Progress::default()),
            Some((MADE + 60_000, Task::Pay))
        );
        assert_eq!(forget(&record), MADE + 120 * MINUTE);
        record.end(record.created.after(Duration::from_secs(3600)), true, true);
        assert_eq!(forget(&record), MADE + 180 * MINUTE);
        record.end(record.created, true, true);
        record.end(record.created, false, false);
        assert_eq!(
            next(&record, &RULES, &Progress::default()),
            Some((0, Task::Forget))
        );
        record.wishes.revoke = false;
        record.end(record.created, false, true);
        assert!(record.owed.is_empty());
    }

    #[test]
    fn a_failed_look_delays_no_renewal() {
        let record = wrapped();
        let mut progress = Progress::default();
        let at = record.created.after(Duration::from_secs(270));
        for before in 0..9 {
            let failures = progress.failed(Task::LookUnwrapped, at, record.expires);
            assert_eq!(failures, before);
        }
        let again = at.boottime + 256_000;
        assert_eq!(
            next(&record, &RULES, &progress),
            Some((again, Task::LookUnwrapped))
        );
        let short = Record {
            ttl_ms: Some(3 * MINUTE * 4 / 3),
            ..record
        };
        assert_eq!(
            next(&short, &RULES, &progress),
            Some((MADE + MINUTE, Task::Renew))
        );
        assert_eq!(progress.succeeded(Task::LookUnwrapped), 9);
        assert_eq!(progress.succeeded(Task::LookUnwrapped), 0);
    }

    /// A right that is missing for months must not leave a journal that only grows.
    #[test]
    fn what_vault_never_takes_is_forgotten_once_the_token_has_expired() {
        let mut record = wrapped();
        record.end(record.created, false, true);
        let mut progress = Progress::default();
        let expired = MADE + 120 * MINUTE;
        let mut now = record.created;
        while let Some((at, Task::Pay)) = next(&record, &RULES, &progress) {
            assert!(at < expired, "{at}");
            now.boottime = at;
            progress.failed(Task::Pay, now, record.expires);
        }
        assert!(now.boottime > expired - 5 * MINUTE - 1000);
        assert_eq!(
            next(&record, &RULES, &progress),
            Some((expired, Task::Forget))
        );
    }

    #[test]
    fn no_ttl_makes_a_busy_loop() {
        let record = Record {
            ttl_ms: Some(0),
            ..attached(0)
        };
        assert_eq!(
            next(&record, &RULES, &Progress::default()),
            Some((MADE + 1000, Task::Renew))
        );
    }

    #[test]
    fn retries_grow_to_five_minutes() {
        let now = Moment {
            boottime: 0,
            wall: 0,
        };
        let waits: Vec<_> = [0, 1, 2, 8, 9, 60]
            .map(|failures| retry(now, failures, None))
            .into();
        assert_eq!(waits, [1000, 2000, 4000, 256_000, 300_000, 300_000]);
        let expires = |seconds| Some(now.after(Duration::from_secs(seconds)));
        assert_eq!(retry(now, 60, expires(100)), 50_000);
        assert_eq!(retry(now, 60, expires(1)), 1000);
        assert_eq!(retry(now, 60, expires(0)), 300_000, "it is over");
    }
}
