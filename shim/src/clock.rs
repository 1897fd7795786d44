//! Time as the agent counts it: milliseconds on `CLOCK_BOOTTIME`, which goes on while the machine
//! sleeps.

use nix::time::{ClockId, clock_gettime};
use std::thread::sleep;
use std::time::Duration;

/// Milliseconds on `CLOCK_BOOTTIME`.
pub(crate) fn boottime() -> u64 {
    // The clock is there since Linux 2.6.39; were it not, everything would be late and fail.
    let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        return u64::MAX;
    };
    Duration::from(now)
        .as_millis()
        .try_into()
        .unwrap_or(u64::MAX)
}

/// A moment by which something must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// That long from now, to the millisecond.
    #[must_use]
    pub fn after(bound: Duration) -> Self {
        let bound = bound.as_millis().try_into().unwrap_or(u64::MAX);
        Self(boottime().saturating_add(bound))
    }

    /// What is left until then, or nothing once it has passed.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        match self.0.saturating_sub(boottime()) {
            0 => None,
            left => Some(Duration::from_millis(left)),
        }
    }

    /// Waits that long, but not past the moment; false if nothing is left after it.
    pub(crate) fn pause(self, time: Duration) -> bool {
        match self.left() {
            Some(left) if left > time => {
                sleep(time);
                true
            }
            _ => false,
        }
    }
}
