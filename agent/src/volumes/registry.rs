//! Each volume's way through its states: asked, delivered, attached, ended.

use super::journal::Journal;
use super::record::{Origin, Record, State};
use crate::clock;
use crate::options::VolumeRequest;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use vaulttmpfs_api::VolumeId;

/// After the shim's last moment to attach, this long passes before its mount is looked for.
const ATTACH_GRACE: Duration = Duration::from_secs(10);

/// The first wait for a shim that hung up to be gone; it doubles.
const GONE_FIRST: Duration = Duration::from_millis(50);

/// How soon a record that could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// Ended volumes are remembered this long after their token surely expired, and where its expiry is
/// not known this long after they ended: Vault's default for the longest lease (768 h).
const LONGEST_LEASE: Duration = Duration::from_secs(768 * 3600);

/// All volumes of the node.
pub struct Volumes {
    journal: Journal,
    here: Origin,
    registry: Mutex<Registry>,
    /// Something is due earlier than it was.
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct Registry {
    /// Tokens that Vault was asked for, or is about to be.
    asked: HashMap<VolumeId, Asked>,
    /// Volumes with a token.
    known: HashMap<VolumeId, Known>,
    /// The volume of each mount directory that has not ended.
    live: HashMap<String, VolumeId>,
    /// Records that are not in the journal as they are here.
    unwritten: HashSet<VolumeId>,
    /// When to look at which volume again: milliseconds on `CLOCK_BOOTTIME`.
    agenda: BTreeSet<(u64, VolumeId)>,
}

struct Asked {
    mount_dir: String,
    /// Nobody wants it any more: once made, the token is owed a revocation.
    abandoned: bool,
}

pub(super) struct Known {
    pub(super) record: Record,
    /// Its place in the agenda, if it has one.
    look_at: Option<u64>,
    /// The shim's pid, once it has hung up without a word, and the wait until the next look.
    pub(super) hung_up: Option<(i32, Duration)>,
}

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

/// How many volumes there are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Delivered or attached.
    pub live: usize,
    /// Ended, with something still owed.
    pub owed: usize,
}

impl Volumes {
    /// Takes up the volumes of the journal. Those of another boot have ended: their mounts went
    /// with it.
    #[must_use]
    pub fn new(journal: Journal, records: Vec<Record>, here: Origin) -> Self {
        let volumes = Self {
            journal,
            here,
            registry: Mutex::default(),
            changed: Notify::new(),
        };
        {
            let mut registry = volumes.lock();
            for record in records {
                volumes.adopt(&mut registry, record);
            }
        }
        volumes
    }

    /// Where new records belong.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.here
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
        let mut registry = self.lock();
        self.end_directory(&mut registry, mount_dir, "a new mount of its directory")?;
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

    /// Vault made no token, or did not say so.
    pub fn failed(&self, id: VolumeId) {
        let mut registry = self.lock();
        if let Some(asked) = registry.asked.remove(&id) {
            registry.free(&asked.mount_dir, id);
        }
    }

    /// Vault made a token: it is in the journal when this returns, wanted or not.
    ///
    /// # Errors
    /// The journal cannot be written: the token is owed a revocation, and the volume must not be
    /// handed out.
    pub fn minted(&self, mut record: Record) -> io::Result<()> {
        let id = record.id;
        let mut registry = self.lock();
        let wanted = registry
            .asked
            .remove(&id)
            .is_some_and(|asked| !asked.abandoned);
        if !wanted {
            record.end(clock::wall_ms());
        }
        let written = self.journal.write(&record);
        if written.is_err() {
            record.end(clock::wall_ms());
            registry.unwritten.insert(id);
        }
        if record.state == State::Ended {
            registry.free(&record.mount_dir, id);
            tracing::info!(volume = %id, pod = record.pod.name, namespace = record.pod.namespace, "ended: nobody waits for it any more");
        }
        self.know(&mut registry, record);
        written
    }

    /// The answer with this volume reached nobody.
    pub fn undelivered(&self, id: VolumeId) {
        let mut registry = self.lock();
        if let Some(asked) = registry.asked.get_mut(&id) {
            asked.abandoned = true;
        } else if registry.is_delivered(id) {
            self.end(&mut registry, id, "its answer reached nobody");
        }
    }

    /// The shim says that it has attached a volume.
    ///
    /// # Errors
    /// The journal cannot be written; the volume counts as attached all the same.
    pub fn attached(&self, id: VolumeId) -> io::Result<Attached> {
        let mut registry = self.lock();
        let Some(known) = registry.known.get_mut(&id) else {
            return Ok(Attached::Unknown);
        };
        match known.record.state {
            State::Ended => return Ok(Attached::Ended),
            State::Attached => return Ok(Attached::Taken),
            State::Delivered => known.record.state = State::Attached,
        }
        registry.look_no_more(id);
        self.write(&mut registry, id).map(|()| Attached::Taken)
    }

    /// A volume's token turns out to be one that cannot be kept alive and ended.
    pub fn unmanaged(&self, id: VolumeId, why: &str) {
        let mut registry = self.lock();
        if let Some(known) = registry.known.get_mut(&id) {
            known.record.unmanaged = Some(why.to_owned());
            // A failure has put it on the agenda.
            let _ = self.write(&mut registry, id);
        }
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
            self.look(
                &mut registry,
                id,
                clock::boottime_ms() + clock::millis(GONE_FIRST),
            );
        }
    }

    /// Calls `see` for each volume with a token.
    pub fn for_each(&self, mut see: impl FnMut(&Record)) {
        let registry = self.lock();
        for known in registry.known.values() {
            see(&known.record);
        }
    }

    /// How many volumes there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let registry = self.lock();
        let owed = registry
            .known
            .values()
            .filter(|known| known.record.state == State::Ended)
            .count();
        Counts {
            live: registry.known.len() - owed,
            owed,
        }
    }

    /// The earliest moment at which a volume is to be looked at, in milliseconds on
    /// `CLOCK_BOOTTIME`.
    pub(super) fn next_look(&self) -> Option<u64> {
        self.lock().agenda.first().map(|(at, _)| *at)
    }

    /// Puts a volume on the agenda, in place of what it had there.
    pub(super) fn look(&self, registry: &mut Registry, id: VolumeId, at: u64) {
        registry.look_no_more(id);
        if let Some(known) = registry.known.get_mut(&id) {
            known.look_at = Some(at);
            registry.agenda.insert((at, id));
            if registry.agenda.first() == Some(&(at, id)) {
                self.changed.notify_one();
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a volume. A record that cannot be written is tried again later.
    pub(super) fn end(&self, registry: &mut Registry, id: VolumeId, why: &str) {
        if let Err(error) = self.try_end(registry, id, why) {
            tracing::warn!(volume = %id, "its end cannot be written to the journal yet: {error}");
        }
    }

    /// Writes a volume's record as it is now; a failure is remembered and tried again.
    pub(super) fn write(&self, registry: &mut Registry, id: VolumeId) -> io::Result<()> {
        let Some(known) = registry.known.get(&id) else {
            return Ok(());
        };
        let forgotten = known.record.state == State::Ended && known.record.owed.is_empty();
        let written = if forgotten {
            self.journal.remove(id)
        } else {
            self.journal.write(&known.record)
        };
        if written.is_err() {
            registry.unwritten.insert(id);
            let again = clock::boottime_ms() + clock::millis(WRITE_AGAIN);
            self.look(registry, id, again);
        } else {
            if registry.unwritten.remove(&id) {
                tracing::info!(volume = %id, "its record is in the journal now");
            }
            if forgotten {
                registry.look_no_more(id);
                registry.known.remove(&id);
            }
        }
        written
    }

    /// Looks at an ended volume: its record is written if it is not yet, and forgotten when its
    /// token has expired long since, whatever is owed for it.
    pub(super) fn look_at_ended(&self, registry: &mut Registry, id: VolumeId) {
        let Some(known) = registry.known.get_mut(&id) else {
            return;
        };
        let (now, now_wall) = (clock::boottime_ms(), clock::wall_ms());
        let left = forget_at(&known.record).saturating_sub(now_wall);
        if left == 0 {
            known.record.owed.clear();
        }
        if left > 0 {
            self.look(registry, id, now + left);
        }
        if left == 0 || registry.unwritten.contains(&id) {
            // A failure has put it on the agenda again.
            let _ = self.write(registry, id);
        }
    }

    fn adopt(&self, registry: &mut Registry, record: Record) {
        let id = record.id;
        let same_boot = record.origin.boot_id == self.here.boot_id;
        let state = record.state;
        if state != State::Ended {
            registry.live.insert(record.mount_dir.clone(), id);
        }
        self.know(registry, record);
        if state != State::Ended && !same_boot {
            self.end(registry, id, "the machine was booted since");
        }
    }

    fn know(&self, registry: &mut Registry, record: Record) {
        let (id, state) = (record.id, record.state);
        let known = Known {
            record,
            look_at: None,
            hung_up: None,
        };
        let last_look = known.last_look();
        registry.known.insert(id, known);
        match state {
            State::Delivered => self.look(registry, id, last_look),
            State::Attached => {}
            State::Ended => self.look_at_ended(registry, id),
        }
    }

    fn end_directory(&self, registry: &mut Registry, mount_dir: &str, why: &str) -> io::Result<()> {
        let Some(id) = registry.live.remove(mount_dir) else {
            return Ok(());
        };
        if let Some(asked) = registry.asked.get_mut(&id) {
            asked.abandoned = true;
        }
        self.try_end(registry, id, why)
    }

    fn try_end(&self, registry: &mut Registry, id: VolumeId, why: &str) -> io::Result<()> {
        let Some(known) = registry.known.get_mut(&id) else {
            return Ok(());
        };
        let record = &mut known.record;
        if record.state == State::Ended {
            return Ok(());
        }
        record.end(clock::wall_ms());
        tracing::info!(volume = %id, pod = record.pod.name, namespace = record.pod.namespace, "ended: {why}");
        let mount_dir = record.mount_dir.clone();
        registry.free(&mount_dir, id);
        self.look_at_ended(registry, id);
        self.write(registry, id)
    }
}

impl Registry {
    /// Takes the volumes off the agenda whose time has come.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<VolumeId> {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.agenda.first()
            && at <= now
        {
            self.look_no_more(id);
            due.push(id);
        }
        due
    }

    /// Takes a volume off the agenda.
    fn look_no_more(&mut self, id: VolumeId) {
        if let Some(at) = self
            .known
            .get_mut(&id)
            .and_then(|known| known.look_at.take())
        {
            self.agenda.remove(&(at, id));
        }
    }

    /// Some volumes are attached as their shims said, and none of those is in this table: it shows
    /// another mount namespace than the kubelet's, and absence from it means nothing.
    pub(super) fn is_blind(&self, mounted: &HashSet<VolumeId>) -> bool {
        let mut attached = self
            .known
            .values()
            .filter(|known| known.record.state == State::Attached)
            .peekable();
        attached.peek().is_some() && !attached.any(|known| mounted.contains(&known.record.id))
    }

    pub(super) fn get_mut(&mut self, id: VolumeId) -> Option<&mut Known> {
        self.known.get_mut(&id)
    }

    fn is_delivered(&self, id: VolumeId) -> bool {
        self.known
            .get(&id)
            .is_some_and(|known| known.record.state == State::Delivered)
    }

    /// The directory has this volume no longer.
    fn free(&mut self, mount_dir: &str, id: VolumeId) {
        if self.live.get(mount_dir) == Some(&id) {
            self.live.remove(mount_dir);
        }
    }
}

impl Known {
    /// The last moment to look at a delivered volume: from then on no shim attaches it any more.
    pub(super) fn last_look(&self) -> u64 {
        self.record.attach_by + clock::millis(ATTACH_GRACE)
    }
}

/// When an ended volume may be forgotten: wall time in milliseconds.
fn forget_at(record: &Record) -> u64 {
    let ended = record.ended_wall.unwrap_or(record.created_wall);
    match record.expires_wall {
        // A full TTL after the expiry.
        Some(expires) => expires + expires.saturating_sub(record.created_wall),
        None => ended + clock::millis(LONGEST_LEASE),
    }
    .max(ended)
}
