//! Ctrl-C and its like, for whoever must leave nothing half done.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether somebody wants this process to end: from the first SIGINT, SIGTERM or SIGHUP on.
#[derive(Clone)]
pub struct Interrupt(watch::Receiver<bool>);

/// Somebody wants this process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

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
        Ok(Self(heard))
    }

    /// Waits until it comes.
    pub async fn comes(&self) {
        // Where nobody could tell any more, the runtime is about to end.
        let _ = self.0.clone().wait_for(|heard| *heard).await;
    }

    /// Refuses to go on once it has come.
    pub fn go_on(&self) -> Result<(), Interrupted> {
        if *self.0.borrow() {
            Err(Interrupted)
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
            () = self.comes() => Err(Interrupted),
            done = work => Ok(done),
        }
    }
}
