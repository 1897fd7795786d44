//! The two clocks: `CLOCK_BOOTTIME` for everything within a boot, wall time for what outlives one.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since boot, time asleep included. Steps of the wall clock do not change it.
#[must_use]
pub fn boottime_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| millis(Duration::from(now)))
}

/// Milliseconds since 1970, UTC.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A moment on both clocks. Within the boot that it was taken in, only `boottime` counts, so that
/// steps of the wall clock change nothing; `wall` carries it over to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds on `CLOCK_BOOTTIME`.
    pub boottime: u64,
    /// Milliseconds since 1970, UTC.
    pub wall: u64,
}

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self {
            boottime: boottime_ms(),
            wall: wall_ms(),
        }
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        let later = millis(later);
        Self {
            boottime: self.boottime.saturating_add(later),
            wall: self.wall.saturating_add(later),
        }
    }

    /// The moment so much earlier, at boot at the earliest.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Self {
        let earlier = millis(earlier);
        Self {
            boottime: self.boottime.saturating_sub(earlier),
            wall: self.wall.saturating_sub(earlier),
        }
    }

    /// How long from `earlier` to this one, within one boot.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.boottime.saturating_sub(earlier.boottime))
    }

    /// A moment of an earlier boot, as this boot counts. What lies before this boot is its begin.
    #[must_use]
    pub fn carried_over(self, now: Self) -> Self {
        let boottime = if self.wall >= now.wall {
            now.boottime.saturating_add(self.wall - now.wall)
        } else {
            now.boottime.saturating_sub(now.wall - self.wall)
        };
        Self { boottime, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_carried_over_a_reboot_by_the_wall_clock() {
        let (at, hour) = (
            Moment {
                boottime: 50_000_000,
                wall: 1_000_000_000,
            },
            Duration::from_secs(3600),
        );
        let now = Moment {
            boottime: 5_000,
            wall: 1_000_060_000,
        };
        assert_eq!(at.carried_over(now).boottime, 0);
        let later = at.after(hour).carried_over(now);
        assert_eq!(later.since(now), Duration::from_secs(3540));
        assert_eq!(later.before(hour).boottime, 0);
    }
}
