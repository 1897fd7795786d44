//! What comes due: volumes that nobody reported on are settled, tasks at Vault are handed to the
//! workers, records that could not be written are written.
//!
//! A shim that was killed, or hung up without a word, may have attached its volume or not. The mount
//! table tells, once the shim is surely gone.

use super::mounts::Table;
use super::plan::Task;
use super::record::{Record, State};
use super::registry::{Registry, SECOND_READ, Volumes, whence};
use crate::{clock, timer};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::convert::Infallible;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;

/// Looks at what is due are at least this far apart.
const PAUSE: Duration = Duration::from_millis(100);

/// How soon a volume is looked at again that nothing is known of.
const NO_SIGN: Duration = Duration::from_secs(60);

/// How long after a mount table that could not be read the next one is tried.
const BLIND_PAUSE: Duration = Duration::from_secs(5);

/// Lost tokens are said together when they come within this time.
const NEWS_PAUSE: Duration = Duration::from_secs(2);

/// So many of these pauses at most.
const NEWS_PATIENCE: usize = 60;

/// More lost tokens than these are one event.
const LOST_ONE_BY_ONE: usize = 3;

impl Volumes {
    /// Looks at what is due, when it is due, and sleeps in between.
    pub(super) async fn settle(&self) -> Infallible {
        loop {
            self.until_due().await;
            let doubtful = self.due();
            if !doubtful.is_empty() {
                match Table::read().await {
                    Ok(table) => self.judge(&doubtful, &table),
                    Err(error) => self.put_off(&doubtful, &error),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn until_due(&self) {
        loop {
            let first = self.lock().agenda.first();
            let now = clock::boottime_ms();
            match first {
                Some(at) if at <= now => return,
                Some(at) => tokio::select! {
                    () = timer::sleep_until(at) => return,
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Looks at what is due. Returns the delivered volumes whose shim is surely gone: it has hung
    /// up and has no process any more, or its time to attach is over.
    fn due(&self) -> Vec<VolumeId> {
        let now = clock::boottime_ms();
        let mut registry = self.lock();
        let mut doubtful = Vec::new();
        while let Some((id, task)) = registry.agenda.take_due(now) {
            if registry.unwritten.contains(&id) {
                // A failure is on the agenda; what is due at Vault does not wait for the disk.
                let _ = self.write(&mut registry, id);
            }
            match task {
                Some(Task::GiveNotice) => self.give_notice(&mut registry, id),
                Some(Task::Forget) => self.forget(&mut registry, id),
                Some(task) => self.hand_over(&mut registry, id, task),
                None if registry.is_doubtful(id, now) => doubtful.push(id),
                None => self.plan(&mut registry, id),
            }
        }
        doubtful
    }

    fn hand_over(&self, registry: &mut Registry, id: VolumeId, task: Task) {
        let Some(known) = registry.known.get(&id) else {
            return;
        };
        // After an outage the token goes first that expires first; before all, one of which nobody
        // knows when.
        let record = &known.record;
        let urgency = record.expires.unwrap_or(record.created).boottime;
        registry.agenda.ready(id, task, urgency);
        self.work.notify_one();
    }

    /// Judges volumes that are mounted or will never be. Absence counts in two whole reads, and only
    /// where this process would see the volume; else it waits for the next sign.
    fn judge(&self, doubtful: &[VolumeId], table: &Table) {
        let now = clock::boottime_ms();
        let registry = &mut *self.lock();
        registry.look_around(table);
        self.stirred.notify_one();
        for &id in doubtful {
            let Some(known) = registry.known.get_mut(&id) else {
                continue;
            };
            if known.record.state != State::Delivered {
                continue;
            }
            if let Some(sight) = table.sight(id) {
                known.record.state = State::Attached;
                known.record.show(sight.group);
                // A failure is on the agenda.
                let _ = self.write(registry, id);
                continue;
            }
            let missed_before = known.is_missing(now);
            let counts = self.would_be_seen(known, &registry.arrivals, table);
            if counts && missed_before {
                self.end(registry, id, "it was never attached", false);
            } else {
                known.settle_at = now + clock::millis(if counts { SECOND_READ } else { NO_SIGN });
                self.plan(registry, id);
            }
        }
    }

    /// Nothing is ended by an agent that cannot see.
    fn put_off(&self, doubtful: &[VolumeId], error: &std::io::Error) {
        tracing::warn!("the mount table cannot be read: {error}");
        let again = clock::boottime_ms() + clock::millis(BLIND_PAUSE);
        let mut registry = self.lock();
        for &id in doubtful {
            if let Some(known) = registry.known.get_mut(&id) {
                known.settle_at = again;
            }
            self.plan(&mut registry, id);
        }
    }

    fn give_notice(&self, registry: &mut Registry, id: VolumeId) {
        if let Some(known) = registry.known.get_mut(&id) {
            known.progress.noticed = true;
            say_end(&known.record);
        }
        self.plan(registry, id);
    }

    fn forget(&self, registry: &mut Registry, id: VolumeId) {
        if let Some(known) = registry.known.get_mut(&id) {
            if !known.record.owed.is_empty() {
                tracing::warn!(volume = %id, "{}: forgotten with its revocation owed: the token has expired long since", known.record.name());
            }
            known.record.owed.clear();
        }
        // A failure is on the agenda.
        let _ = self.write(registry, id);
    }

    /// Says which tokens Vault has lost, many of them as one event.
    pub(super) async fn tell_losses(&self) -> Infallible {
        loop {
            self.losses.notified().await;
            // The others are being looked for.
            for _ in 0..NEWS_PATIENCE {
                tokio::time::sleep(NEWS_PAUSE).await;
                if !self.lock().known.values().any(|known| known.hurry) {
                    break;
                }
            }
            let lost = std::mem::take(&mut self.lock().lost);
            if lost.len() > LOST_ONE_BY_ONE {
                tracing::error!(
                    "Vault has lost {} tokens of living volumes: was it restored from a backup? Their pods need new ones: restart them; `vaulttmpfs volumes --state lost` names them",
                    lost.len()
                );
            } else {
                for name in lost {
                    tracing::error!(
                        "{name}: Vault does not know its token any more: restart the pod, it gets a new one"
                    );
                }
            }
        }
    }
}

impl Registry {
    /// Is this a delivered volume whose shim is surely gone? One whose shim may yet attach it is put
    /// off.
    fn is_doubtful(&mut self, id: VolumeId, now: u64) -> bool {
        let Some(known) = self.known.get_mut(&id) else {
            return false;
        };
        if known.record.state != State::Delivered || known.settle_at > now {
            return false;
        }
        let last_look = known.last_look();
        match &mut known.hung_up {
            Some((pid, wait)) if now < last_look && !is_gone(*pid) => {
                *wait *= 2;
                known.settle_at = (now + clock::millis(*wait)).min(last_look);
                false
            }
            _ => true,
        }
    }

    /// What a whole read of the mount table shows.
    pub(super) fn look_around(&mut self, table: &Table) {
        let copied = !std::mem::replace(&mut self.has_read, true);
        self.strangers = 0;
        for id in table.volumes() {
            let Some(known) = self.known.get_mut(&id) else {
                let strange = !self.asked(&id) && !self.gone.contains(&id);
                self.strangers += usize::from(strange);
                continue;
            };
            let has_arrived = !known.shown && !copied;
            known.shown = true;
            if has_arrived
                && let (Some(whence), Some(sight)) = (whence(&known.record), table.sight(id))
            {
                self.arrivals.insert(whence, sight.group);
            }
        }
    }
}

fn say_end(record: &Record) {
    let Some(ends) = record.ends else {
        return;
    };
    let left = ends.since(clock::Moment::now());
    tracing::warn!(volume = %record.id, "{}: its token ends in {} by its explicit max TTL, renewed or not: restart the pod before that", record.name(), crate::duration::to_go(Duration::from_secs(left.as_secs())));
}

/// Is there no process of this id any more? One that may not be signalled is there; an id in use
/// again by another only delays the answer.
fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::mounts::tests::table;
    use crate::volumes::record::tests::attached;
    use crate::volumes::watch::tests::{pass, volumes};

    #[test]
    fn a_volume_that_was_never_attached_ends_after_two_reads_of_a_table_that_would_show_it() {
        let delivered = |byte, namespace| Record {
            state: State::Delivered,
            seen: false,
            mount_namespace: namespace,
            ..attached(byte)
        };
        let records = vec![
            delivered(1, Some(7)),
            delivered(2, Some(8)),
            delivered(3, None),
        ];
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let (_directory, volumes) = volumes(records);
        // Another volume has come from the first one's kubelet.
        let first = whence(&volumes.lock().known[&ids[0]].record).unwrap();
        volumes.lock().arrivals.insert(first, Some(1));
        let begun = clock::boottime_ms();
        volumes.judge(&ids, &table(&[], 1));
        for &id in &ids {
            let registry = volumes.lock();
            assert_eq!(registry.state(id), Some(State::Delivered));
            let again = registry.known[&id].settle_at;
            assert!(again >= begun + clock::millis(SECOND_READ));
        }
        pass(&volumes, SECOND_READ);
        volumes.judge(&ids, &table(&[], 1));
        let states = ids.iter().map(|id| volumes.lock().state(*id).unwrap());
        let expected = [State::Ended, State::Delivered, State::Delivered];
        assert_eq!(states.collect::<Vec<_>>(), expected);
    }
}
