//! What the mount table says of the volumes: seen, vanished, shown again.
//!
//! Revoking a living pod's token is the worst that this software can do. So absence ends only a
//! volume that this process would see, as it sees others of its mount namespace, and only after two
//! whole reads; a mass of vanished mounts ends nothing; and what was ended by absence lives again
//! when it shows itself before its revocation.

use super::mounts::{self, Changes};
use super::plan::ABSENCE_GRACE;
use super::record::State;
use super::registry::{Registry, SECOND_READ, Volumes};
use crate::clock;
use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;

/// Changes of the mount table are coalesced to one read in this time.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// How soon a mount table that cannot be read or listened to is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// So many volumes may vanish within [`ABSENCE_GRACE`] without a doubt about the agent's own sight,
/// or half of all, whichever is more.
const MANY: usize = 10;

impl Volumes {
    /// Follows the mount table.
    pub(super) async fn watch(&self) -> Infallible {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!("the mount table cannot be followed: {error}");
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn follow(&self) -> std::io::Result<()> {
        let changes = Changes::listen()?;
        loop {
            let again = self.compare(&mounts::mounted().await?);
            if again {
                tokio::time::sleep(SECOND_READ).await;
            } else {
                tokio::time::sleep(READ_PAUSE).await;
                changes.next().await?;
            }
        }
    }

    /// Compares the volumes with a whole read of the mount table. Returns whether a second read is
    /// wanted.
    fn compare(&self, mounted: &HashSet<VolumeId>) -> bool {
        let now = clock::boottime_ms();
        let mut registry = self.lock();
        registry.look_around(mounted);
        self.stirred.notify_one();
        let sighted = registry.sighted.clone();
        let (mut shown, mut again, mut vanished) = (Vec::new(), false, Vec::new());
        for (&id, known) in &mut registry.known {
            if mounted.contains(&id) {
                known.absent_since = None;
                let by_absence = known.record.ended.is_some_and(|ended| ended.by_absence);
                match known.record.state {
                    State::Ended if by_absence => shown.push(id),
                    State::Delivered => shown.push(id),
                    State::Attached if !known.record.seen => shown.push(id),
                    State::Attached | State::Ended => {}
                }
            } else if known.record.state == State::Attached {
                let counts = self.would_be_seen(known, &sighted);
                // Without a meaning it is noted all the same where it was seen before: an admin may
                // say what it means.
                let missing = (counts || known.record.seen) && known.is_missing(now);
                match (counts, missing) {
                    (true, true) => vanished.push(id),
                    (true, false) => again = true,
                    (false, _) => {}
                }
            }
        }
        for id in shown {
            self.shown(&mut registry, id);
        }
        self.vanished(&mut registry, &vanished, now);
        again
    }

    /// A volume is in the mount table.
    fn shown(&self, registry: &mut Registry, id: VolumeId) {
        let ended = registry.state(id) == Some(State::Ended);
        if ended && !registry.reclaim(id) {
            return;
        }
        if let Some(known) = registry.known.get_mut(&id) {
            if ended {
                tracing::warn!(volume = %id, "{}: mounted all the same, so it lives on", known.record.name());
                known.record.revive();
            }
            known.record.state = State::Attached;
            known.record.seen = true;
        }
        // A failure is on the agenda.
        let _ = self.write(registry, id);
    }

    /// Volumes are gone from the mount table without an unmount call.
    fn vanished(&self, registry: &mut Registry, ids: &[VolumeId], now: u64) {
        if ids.is_empty() || registry.held.is_some() {
            return;
        }
        let window = clock::millis(ABSENCE_GRACE);
        registry.vanished.retain(|at| now - at < window);
        let gone = registry.vanished.len() + ids.len();
        let all = registry.live_count() + registry.vanished.len();
        if gone > MANY && gone > all / 2 {
            let why =
                format!("{gone} of {all} volumes vanished within a minute without an unmount call");
            tracing::error!(
                "{why}: nothing is revoked until an admin says so: `vaulttmpfs revocations release`"
            );
            self.hold_locked(registry, why);
            return;
        }
        for &id in ids {
            registry.vanished.push(now);
            self.end(registry, id, "unmounted without a call", true);
        }
    }
}
