//! Holding back all revocations: by an admin, or by the agent itself when it doubts its own sight.

use super::record::State;
use super::registry::{Registry, Volumes};
use std::io;

impl Volumes {
    /// Holds all revocations back, over restarts too, until [`Volumes::release`].
    ///
    /// # Errors
    /// The hold cannot be kept over a restart; it holds until then.
    pub fn hold(&self, why: &str) -> io::Result<()> {
        let mut registry = self.lock();
        registry.held = Some(why.to_owned());
        self.stirred.notify_one();
        self.journal.hold(why)
    }

    /// Lets revocations go on. Volumes that vanished meanwhile end with the next look at the mount
    /// table.
    ///
    /// # Errors
    /// The hold will be back after a restart.
    pub fn release(&self) -> io::Result<()> {
        let mut registry = self.lock();
        registry.held = None;
        self.stirred.notify_one();
        registry.vanished.clear();
        let vanished: Vec<_> = registry
            .known
            .values()
            .filter(|known| known.record.state == State::Attached && known.absent_since.is_some())
            .map(|known| known.record.id)
            .collect();
        for id in vanished {
            self.end(&mut registry, id, "unmounted without a call", true);
        }
        drop(registry);
        self.work.notify_waiters();
        self.journal.release()
    }

    pub(super) fn hold_locked(&self, registry: &mut Registry, why: String) {
        if let Err(error) = self.journal.hold(&why) {
            tracing::warn!("the hold will not outlive a restart: {error}");
        }
        registry.held = Some(why);
        self.stirred.notify_one();
    }
}
