//! Ctrl-C and its like, for whoever must leave nothing half done.

use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Whether somebody wants this process to end: from the first SIGINT, SIGTERM or SIGHUP on. Work that has a
/// bound is ended by that in the same way.
#[derive(Clone)]
pub struct Interrupt {
    heard: watch::Receiver<bool>,
    until: Option<Instant>,
}

/// Why work is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// Somebody wants this process to end.
    BySomebody,
    /// Its time is over.
    TimeIsOver,
}

impl Interrupt {
    /// Listens from now on, in the runtime of the caller: the signals end nothing by themselves any more.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn listen() -> io::Result<Self> {
        let (tell, heard) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Of a terminal that closes.
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            let _ = tell.send(true);
        });
        let until = None;
        Ok(Self { heard, until })
    }

    /// The same for work that has so long from now.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        Self {
            heard: self.heard.clone(),
            until: Some(Instant::now() + time),
        }
    }

    /// Waits until it comes.
    pub async fn comes(&self) -> Interrupted {
        let mut heard = self.heard.clone();
        let over = async {
            match self.until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            // Where nobody could tell any more, the runtime is about to end.
            _ = heard.wait_for(|heard| *heard) => Interrupted::BySomebody,
            () = over => Interrupted::TimeIsOver,
        }
    }

    /// Refuses to go on once it has come.
    pub fn go_on(&self) -> Result<(), Interrupted> {
        if *self.heard.borrow() {
            Err(Interrupted::BySomebody)
        } else if self.until.is_some_and(|until| Instant::now() >= until) {
            Err(Interrupted::TimeIsOver)
        } else {
            Ok(())
        }
    }

    /// Waits for something that may be dropped when it comes.
    pub async fn unless_it_comes<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        tokio::select! {
            why = self.comes() => Err(why),
            done = work => Ok(done),
        }
    }

    /// Waits for something that had better not be dropped: so long yet once it has come.
    pub async fn with_grace<T>(
        &self,
        grace: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let given_up = async {
            let why = self.comes().await;
            sleep(grace).await;
            why
        };
        tokio::select! {
            why = given_up => Err(why),
            done = work => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_with_a_bound_ends_with_its_time() {
        let interrupt = Interrupt::listen().unwrap();
        let (bound, begun) = (Duration::from_secs(5), Instant::now());
        let bounded = interrupt.within(bound);
        assert_eq!(bounded.unless_it_comes(async { 1 }).await, Ok(1));
        assert_eq!(bounded.go_on(), Ok(()));
        let never = bounded.unless_it_comes(pending::<()>()).await;
        assert_eq!(never, Err(Interrupted::TimeIsOver));
        let took = begun.elapsed();
        assert!(took >= bound && took < bound * 2, "{took:?}");
        assert_eq!(bounded.go_on(), Err(Interrupted::TimeIsOver));
        assert_eq!(interrupt.go_on(), Ok(()));

        let grace = Duration::from_secs(10);
        let soon = async { sleep(grace / 2).await };
        assert_eq!(bounded.with_grace(grace, soon).await, Ok(()));
        let late = async { sleep(grace * 2).await };
        let late = bounded.with_grace(grace, late).await;
        assert_eq!(late, Err(Interrupted::TimeIsOver));
    }
}
