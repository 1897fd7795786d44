//! Holding back all revocations: by an admin, or by the agent itself when it doubts its own sight.

use super::record::State;
use super::registry::{Registry, Volumes};

impl Volumes {
    /// Holds all revocations back, over restarts too, until [`Volumes::release`].
    pub fn hold(&self, why: &str) {
        self.hold_locked(&mut self.lock(), why.to_owned());
    }

    pub(super) fn hold_locked(&self, registry: &mut Registry, why: String) {
        if let Err(error) = self.journal.hold(&why) {
            tracing::warn!("the hold will not outlive a restart: {error}");
        }
        registry.held = Some(why);
        self.stirred.notify_one();
    }

    /// Lets revocations go on. All volumes that the mount table does not show count as ended now, also
    /// those whose absence means nothing to this process by itself: returns how many these are. Volumes
    /// that vanished meanwhile end with the next look at the mount table.
    pub fn release(&self) -> usize {
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
        for &id in &vanished {
            self.end(&mut registry, id, "unmounted without a call", true);
        }
        drop(registry);
        self.work.notify_waiters();
        if let Err(error) = self.journal.release() {
            tracing::warn!("the hold will be back after a restart: {error}");
        }
        vanished.len()
    }
}
