//! What happened last, for a person who looks now: Prometheus keeps the history.

use crate::clock;
use crate::line::one_line;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures are told for so long.
pub const LATELY: Duration = Duration::from_secs(3600);

/// So long one count goes on, in milliseconds: an hour has sixty of them.
const MINUTE: u64 = 60_000;

/// So many calls to Vault are remembered.
const MOST_CALLS: usize = 16;

/// A longer message is cut, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// The last calls to Vault that were answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCalls {
    /// How many they are, 16 at most.
    pub count: usize,
    /// How long half of them took at most.
    pub median: Duration,
    /// How long the longest took.
    pub longest: Duration,
    /// How long ago the last was answered.
    pub ago: Duration,
}

/// What failed within [`LATELY`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How often, by reason.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// The last one of which more is known.
    pub newest: Option<Newest>,
}

/// The last failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its reason.
    pub reason: &'static str,
    /// What it was, on one line and bounded.
    pub message: String,
    /// How long ago that was.
    pub ago: Duration,
}

#[derive(Default)]
pub(super) struct Lately(Mutex<Memory>);

/// Moments are milliseconds on `CLOCK_BOOTTIME`.
#[derive(Default)]
struct Memory {
    /// When calls were answered and how long they took, the last first.
    calls: VecDeque<(u64, Duration)>,
    /// Failures by reason, of which there are few, and by minute.
    failures: BTreeMap<&'static str, Minutes>,
    newest: Option<(u64, &'static str, String)>,
}

/// Counts by the minute that they were made in, the last first; none older than [`LATELY`] when a new
/// one came.
#[derive(Default)]
struct Minutes(VecDeque<(u64, u64)>);

impl Lately {
    pub(super) fn answered(&self, took: Duration) {
        let mut memory = self.memory();
        memory.calls.truncate(MOST_CALLS - 1);
        memory.calls.push_front((clock::boottime_ms(), took));
    }

    /// Something failed. Without a message it is only counted.
    pub(super) fn failed(&self, reason: &'static str, message: Option<&str>) {
        let now = clock::boottime_ms();
        let mut memory = self.memory();
        memory.failures.entry(reason).or_default().count(now);
        if let Some(message) = message {
            memory.newest = Some((now, reason, one_line(message, LONGEST_MESSAGE)));
        }
    }

    pub(super) fn last_calls(&self) -> Option<LastCalls> {
        let memory = self.memory();
        let (at, _) = memory.calls.front()?;
        let mut took: Vec<Duration> = memory.calls.iter().map(|(_, took)| *took).collect();
        took.sort();
        Some(LastCalls {
            count: took.len(),
            median: took[(took.len() - 1) / 2],
            longest: took[took.len() - 1],
            ago: since(*at, clock::boottime_ms()),
        })
    }

    pub(super) fn failures(&self) -> Failures {
        self.failures_at(clock::boottime_ms())
    }

    fn failures_at(&self, now: u64) -> Failures {
        let memory = self.memory();
        let counts = memory.failures.iter();
        let by_reason = counts
            .map(|(reason, minutes)| (*reason, minutes.lately(now)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let newest = memory.newest.as_ref().map(|(at, reason, message)| Newest {
            reason,
            message: message.clone(),
            ago: since(*at, now),
        });
        Failures {
            by_reason,
            newest: newest.filter(|newest| newest.ago < LATELY),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minutes {
    fn count(&mut self, now: u64) {
        let minute = now / MINUTE;
        match self.0.front_mut() {
            Some((last, count)) if *last == minute => *count += 1,
            _ => self.0.push_front((minute, 1)),
        }
        self.0.retain(|(minute, _)| is_lately(*minute, now));
    }

    fn lately(&self, now: u64) -> u64 {
        let lately = self.0.iter().filter(|(minute, _)| is_lately(*minute, now));
        lately.map(|(_, count)| count).sum()
    }
}

fn is_lately(minute: u64, now: u64) -> bool {
    now / MINUTE - minute < clock::millis(LATELY) / MINUTE
}

fn since(at: u64, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason_for_an_hour() {
        let lately = Lately::default();
        assert_eq!(lately.failures(), Failures::default());
        for number in 0..5000 {
            lately.failed("sealed", Some(&format!("no {number}\n")));
        }
        lately.failed("renewal", None);
        let failures = lately.failures();
        let expected = BTreeMap::from([("renewal", 1), ("sealed", 5000)]);
        assert_eq!(failures.by_reason, expected);
        let newest = failures.newest.unwrap();
        assert_eq!(
            (newest.reason, newest.message.as_str()),
            ("sealed", "no 4999 ")
        );
        let within = |minutes| lately.failures_at(clock::boottime_ms() + minutes * MINUTE);
        assert_eq!(within(58).by_reason, expected);
        assert_eq!(within(61), Failures::default());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut minutes = Minutes::default();
        for minute in 0..1000 {
            minutes.count(minute * MINUTE);
            minutes.count(minute * MINUTE + 59_999);
        }
        assert_eq!(minutes.0.len(), 60);
        assert_eq!(minutes.lately(999 * MINUTE), 120);
        assert_eq!(minutes.lately(1029 * MINUTE), 60);
        let lately = Lately::default();
        lately.failed("x", Some(&"ä".repeat(5000)));
        let message = lately.failures().newest.unwrap().message;
        assert!(message.len() <= LONGEST_MESSAGE + '…'.len_utf8());
    }

    #[test]
    fn the_last_calls_are_summed_up() {
        let lately = Lately::default();
        assert_eq!(lately.last_calls(), None);
        for took in (1..=20).rev() {
            lately.answered(Duration::from_millis(took));
        }
        let calls = lately.last_calls().unwrap();
        assert_eq!((calls.count, calls.median), (16, Duration::from_millis(8)));
        assert_eq!(calls.longest, Duration::from_millis(16));
        assert!(calls.ago < Duration::from_secs(60));
    }
}
