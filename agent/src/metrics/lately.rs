//! What happened last, for a person who looks now: Prometheus keeps the history.

use crate::clock;
use crate::failure::Reason;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures are told for so long.
pub const LATELY: Duration = Duration::from_secs(3600);

/// So many failures are remembered, 16 bytes each.
const MOST_FAILURES: usize = 1000;

/// The last call to Vault that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCall {
    /// How long it took.
    pub took: Duration,
    /// How long ago that was.
    pub ago: Duration,
}

#[derive(Default)]
pub(super) struct Lately(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// When it was answered, in milliseconds on `CLOCK_BOOTTIME`, and how long it took.
    answered: Option<(u64, Duration)>,
    /// When mounts failed, in the same, and why; the last first.
    failures: VecDeque<(u64, Reason)>,
}

impl Lately {
    pub(super) fn answered(&self, took: Duration) {
        self.memory().answered = Some((clock::boottime_ms(), took));
    }

    pub(super) fn failed(&self, reason: Reason) {
        let mut memory = self.memory();
        memory.failures.truncate(MOST_FAILURES - 1);
        memory.failures.push_front((clock::boottime_ms(), reason));
    }

    pub(super) fn last_call(&self) -> Option<LastCall> {
        let (at, took) = self.memory().answered?;
        let ago = Duration::from_millis(clock::boottime_ms().saturating_sub(at));
        Some(LastCall { took, ago })
    }

    /// How often each reason there was within [`LATELY`], the latest reason first.
    pub(super) fn failures(&self) -> Vec<(Reason, usize)> {
        let since = clock::boottime_ms().saturating_sub(clock::millis(LATELY));
        let mut counts: Vec<(Reason, usize)> = Vec::new();
        for (_, reason) in self
            .memory()
            .failures
            .iter()
            .take_while(|(at, _)| *at >= since)
        {
            match counts.iter_mut().find(|(known, _)| known == reason) {
                Some((_, count)) => *count += 1,
                None => counts.push((*reason, 1)),
            }
        }
        counts
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason_the_latest_first_and_not_without_bound() {
        let lately = Lately::default();
        assert_eq!((lately.last_call(), lately.failures()), (None, Vec::new()));
        for _ in 0..2 * MOST_FAILURES {
            lately.failed(Reason::VaultSealed);
        }
        lately.failed(Reason::BadOptions);
        let expected = vec![
            (Reason::BadOptions, 1),
            (Reason::VaultSealed, MOST_FAILURES - 1),
        ];
        assert_eq!(lately.failures(), expected);
        // Long ago.
        for (at, _) in lately.memory().failures.iter_mut().skip(1) {
            *at = 0;
        }
        let of_old = clock::boottime_ms() > clock::millis(LATELY);
        assert_eq!(lately.failures().len(), if of_old { 1 } else { 2 });
    }

    #[test]
    fn the_last_call_is_remembered() {
        let lately = Lately::default();
        lately.answered(Duration::from_millis(7));
        let last = lately.last_call().unwrap();
        assert_eq!(last.took, Duration::from_millis(7));
        assert!(last.ago < Duration::from_secs(60));
    }
}
