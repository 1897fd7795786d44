//! What the mount table says of the volumes: seen, vanished, shown again.
//!
//! Revoking a living pod's token is the worst that this software can do. So absence ends only a
//! volume that this process would see ([`Volumes::would_be_seen`]), and only after two whole reads; a mass of vanished mounts ends nothing; and what was ended by absence lives again
//! when it shows itself before its revocation.

use super::mounts::{Changes, Sight, Table};
use super::plan::ABSENCE_GRACE;
use super::record::State;
use super::registry::{Registry, SECOND_READ, Volumes};
use crate::clock;
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
            let again = self.compare(&Table::read().await?);
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
    fn compare(&self, table: &Table) -> bool {
        let now = clock::boottime_ms();
        let registry = &mut *self.lock();
        registry.look_around(table);
        self.stirred.notify_one();
        let (mut shown, mut again, mut vanished) = (Vec::new(), false, Vec::new());
        for (&id, known) in &mut registry.known {
            if let Some(sight) = table.sight(id) {
                (known.absent_since, known.doubtful) = (None, false);
                let by_absence = known.record.ended.is_some_and(|ended| ended.by_absence);
                match known.record.state {
                    State::Ended if by_absence => shown.push((id, sight)),
                    State::Delivered => shown.push((id, sight)),
                    State::Attached if !known.record.was_shown(sight.group) => {
                        shown.push((id, sight));
                    }
                    State::Attached | State::Ended => {}
                }
            } else if known.record.state == State::Attached {
                let counts = self.would_be_seen(known, &registry.arrivals, table);
                known.doubtful = !counts;
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
        for (id, sight) in shown {
            self.shown(registry, id, sight);
        }
        self.vanished(registry, &vanished, now);
        again
    }

    /// A volume is in the mount table.
    fn shown(&self, registry: &mut Registry, id: VolumeId, sight: Sight) {
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
            known.record.show(sight.group);
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
                news = true,
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::volumes::mounts::tests::table;
    use crate::volumes::plan::tests::RULES;
    use crate::volumes::record::tests::attached;
    use crate::volumes::{Journal, Origin, Record};
    use std::sync::Arc;
    use tempfile::TempDir;

    /// These volumes, each in a directory of its own.
    pub(in crate::volumes) fn volumes(records: Vec<Record>) -> (TempDir, Volumes) {
        let directory = tempfile::tempdir().unwrap();
        let here = Origin::default();
        let (journal, _) = Journal::open(directory.path(), &here).unwrap();
        let kubelet = directory.path().display();
        let records = records.into_iter().map(|record| Record {
            mount_dir: format!(
                "{kubelet}/pods/{}/volumes/cloudwatt~vaulttmpfs/v",
                record.id
            ),
            ..record
        });
        let volumes = Volumes::new(journal, records.collect(), here, &RULES, Arc::default());
        (directory, volumes)
    }

    /// So many volumes that the mount table has shown.
    fn seen(count: u8) -> (TempDir, Volumes, Vec<VolumeId>) {
        let records: Vec<_> = (0..count).map(attached).collect();
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let (directory, volumes) = volumes(records);
        volumes.compare(&table(&ids, 1));
        (directory, volumes, ids)
    }

    /// A while passes, as far as the volumes can tell.
    pub(in crate::volumes) fn pass(volumes: &Volumes, time: Duration) {
        let time = clock::millis(time);
        let mut registry = volumes.lock();
        for known in registry.known.values_mut() {
            known.absent_since = known.absent_since.map(|at| at - time);
        }
        for at in &mut registry.vanished {
            *at -= time;
        }
    }

    /// Two reads show these and no others.
    fn show(volumes: &Volumes, ids: &[VolumeId]) {
        let mounted = table(ids, 1);
        volumes.compare(&mounted);
        pass(volumes, SECOND_READ);
        volumes.compare(&mounted);
    }

    #[test]
    fn absence_counts_in_two_reads_two_seconds_apart() {
        let (_directory, volumes, ids) = seen(1);
        let (all, none) = (table(&ids, 1), table(&[], 1));
        assert!(!volumes.compare(&all));
        for _ in 0..2 {
            assert!(volumes.compare(&none), "another read is wanted");
            pass(&volumes, SECOND_READ / 2);
        }
        // What shows itself in between begins anew.
        assert!(!volumes.compare(&all));
        pass(&volumes, SECOND_READ);
        assert!(volumes.compare(&none));
        assert_eq!(volumes.lock().state(ids[0]), Some(State::Attached));
        pass(&volumes, SECOND_READ);
        assert!(!volumes.compare(&none));
        assert_eq!(volumes.lock().state(ids[0]), Some(State::Ended));
    }

    #[test]
    fn more_than_ten_and_more_than_half_end_nothing() {
        for (all, gone, held) in [
            (10, 10, false),
            (11, 11, true),
            (12, 10, false),
            (24, 12, false),
            (24, 13, true),
            (60, 30, false),
        ] {
            let (_directory, volumes, ids) = seen(all);
            show(&volumes, &ids[gone..]);
            let registry = volumes.lock();
            assert_eq!(registry.held.is_some(), held, "{gone} of {all}");
            let state = if held { State::Attached } else { State::Ended };
            assert_eq!(registry.state(ids[0]), Some(state), "{gone} of {all}");
        }
    }

    #[test]
    fn those_of_a_minute_count_together() {
        for (minutes, held) in [(0, true), (1, false)] {
            let (_directory, volumes, ids) = seen(16);
            show(&volumes, &ids[8..]);
            assert!(volumes.lock().held.is_none());
            pass(&volumes, minutes * ABSENCE_GRACE);
            show(&volumes, &ids[12..]);
            assert_eq!(
                volumes.lock().held.is_some(),
                held,
                "{minutes} minutes apart"
            );
        }
    }
}
