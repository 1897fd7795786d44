//! Waiting for what comes about by itself, with a bound instead of a sleep.

use std::time::{Duration, Instant};

/// How long something may take on a busy machine before it counts as not coming.
const PATIENCE: Duration = Duration::from_secs(60);

/// In this time the token of a volume that a driver unmounted is revoked. A driver tells of it for half a
/// second: an agent that is later goes by the volume's absence, and leaves it alone for a minute.
pub const AFTER_UNMOUNT: Duration = Duration::from_secs(120);

/// Returns what `look` finds as soon as it finds something; fails the test, with what was waited
/// for, when that takes longer than a busy machine explains.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// [`eventually`] with a bound of the caller's.
#[track_caller]
pub fn eventually_within<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < bound, "waited {bound:?} in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
