//! How often strangers may have something done: the one thread that serves them serves the mounts, too.

use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Lets through first come, first served, and one at a time at least so far apart.
pub(super) struct Pace {
    apart: Duration,
    /// When the next may come.
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(apart: Duration) -> Self {
        Self {
            apart,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for its turn. Who comes alone does not wait.
    pub(super) async fn turn(&self) {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + self.apart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_crowd_waits_and_who_comes_alone_does_not() {
        let begun = Instant::now();
        let pace = Arc::new(Pace::new(Duration::from_secs(1)));
        pace.turn().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let crowd: Vec<_> = (0..9)
            .map(|_| {
                let pace = Arc::clone(&pace);
                tokio::spawn(async move { pace.turn().await })
            })
            .collect();
        for one in crowd {
            one.await.unwrap();
        }
        assert_eq!(begun.elapsed().as_secs(), 9);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let alone = Instant::now();
        pace.turn().await;
        assert_eq!(alone.elapsed(), Duration::ZERO);
    }
}
