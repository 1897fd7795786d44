//! How many calls are in flight at once, and how many a second.

use crate::config::RateLimit;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Calls to Vault in flight at once. One more waits its turn: the semaphore's queue is fair.
pub(super) const IN_FLIGHT: usize = 16;

/// Lets calls through to Vault, first come, first served.
pub(super) struct Gate {
    places: Semaphore,
    rate: Option<Mutex<Bucket>>,
}

/// A token bucket in its simplest form: the moment at which it is full again.
struct Bucket {
    interval: Duration,
    depth: Duration,
    full_at: Instant,
}

impl Gate {
    pub(super) fn new(rate: Option<&RateLimit>) -> Self {
        let bucket = |limit: &RateLimit| {
            Mutex::new(Bucket {
                interval: limit.interval,
                depth: limit.interval * limit.burst.saturating_sub(1),
                full_at: Instant::now(),
            })
        };
        Self {
            places: Semaphore::new(IN_FLIGHT),
            rate: rate.map(bucket),
        }
    }

    /// Waits for a place, and for the rate's leave. The place is held until the permit is dropped.
    pub(super) async fn enter(&self) -> SemaphorePermit<'_> {
        #[expect(clippy::expect_used, reason = "the semaphore is never closed")]
        let permit = self.places.acquire().await.expect("the gate is open");
        if let Some(bucket) = &self.rate {
            let mut bucket = bucket.lock().await;
            let start = bucket.full_at.max(Instant::now());
            tokio::time::sleep_until(start.checked_sub(bucket.depth).unwrap_or(start)).await;
            bucket.full_at = start + bucket.interval;
        }
        permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_after_its_burst() {
        let gate = Gate::new(Some(&RateLimit {
            interval: Duration::from_millis(100),
            burst: 3,
        }));
        let start = Instant::now();
        for _ in 0..3 {
            drop(gate.enter().await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            drop(gate.enter().await);
        }
        assert!(
            start.elapsed() >= Duration::from_millis(990),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded() {
        let gate = Gate::new(None);
        let mut held = Vec::new();
        for _ in 0..IN_FLIGHT {
            held.push(gate.enter().await);
        }
        let wait = Duration::from_secs(5);
        assert!(tokio::time::timeout(wait, gate.enter()).await.is_err());
        held.pop();
        assert!(tokio::time::timeout(wait, gate.enter()).await.is_ok());
    }
}
