//! How long the generator token lives, and when it is renewed: no clock and no call in here.

use super::calls::{Generator, Renewal};
use crate::clock::millis;
use std::time::Duration;

/// The pauses between failed renewals: the first, and the longest.
const RETRIES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Vault counts in whole seconds: moments this close are the same.
pub(crate) const SAME_MS: u64 = 1500;

/// Closer to its end than this a token is not worth more haste.
const SHORTEST_RETRY: Duration = Duration::from_millis(200);

/// The generator token's life. Moments are milliseconds on `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When the token ends; nothing where it never does.
    pub expires: Option<u64>,
    /// When it is renewed next; nothing where it cannot be.
    pub due: Option<u64>,
    /// Its period in seconds, where it has one, as Vault granted it last.
    pub period: Option<u64>,
    /// Why the last renewal failed.
    pub trouble: Option<String>,
    failures: u32,
    random: u8,
    /// Its renewals give it less and less at its end, whatever its period.
    bounded: bool,
}

impl Lease {
    /// What a look-up tells. A periodic token's last renewal is known by what is left of its
    /// period, so that a new session renews nothing early.
    #[must_use]
    pub fn of(generator: &Generator, now: u64, random: u8) -> Self {
        let left = Duration::from_secs(generator.ttl);
        let whole = Duration::from_secs(generator.period).max(left);
        let mut lease = Self {
            expires: None,
            due: None,
            period: Some(generator.period).filter(|period| *period > 0),
            trouble: None,
            failures: 0,
            random,
            bounded: generator.explicit_max_ttl > 0,
        };
        let begun = now.saturating_sub(millis(whole.saturating_sub(left)));
        lease.begin(begun, whole, generator.renewable);
        lease
    }

    /// Vault has renewed it.
    pub fn renewed(&mut self, renewal: Renewal, now: u64) {
        self.failures = 0;
        self.trouble = None;
        // A role's explicit max TTL shows in no look-up, but here: less, and the end where it was.
        let unmoved = self
            .expires
            .is_some_and(|end| end.abs_diff(now + millis(renewal.ttl)) <= SAME_MS);
        self.bounded |= unmoved && self.period > Some(renewal.ttl.as_secs());
        if !self.bounded {
            self.period = self.period.map(|_| renewal.ttl.as_secs());
        }
        self.begin(now, renewal.ttl, renewal.renewable);
    }

    /// Vault was asked what it has left.
    pub(super) fn looked(&mut self, generator: &Generator, now: u64) {
        let left = millis(Duration::from_secs(generator.ttl.max(1)));
        self.expires = self.expires.map(|_| now + left);
    }

    /// When there is something to be done about it next: its renewal, or else a look at its end.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.or(self.expires)
    }

    /// Puts the renewal off: pauses double, but stay below a tenth of what is left to live. Past its end
    /// a token is worth no haste.
    pub(super) fn failed(&mut self, why: String, now: u64) {
        let usual = RETRIES.0 * 2_u32.pow(self.failures.min(10));
        let usual = millis(usual.min(RETRIES.1));
        let pause = match self.expires.map(|end| end.saturating_sub(now)) {
            Some(left) if left > 0 => usual.min(left / 10).max(millis(SHORTEST_RETRY)),
            _ => usual,
        };
        self.due = Some(now.saturating_add(pause));
        self.failures += 1;
        self.trouble = Some(why);
    }

    /// Vault will never renew it.
    pub(super) fn final_failure(&mut self, why: String) {
        self.due = None;
        self.trouble = Some(why);
    }

    fn begin(&mut self, begun: u64, whole: Duration, renewable: bool) {
        let lives = !whole.is_zero();
        self.expires = lives.then(|| begun + millis(whole));
        self.due = (lives && renewable).then(|| begun + jittered(millis(whole) / 3, self.random));
    }
}

/// How long an outage may be that a token of this period survives for sure: it is renewed at a third.
pub(super) fn survives(period: Duration) -> Duration {
    period * 2 / 3
}

/// Three quarters to all of a time: tokens of nodes that started together are not renewed together,
/// and none later than its third.
pub(super) fn jittered(time: u64, random: u8) -> u64 {
    time * 3 / 4 + time / 4 * u64::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn token(ttl: u64, period: u64, renewable: bool) -> Generator {
        Generator {
            ttl,
            period,
            renewable,
            ..Generator::default()
        }
    }

    #[test]
    fn a_periodic_token_is_renewed_at_a_third_of_its_period() {
        let now = 1_000_000_000;
        let lease = Lease::of(&token(24 * HOUR, 24 * HOUR, true), now, 255);
        assert_eq!(lease.due, Some(now + 8 * HOUR * 1000));
        let survived = survives(Duration::from_secs(24 * HOUR));
        assert_eq!(survived, Duration::from_secs(16 * HOUR));
        let early = Lease::of(&token(24 * HOUR, 24 * HOUR, true), now, 0);
        assert_eq!(early.due, Some(now + 6 * HOUR * 1000));
        let later = Lease::of(&token(20 * HOUR, 24 * HOUR, true), now, 255);
        assert_eq!(later.due, Some(now + 4 * HOUR * 1000));
        let late = Lease::of(&token(HOUR, 24 * HOUR, true), now, 255);
        assert!(late.due < Some(now) && late.expires == Some(now + HOUR * 1000));
    }

    #[test]
    fn what_cannot_be_renewed_is_not() {
        assert_eq!(Lease::of(&token(HOUR, 0, false), 5, 0).due, None);
        let root = Lease::of(&token(0, 0, false), 5, 0);
        assert_eq!((root.due, root.expires), (None, None));
    }

    #[test]
    fn retries_grow_and_stay_below_a_tenth_of_what_is_left() {
        let now = 1_000_000_000;
        let mut lease = Lease::of(&token(HOUR, HOUR, true), now, 255);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            lease.failed("no".into(), now);
            pauses.push(lease.due.map_or(0, |due| due - now) / 1000);
        }
        assert_eq!(pauses[..4], [1, 2, 4, 8]);
        assert_eq!(pauses[11], 300);
        lease.failed("no".into(), now + 3_590_000);
        assert_eq!(lease.due, Some(now + 3_590_000 + 1000));
        lease.failed("no".into(), now + 3_599_900);
        assert_eq!(lease.due, Some(now + 3_599_900 + 200));
        lease.failed("no".into(), now + 3_700_000);
        assert_eq!(lease.due, Some(now + 3_700_000 + 300_000));
        let renewal = Renewal {
            ttl: Duration::from_secs(HOUR),
            renewable: true,
        };
        lease.renewed(renewal, now);
        assert_eq!(lease.due, Some(now + HOUR * 1000 / 3));
        assert_eq!(lease.trouble, None);
    }

    #[test]
    fn what_is_not_renewed_is_looked_at_when_it_ends() {
        let mut lease = Lease::of(&token(HOUR, HOUR, true), 5, 255);
        assert_eq!(lease.next(), lease.due);
        lease.final_failure("no".into());
        let end = 5 + HOUR * 1000;
        assert_eq!(lease.next(), Some(end));
        // Vault counts in whole seconds: the last one shows as none.
        lease.looked(&token(0, HOUR, true), end);
        assert_eq!(lease.next(), Some(end + 1000));
        let root = Lease::of(&token(0, 0, false), 5, 0);
        assert_eq!(root.next(), None);
    }

    #[test]
    fn the_period_is_what_a_renewal_gives_but_at_an_explicit_end() {
        let renewal = Renewal {
            ttl: Duration::from_secs(HOUR),
            renewable: true,
        };
        for (period, explicit_max_ttl, expected) in [
            (24 * HOUR, 0, Some(HOUR)),
            (24 * HOUR, 48 * HOUR, Some(24 * HOUR)),
            (0, 0, None),
        ] {
            let generator = Generator {
                explicit_max_ttl,
                ..token(24 * HOUR, period, true)
            };
            let mut lease = Lease::of(&generator, 0, 0);
            lease.renewed(renewal, 0);
            assert_eq!(lease.period, expected, "{period} {explicit_max_ttl}");
        }
        let mut by_role = Lease::of(&token(HOUR, HOUR, true), 0, 0);
        for at in [20, 30, 40] {
            let ttl = Duration::from_secs(HOUR - at * 60);
            by_role.renewed(Renewal { ttl, ..renewal }, at * 60_000);
            assert_eq!(by_role.period, Some(HOUR), "its role's explicit max TTL");
        }
    }
}
