//! Each volume's way through its states: asked, delivered, attached, ended.

use super::agenda::Agenda;
use super::journal::Journal;
use super::mounts::{self, Table};
use super::plan::{self, Progress, Task};
use super::record::{Origin, Record, State};
use crate::clock::{self, Moment};
use crate::config::Lifecycle;
use crate::metrics::Metrics;
use crate::options::VolumeRequest;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use vaulttmpfs_api::{MountDir, VolumeId};

/// After the shim's last moment to attach, this long passes before its mount is looked for.
const ATTACH_GRACE: Duration = Duration::from_secs(10);

/// The first wait for a shim that hung up to be gone; it doubles.
const GONE_FIRST: Duration = Duration::from_millis(50);

/// Two reads that both miss a volume are at least this far apart.
pub(super) const SECOND_READ: Duration = Duration::from_secs(2);

/// So many forgotten volumes are remembered by their ids, 16 bytes each.
const MOST_GONE: usize = 10_000;

/// How soon a record that could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// All volumes of the node.
pub struct Volumes {
    pub(super) journal: Journal,
    pub(super) here: Origin,
    pub(super) rules: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
    /// Vault's cluster as it was seen last.
    cluster_id: Mutex<String>,
    /// This process's own mount namespace, where it could be read.
    namespace: Option<u64>,
    registry: Mutex<Registry>,
    /// The agenda's first entry has changed.
    pub(super) changed: Notify,
    /// There is something to do at Vault.
    pub(super) work: Notify,
    /// There is a loss to be told.
    pub(super) losses: Notify,
    /// What is to be said of all volumes may have changed.
    pub(super) stirred: Notify,
}

#[derive(Default)]
pub(super) struct Registry {
    /// Tokens that Vault was asked for, or is about to be.
    asked: HashMap<VolumeId, Asked>,
    /// Volumes with a token.
    pub(super) known: HashMap<VolumeId, Known>,
    /// The volume of each mount directory that has not ended.
    live: HashMap<String, VolumeId>,
    /// Records that are not in the journal as they are here.
    pub(super) unwritten: HashSet<VolumeId>,
    /// When to look at which volume, and what is ready to be done.
    pub(super) agenda: Agenda,
    /// Why nothing that is owed is done, if so.
    pub(super) held: Option<String>,
    /// Moments at which volumes vanished, of the last minute: milliseconds on `CLOCK_BOOTTIME`.
    pub(super) vanished: Vec<u64>,
    /// When all volumes were looked at last for a loss: milliseconds on `CLOCK_BOOTTIME`.
    pub(super) hurried: Option<u64>,
    /// Volumes whose loss is not yet told.
    pub(super) lost: Vec<String>,
    /// From where mounts were seen to come: the peer group that a volume of each of these kubelets spread
    /// from while this process looked on. What was there before does not count, as it may have been
    /// copied with a table that is cut off since; nor does what an earlier process saw.
    pub(super) arrivals: HashMap<Whence, Option<u64>>,
    /// The mount table was read by this process: what is new in the next read has arrived.
    pub(super) has_read: bool,
    /// Volumes that have ended and are forgotten: should one still be mounted, its shim is to know.
    pub(super) gone: HashSet<VolumeId>,
    /// Ids in the mount table that the agent does not know.
    pub(super) strangers: usize,
}

struct Asked {
    mount_dir: String,
    /// Nobody wants it any more: once made, the token is owed a revocation.
    abandoned: bool,
}

pub(super) struct Known {
    pub(super) record: Record,
    /// When a delivered volume is settled: milliseconds on `CLOCK_BOOTTIME`.
    pub(super) settle_at: u64,
    /// The shim's pid, once it has hung up without a word, and the wait until the next look.
    pub(super) hung_up: Option<(i32, Duration)>,
    /// How its tasks have gone so far.
    pub(super) progress: Progress,
    /// Its token is looked for at once, by a renewal: another volume's was lost.
    pub(super) hurry: bool,
    /// Missing from the mount table since.
    pub(super) absent_since: Option<u64>,
    /// This process has seen it in the mount table.
    pub(super) shown: bool,
    /// Its absence from the last read of the mount table means nothing.
    pub(super) doubtful: bool,
}

/// Where a volume's mount is made: the mount namespace, and the kubelet's root directory.
pub(super) type Whence = (u64, String);

/// The answer to a shim that says it has attached a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// So it is.
    Taken,
    /// The volume has ended; its token is, or will be, revoked.
    Ended,
    /// The agent has never heard of it.
    Unknown,
}

impl Volumes {
    /// Takes up the volumes of the journal. Those of another boot have ended: their mounts went
    /// with it.
    #[must_use]
    pub fn new(
        journal: Journal,
        mut records: Vec<Record>,
        here: Origin,
        rules: &Lifecycle,
        metrics: Arc<Metrics>,
    ) -> Self {
        let volumes = Self {
            journal,
            here,
            rules: rules.clone(),
            metrics,
            cluster_id: Mutex::default(),
            namespace: mounts::namespace(),
            registry: Mutex::default(),
            changed: Notify::new(),
            work: Notify::new(),
            losses: Notify::new(),
            stirred: Notify::new(),
        };
        {
            let mut registry = volumes.lock();
            registry.held = volumes.journal.held();
            // The newest of a directory's volumes has it.
            records.sort_by_key(|record| record.created.boottime);
            for record in records {
                volumes.take_up(&mut registry, record);
            }
        }
        volumes
    }

    /// Where new records belong.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let cluster_id = self.cluster_id.lock();
        Origin {
            cluster_id: cluster_id.unwrap_or_else(PoisonError::into_inner).clone(),
            ..self.here.clone()
        }
    }

    /// Vault has said which cluster it is.
    pub(super) fn seen_cluster(&self, cluster_id: &str) {
        let known = self.cluster_id.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if *known != cluster_id {
            cluster_id.clone_into(&mut known);
            self.stirred.notify_one();
        }
    }

    /// A new attempt for a mount directory. Whatever the directory had before is owed a revocation
    /// from here on: one live token a directory.
    ///
    /// # Errors
    /// The journal cannot be written, or the system has no randomness.
    pub fn begin(&self, request: &VolumeRequest) -> io::Result<VolumeId> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let id = VolumeId::from_bytes(random);
        let mount_dir = request.mount_dir.as_str();
        // A full disk is to be known before a token is made.
        self.journal.reserve(id)?;
        let mut registry = self.lock();
        self.end_directory(&mut registry, mount_dir, "a new mount of its directory")
            .inspect_err(|_| self.journal.give_back(id))?;
        registry.live.insert(mount_dir.to_owned(), id);
        registry.asked.insert(
            id,
            Asked {
                mount_dir: mount_dir.to_owned(),
                abandoned: false,
            },
        );
        Ok(id)
    }

    /// Makes the next [`Self::begin`] quicker. For a mount that has its answer.
    pub fn prepare(&self) {
        self.journal.prepare();
    }

    /// The attempt is over. If Vault made no token, or did not say so, nothing is left of it.
    pub fn over(&self, id: VolumeId) {
        let mut registry = self.lock();
        if let Some(asked) = registry.asked.remove(&id) {
            registry.free(&asked.mount_dir, id);
            self.journal.give_back(id);
        }
    }

    /// Vault made a token: it is in the journal when this returns. Returns whether somebody still
    /// wants it; if not, it is owed a revocation and must not be handed out.
    ///
    /// # Errors
    /// The journal cannot be written: the token is owed a revocation, and must not be handed out.
    pub fn minted(&self, mut record: Record) -> io::Result<bool> {
        let id = record.id;
        let mut registry = self.lock();
        let wanted = registry
            .asked
            .remove(&id)
            .is_some_and(|asked| !asked.abandoned);
        if !wanted {
            self.end_record(&mut record, false);
        }
        let written = self.journal.write_reserved(&record);
        if written.is_err() {
            self.end_record(&mut record, false);
            registry.unwritten.insert(id);
        }
        if record.state == State::Ended {
            registry.free(&record.mount_dir, id);
            say_ended(&record, "nobody waits for it any more");
        }
        self.know(&mut registry, record);
        written.map(|()| wanted)
    }

    /// The answer with this volume reached nobody.
    pub fn undelivered(&self, id: VolumeId) {
        let mut registry = self.lock();
        if let Some(asked) = registry.asked.get_mut(&id) {
            asked.abandoned = true;
        } else if registry.state(id) == Some(State::Delivered) {
            self.end(&mut registry, id, "its answer reached nobody", false);
        }
    }

    /// The shim says that it has attached a volume.
    ///
    /// # Errors
    /// The journal cannot be written; the volume counts as attached all the same.
    pub fn attached(&self, id: VolumeId) -> io::Result<Attached> {
        let mut registry = self.lock();
        let Some(known) = registry.known.get_mut(&id) else {
            return Ok(if registry.gone.contains(&id) {
                Attached::Ended
            } else {
                Attached::Unknown
            });
        };
        match known.record.state {
            State::Ended => return Ok(Attached::Ended),
            State::Attached => return Ok(Attached::Taken),
            State::Delivered => {
                known.record.state = State::Attached;
                known.absent_since = None;
            }
        }
        self.write(&mut registry, id).map(|()| Attached::Taken)
    }

    /// The kubelet has had a directory unmounted.
    ///
    /// # Errors
    /// The journal cannot be written; the volume has ended all the same.
    pub fn unmounted(&self, mount_dir: &str) -> io::Result<()> {
        let mut registry = self.lock();
        self.end_directory(&mut registry, mount_dir, "unmounted")
    }

    /// The shim that has this volume has closed its connection. If it has not said that it
    /// attached the volume, the mount table will tell, once the shim is surely gone.
    pub fn hung_up(&self, id: VolumeId, shim: Option<i32>) {
        let mut registry = self.lock();
        let Some(known) = registry.known.get_mut(&id) else {
            return;
        };
        if let (State::Delivered, Some(pid)) = (known.record.state, shim) {
            known.hung_up = Some((pid, GONE_FIRST));
            known.settle_at = clock::boottime_ms() + clock::millis(GONE_FIRST);
            self.plan(&mut registry, id);
        }
    }

    /// Takes up a volume that is mounted and that the journal has lost. `record` is whole and
    /// checked.
    ///
    /// # Errors
    /// The journal cannot be written, or the agent knows the volume by now.
    pub fn adopt(&self, record: Record) -> io::Result<()> {
        let mut registry = self.lock();
        if registry.known.contains_key(&record.id) {
            return Err(io::Error::other("the agent knows this volume already"));
        }
        if let Some(other) = registry.live.get(&record.mount_dir) {
            let why = format!("the agent knows another volume of this directory, {other}");
            return Err(io::Error::other(why));
        }
        self.journal.write(&record)?;
        registry.live.insert(record.mount_dir.clone(), record.id);
        self.know(&mut registry, record);
        Ok(())
    }

    /// Calls `see` for each volume with a token.
    pub fn for_each(&self, mut see: impl FnMut(&Record)) {
        let registry = self.lock();
        for known in registry.known.values() {
            see(&known.record);
        }
    }

    /// Does a volume's absence from this read of the mount table mean that it is gone? Where this process
    /// saw it; where an earlier one did, and this one is in the volume's own namespace, or gets mounts of
    /// that directory from where that one got them; and where this one saw another of the same kubelet
    /// arrive, and mounts still come from there.
    pub(super) fn would_be_seen(
        &self,
        known: &Known,
        arrivals: &HashMap<Whence, Option<u64>>,
        table: &Table,
    ) -> bool {
        if known.shown {
            return true;
        }
        let record = &known.record;
        let own = self.namespace.is_some() && self.namespace == record.mount_namespace;
        let here = table.group_at(&record.mount_dir);
        let comes_from = |group: Option<u64>| own || here.is_some() && here == group;
        let arrived = whence(record).and_then(|whence| arrivals.get(&whence));
        record.seen && comes_from(record.seen_from)
            || arrived.is_some_and(|group| comes_from(*group))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a volume on the agenda, by its state and record.
    pub(super) fn plan(&self, registry: &mut Registry, id: VolumeId) {
        self.stirred.notify_one();
        let Some(known) = registry.known.get(&id) else {
            return registry.agenda.remove(id);
        };
        let next = match known.record.state {
            State::Delivered => Some((known.settle_at, None)),
            _ if known.hurry => Some((0, Some(Task::Renew))),
            _ => plan::next(&known.record, &self.rules, &known.progress)
                .map(|(at, task)| (at, Some(task))),
        };
        // A record that cannot be written is tried in steps, whatever else is due.
        let write_again = clock::boottime_ms() + clock::millis(WRITE_AGAIN);
        let next = match (registry.unwritten.contains(&id), next) {
            (true, Some((at, task))) => Some((at.max(write_again), task)),
            (true, None) => Some((write_again, None)),
            (false, next) => next,
        };
        match next {
            Some((at, task)) => {
                if registry.agenda.put(id, at, task) {
                    self.changed.notify_one();
                }
            }
            None => registry.agenda.remove(id),
        }
    }

    /// Changes a volume's record, in the journal, too, and plans anew.
    pub fn change(&self, id: VolumeId, change: impl FnOnce(&mut Record)) {
        let mut registry = self.lock();
        if let Some(known) = registry.known.get_mut(&id) {
            change(&mut known.record);
            // A failure is on the agenda.
            let _ = self.write(&mut registry, id);
        }
    }

    /// Ends a volume. A record that cannot be written is tried again later.
    pub(super) fn end(&self, registry: &mut Registry, id: VolumeId, why: &str, by_absence: bool) {
        if let Err(error) = self.try_end(registry, id, why, by_absence) {
            tracing::warn!(volume = %id, "its end cannot be written to the journal yet: {error}");
        }
    }

    /// Writes a volume's record as it is now, and plans what is next. A failure is remembered and
    /// tried again.
    pub(super) fn write(&self, registry: &mut Registry, id: VolumeId) -> io::Result<()> {
        let Some(known) = registry.known.get(&id) else {
            return Ok(());
        };
        let over = known.record.state == State::Ended && known.record.owed.is_empty();
        let written = if over {
            self.journal.remove(id)
        } else {
            self.journal.write(&known.record)
        };
        if written.is_err() {
            registry.unwritten.insert(id);
        } else {
            if registry.unwritten.remove(&id) {
                tracing::info!(volume = %id, "its record is in the journal now");
            }
            if over {
                registry.known.remove(&id);
                registry.remember_gone(id);
            }
        }
        self.plan(registry, id);
        written
    }

    fn take_up(&self, registry: &mut Registry, mut record: Record) {
        let id = record.id;
        let same_boot = record.origin.same_boot(&self.here);
        if !same_boot {
            record.carry_over(&self.here, Moment::now());
        }
        let (state, mount_dir) = (record.state, record.mount_dir.clone());
        self.know(registry, record);
        if state == State::Ended {
            return;
        }
        if !same_boot {
            self.end(registry, id, "the machine was booted since", false);
        } else if let Some(older) = registry.live.insert(mount_dir, id) {
            self.end(registry, older, "a newer volume has its directory", false);
        }
    }

    fn know(&self, registry: &mut Registry, record: Record) {
        let id = record.id;
        let known = Known::new(record);
        registry.known.insert(id, known);
        self.plan(registry, id);
    }

    fn end_directory(&self, registry: &mut Registry, mount_dir: &str, why: &str) -> io::Result<()> {
        let Some(id) = registry.live.remove(mount_dir) else {
            return Ok(());
        };
        if let Some(asked) = registry.asked.get_mut(&id) {
            asked.abandoned = true;
        }
        self.try_end(registry, id, why, false)
    }

    fn try_end(
        &self,
        registry: &mut Registry,
        id: VolumeId,
        why: &str,
        by_absence: bool,
    ) -> io::Result<()> {
        let Some(known) = registry.known.get_mut(&id) else {
            return Ok(());
        };
        let record = &mut known.record;
        if record.state == State::Ended {
            return Ok(());
        }
        self.end_record(record, by_absence);
        say_ended(record, why);
        (known.progress, known.hurry) = (Progress::default(), false);
        let mount_dir = known.record.mount_dir.clone();
        registry.free(&mount_dir, id);
        self.write(registry, id)
    }

    fn end_record(&self, record: &mut Record, by_absence: bool) {
        record.end(Moment::now(), by_absence, self.rules.revoke);
    }
}

/// One line in the log for each volume's end, with how long it lived.
fn say_ended(record: &Record, why: &str) {
    let lived = Moment::now().since(record.created);
    tracing::info!(
        volume = %record.id,
        pod = record.pod.name,
        namespace = record.pod.namespace,
        role = record.role,
        duration_ms = clock::millis(lived),
        "ended: {why}"
    );
}

impl Registry {
    fn remember_gone(&mut self, id: VolumeId) {
        if self.gone.len() >= MOST_GONE {
            self.gone.clear();
        }
        self.gone.insert(id);
    }

    /// Is Vault being asked for its token?
    pub(super) fn asked(&self, id: &VolumeId) -> bool {
        self.asked.contains_key(id)
    }

    pub(super) fn state(&self, id: VolumeId) -> Option<State> {
        self.known.get(&id).map(|known| known.record.state)
    }

    /// A volume has its directory again.
    pub(super) fn reclaim(&mut self, id: VolumeId) -> bool {
        let Some(known) = self.known.get(&id) else {
            return false;
        };
        let mount_dir = known.record.mount_dir.clone();
        if self.live.contains_key(&mount_dir) {
            return false;
        }
        self.live.insert(mount_dir, id);
        true
    }

    /// The directory has this volume no longer.
    fn free(&mut self, mount_dir: &str, id: VolumeId) {
        if self.live.get(mount_dir) == Some(&id) {
            self.live.remove(mount_dir);
        }
    }
}

/// Where this volume's mount is made, where its shim said it.
pub(super) fn whence(record: &Record) -> Option<Whence> {
    let directory = MountDir::parse(&record.mount_dir).ok()?;
    Some((record.mount_namespace?, directory.kubelet_root().to_owned()))
}

impl Known {
    fn new(record: Record) -> Self {
        let mut known = Self {
            record,
            settle_at: 0,
            hung_up: None,
            progress: Progress::default(),
            hurry: false,
            absent_since: None,
            shown: false,
            doubtful: false,
        };
        known.settle_at = known.last_look();
        known
    }

    /// Missing from a whole read of the mount table. Returns whether it was missing from one long
    /// enough before, too.
    pub(super) fn is_missing(&mut self, now: u64) -> bool {
        let since = *self.absent_since.get_or_insert(now);
        now - since >= clock::millis(SECOND_READ)
    }

    /// The last moment to look at a delivered volume: from then on no shim attaches it any more.
    pub(super) fn last_look(&self) -> u64 {
        self.record.attach_by + clock::millis(ATTACH_GRACE)
    }
}
