//! How many calls are in flight at once, and how many a second.

use crate::config::RateLimit;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

/// Calls to Vault in flight at once, sixteen with the one of the session's keeper. One more waits its
/// turn: the semaphore's queue is fair.
pub(super) const IN_FLIGHT: usize = 15;

/// Of these, calls that no pod waits for.
const IN_BACKGROUND: usize = 4;

/// Lets calls through to Vault, first come, first served; those that no pod waits for after those
/// that one does.
pub(super) struct Gate {
    places: Semaphore,
    rate: Option<Mutex<Bucket>>,
    background: Semaphore,
    background_rate: Mutex<Bucket>,
    /// Calls that a pod waits for and that have no place yet.
    waiting: watch::Sender<usize>,
}

/// A place in the gate, and one of the background's where it is background work.
pub(super) struct Place<'a> {
    _place: SemaphorePermit<'a>,
    _background: Option<SemaphorePermit<'a>>,
}

/// A token bucket in its simplest form: the moment at which it is full again.
struct Bucket {
    interval: Duration,
    depth: Duration,
    full_at: Instant,
}

impl Gate {
    pub(super) fn new(rate: Option<&RateLimit>, background_rate: &RateLimit) -> Self {
        Self {
            places: Semaphore::new(IN_FLIGHT),
            rate: rate.map(|rate| Mutex::new(Bucket::new(rate))),
            background: Semaphore::new(IN_BACKGROUND),
            background_rate: Mutex::new(Bucket::new(background_rate)),
            waiting: watch::Sender::new(0),
        }
    }

    /// Waits for a place, and for the rate's leave. The place is held until it is dropped.
    pub(super) async fn enter(&self) -> Place<'_> {
        let waiting = Waiting::one(&self.waiting);
        let place = acquire(&self.places).await;
        drop(waiting);
        if let Some(rate) = &self.rate {
            rate.lock().await.leave().await;
        }
        Place {
            _place: place,
            _background: None,
        }
    }

    /// The same for work that no pod waits for: it has a rate of its own, and steps back while a
    /// mount waits for a place.
    pub(super) async fn enter_in_background(&self) -> Place<'_> {
        let background = acquire(&self.background).await;
        self.background_rate.lock().await.leave().await;
        let mut waiting = self.waiting.subscribe();
        // The sender is our own: it is never gone.
        let _ = waiting.wait_for(|waiting| *waiting == 0).await;
        Place {
            _background: Some(background),
            ..self.enter().await
        }
    }

    /// Lets no background work in for this time, but what has its leave already.
    pub(super) async fn pause_background(&self, pause: Duration) {
        self.background_rate.lock().await.pause(pause);
    }
}

/// One call more that waits, until dropped: a mount may give up waiting.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn one(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Bucket {
    fn new(limit: &RateLimit) -> Self {
        Self {
            interval: limit.interval,
            depth: limit.interval * limit.burst.saturating_sub(1),
            full_at: Instant::now(),
        }
    }

    async fn leave(&mut self) {
        let start = self.full_at.max(Instant::now());
        tokio::time::sleep_until(start.checked_sub(self.depth).unwrap_or(start)).await;
        self.full_at = start + self.interval;
    }

    /// Gives no leave for this time, and no burst after it.
    fn pause(&mut self, pause: Duration) {
        self.full_at = self.full_at.max(Instant::now() + pause + self.depth);
    }
}

#[expect(clippy::expect_used, reason = "the semaphores are never closed")]
async fn acquire(places: &Semaphore) -> SemaphorePermit<'_> {
    places.acquire().await.expect("the gate is open")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: RateLimit = RateLimit {
        interval: Duration::from_millis(100),
        burst: 3,
    };

    #[tokio::test(start_paused = true)]
    async fn background_work_steps_back_for_mounts() {
        let gate = Gate::new(None, &TEN_A_SECOND);
        let mut held = Vec::new();
        for _ in 0..IN_FLIGHT {
            held.push(gate.enter().await);
        }
        let mut mount = Box::pin(gate.enter());
        let mut background = Box::pin(gate.enter_in_background());
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, &mut mount).await.is_err());
        assert!(tokio::time::timeout(wait, &mut background).await.is_err());
        held.pop();
        assert!(tokio::time::timeout(wait, &mut background).await.is_err());
        assert!(tokio::time::timeout(wait, &mut mount).await.is_ok());
        held.pop();
        assert!(tokio::time::timeout(wait, &mut background).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_after_its_burst() {
        let gate = Gate::new(Some(&TEN_A_SECOND), &TEN_A_SECOND);
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
    async fn a_pause_is_kept_and_no_burst_follows() {
        let gate = Gate::new(None, &TEN_A_SECOND);
        gate.pause_background(Duration::from_secs(5)).await;
        let start = Instant::now();
        drop(gate.enter().await);
        assert_eq!(start.elapsed(), Duration::ZERO, "a mount does not wait");
        for waited in [5000, 5100, 5200] {
            drop(gate.enter_in_background().await);
            assert_eq!(start.elapsed().as_millis(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded() {
        let gate = Gate::new(None, &TEN_A_SECOND);
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
