//! The journal: one small file a volume, so that nothing is forgotten when the agent dies.
//!
//! A record is in place, by rename, before the shim gets its answer: a killed agent loses nothing.
//! A thread of the journal's own brings it to the disk right after, in batches: a power cut may lose
//! the last second, whose pods are gone too.

use super::record::{FORMAT, Origin, Record};
use crate::clock;
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;
use zeroize::Zeroizing;

/// Room for a usual record: a file system's block, which it takes anyway. In bytes.
const USUAL_RECORD: usize = 4096;

/// What is in room that has no record yet.
const NO_RECORD: [u8; USUAL_RECORD] = [b' '; USUAL_RECORD];

/// A record is well below this; a larger file is damaged. In bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// Changes are brought to the disk so long after the first of them: a volume's record, which changes
/// twice while it is mounted, is written once, and its mount shares the processor with nobody.
const BATCH: Duration = Duration::from_millis(250);

/// A file takes milliseconds; one that takes so long never ends.
const STUCK: Duration = Duration::from_secs(60);

/// Where records are, below the state directory.
const VOLUMES: &str = "volumes";

/// Where files go that are damaged or another machine's, below the state directory.
const SET_ASIDE: &str = "set-aside";

/// Room for the next record, beside the records. Like all names with a dot it is removed when the next
/// agent starts.
const SPARE: &str = ".spare";

/// A file that is written to see whether there is room, beside it.
const TRIAL: &str = ".trial";

/// Says, below the state directory, that revocations are held, and why.
const HOLD: &str = "hold";

/// The volumes' records on the disk. One agent at a time has it.
pub struct Journal {
    directory: PathBuf,
    hold: PathBuf,
    disk: Disk,
    _lock: Flock<File>,
}

/// Why the journal cannot be opened.
#[derive(Debug)]
pub enum JournalError {
    /// Another agent has it: its pid, where it could be read.
    Held(PathBuf, String),
    /// A directory or file of it cannot be used.
    Unusable(PathBuf, io::Error),
}

impl Journal {
    /// Opens the journal and reads the records that are this machine's. A file that is damaged or
    /// another machine's is moved aside, named in the log, and harms no other.
    pub fn open(state_dir: &Path, here: &Origin) -> Result<(Self, Vec<Record>), JournalError> {
        let directory = state_dir.join(VOLUMES);
        make_directory(&directory)?;
        let lock = lock(&state_dir.join("lock"))?;
        let records = read_all(state_dir, &directory, here)?;
        let disk = Disk::of(&directory)
            .map_err(|error| JournalError::Unusable(directory.clone(), error))?;
        let journal = Self {
            directory,
            hold: state_dir.join(HOLD),
            disk,
            _lock: lock,
        };
        Ok((journal, records))
    }

    /// Whether changes are still brought to the disk.
    pub(super) fn is_alive(&self) -> bool {
        self.disk.is_alive()
    }

    /// Takes room for a record that is to come, so that a full disk is known before there is
    /// anything to record.
    pub fn reserve(&self, id: VolumeId) -> io::Result<()> {
        let room = self.new_file(id);
        match fs::rename(self.directory.join(SPARE), &room) {
            Ok(()) => Ok(()),
            Err(_) => write_new(&room, &NO_RECORD),
        }
    }

    /// Gives the room back: nothing came. The next record may have it.
    pub fn give_back(&self, id: VolumeId) {
        // What stays is removed at the next start.
        let _ = fs::rename(self.new_file(id), self.directory.join(SPARE));
    }

    /// Takes room for the next record, where none is there: [`Self::reserve`] is on a mount's path.
    pub fn prepare(&self) {
        let spare = self.directory.join(SPARE);
        if !spare.exists() {
            // A disk that is full is known when there is something to record.
            let _ = write_new(&spare, &NO_RECORD);
        }
    }

    /// Whether there is room for one more record, by a try.
    pub fn has_room(&self) -> io::Result<()> {
        let trial = self.directory.join(TRIAL);
        write_new(&trial, &NO_RECORD)?;
        fs::remove_file(trial)
    }

    /// Puts a record into the room that was reserved for it.
    pub fn write_reserved(&self, record: &Record) -> io::Result<()> {
        let mut text = text(record)?;
        // In place, and no shorter: room that is given up may be gone before it is taken again.
        let length = text.len().max(USUAL_RECORD);
        text.resize(length, b' ');
        let written = OpenOptions::new()
            .write(true)
            .open(self.new_file(record.id))
            .and_then(|mut file| file.write_all(&text));
        self.put_in_place(record.id, written)
    }

    /// Puts a record in place of what was there.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let written = write_new(&self.new_file(record.id), &text(record)?);
        self.put_in_place(record.id, written)
    }

    fn put_in_place(&self, id: VolumeId, written: io::Result<()>) -> io::Result<()> {
        let new = self.new_file(id);
        let placed = written.and_then(|()| fs::rename(&new, self.directory.join(id.to_string())));
        if placed.is_err() {
            let _ = fs::remove_file(&new);
        }
        placed?;
        self.sync_later(id);
        Ok(())
    }

    fn new_file(&self, id: VolumeId) -> PathBuf {
        self.directory.join(format!(".{id}.new"))
    }

    /// Removes a record: nothing is owed for it any more.
    pub fn remove(&self, id: VolumeId) -> io::Result<()> {
        match fs::remove_file(self.directory.join(id.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.sync_later(id);
                Ok(())
            }
        }
    }

    /// Why revocations are held, if they are. A reason that cannot be read holds them, too.
    pub(super) fn held(&self) -> Option<String> {
        match fs::read_to_string(&self.hold) {
            Ok(why) => Some(why),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("{} cannot be read: {error}", self.hold.display())),
        }
    }

    /// Keeps a hold over a restart.
    pub(super) fn hold(&self, why: &str) -> io::Result<()> {
        let mut file = File::create(&self.hold)?;
        file.write_all(why.as_bytes())?;
        // Seldom, and an admin counts on it: here, not behind.
        file.sync_all()?;
        self.sync_directory()
    }

    /// Ends a hold.
    pub(super) fn release(&self) -> io::Result<()> {
        match fs::remove_file(&self.hold) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_directory(),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        let directory = self.hold.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all()
    }

    fn sync_later(&self, id: VolumeId) {
        if let Some(changed) = &self.disk.changed {
            // The thread ends only with the journal.
            let _ = changed.send(id);
        }
    }
}

/// The thread that brings changes to the disk. When this is dropped, all are there.
struct Disk {
    /// When the thread began with the file that it is at, in milliseconds on `CLOCK_BOOTTIME`; 0 while it waits.
    busy_since: Arc<AtomicU64>,
    changed: Option<Sender<VolumeId>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    fn of(directory: &Path) -> io::Result<Self> {
        let (changed, batches) = mpsc::channel();
        let directory = directory.to_owned();
        let busy_since = Arc::new(AtomicU64::new(0));
        let since = Arc::clone(&busy_since);
        let thread = std::thread::Builder::new()
            .name("journal-sync".into())
            .spawn(move || sync(&directory, &batches, &since))?;
        Ok(Self {
            busy_since,
            changed: Some(changed),
            thread: Some(thread),
        })
    }

    /// Whether the thread is there and not stuck, as beside a disk that hangs.
    fn is_alive(&self) -> bool {
        let since = self.busy_since.load(Ordering::Relaxed);
        let stuck = since > 0 && clock::boottime_ms().saturating_sub(since) > clock::millis(STUCK);
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        !stuck && !ended
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nobody who tells of changes any more: that ends the thread.
        self.changed = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been said.
            let _ = thread.join();
        }
    }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text));
    if written.is_err() {
        // A file that a full disk left half written takes room from the next.
        let _ = fs::remove_file(path);
    }
    written
}

/// A record as it is written, no larger than what is read again.
fn text(record: &Record) -> io::Result<Zeroizing<Vec<u8>>> {
    let text = Zeroizing::new(serde_json::to_vec(record)?);
    if text.len() as u64 > MAX_RECORD {
        return Err(io::Error::other("the volume's record is too large"));
    }
    Ok(text)
}

/// Brings changes to the disk, those that came within [`BATCH`] at once.
fn sync(directory: &Path, changes: &Receiver<VolumeId>, busy_since: &AtomicU64) {
    while let Ok(first) = changes.recv() {
        std::thread::sleep(BATCH);
        let batch: BTreeSet<VolumeId> = std::iter::once(first).chain(changes.try_iter()).collect();
        let files = batch.iter().map(|id| directory.join(id.to_string()));
        for path in files.chain(std::iter::once(directory.to_owned())) {
            busy_since.store(clock::boottime_ms().max(1), Ordering::Relaxed);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            if let Err(error) = synced
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be brought to the disk: {error}", path.display());
            }
        }
        busy_since.store(0, Ordering::Relaxed);
    }
}

fn make_directory(path: &Path) -> Result<(), JournalError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| JournalError::Unusable(path.to_owned(), error))
}

fn lock(path: &Path) -> Result<Flock<File>, JournalError> {
    let unusable = |error| JournalError::Unusable(path.to_owned(), error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(unusable)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0).map_err(unusable)?;
            write!(file, "{}", std::process::id()).map_err(unusable)?;
            Ok(file)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(JournalError::Held(path.to_owned(), holder))
        }
        Err((_, error)) => Err(unusable(error.into())),
    }
}

fn read_all(
    state_dir: &Path,
    directory: &Path,
    here: &Origin,
) -> Result<Vec<Record>, JournalError> {
    let mut records = Vec::new();
    let unusable = |error| JournalError::Unusable(directory.to_owned(), error);
    for entry in fs::read_dir(directory).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") {
            // A record that was being written when the agent died: the one before it counts.
            let _ = fs::remove_file(&path);
            continue;
        }
        let mut text = Zeroizing::new(Vec::new());
        let read =
            File::open(&path).and_then(|file| file.take(MAX_RECORD + 1).read_to_end(&mut text));
        if let Err(error) = read {
            // It may be in order: it stays where it is, and harms no other.
            tracing::error!(
                "{} cannot be read ({error}): the agent does not act on it; mend that and start the agent anew",
                path.display()
            );
            continue;
        }
        match parse(&text, &name, here) {
            Ok(record) => records.push(record),
            Err(problem) => set_aside(state_dir, &path, &name, &problem),
        }
    }
    Ok(records)
}

fn parse(text: &[u8], name: &OsStr, here: &Origin) -> Result<Record, String> {
    // serde's own text may quote the file, accessors included.
    let record: Record =
        serde_json::from_slice(text).map_err(|_| "it is not a volume's record".to_owned())?;
    if record.format != FORMAT {
        return Err(format!("it has format {}, not {FORMAT}", record.format));
    }
    if name.to_str() != Some(record.id.to_string().as_str()) {
        return Err("it has another volume's name".into());
    }
    if !record.origin.same_machine(here) {
        return Err("it is another machine's".into());
    }
    Ok(record)
}

fn set_aside(state_dir: &Path, path: &Path, name: &OsStr, problem: &str) {
    let directory = state_dir.join(SET_ASIDE);
    let target = directory.join(name);
    let made = make_directory(&directory).map_err(|error| error.to_string());
    let moved = made.and_then(|()| fs::rename(path, &target).map_err(|error| error.to_string()));
    let path = path.display();
    match moved {
        Ok(()) => tracing::warn!(
            "{path} is set aside as {}: {problem}; the agent will not act on it",
            target.display()
        ),
        Err(error) => tracing::warn!(
            "{path}: {problem}; the agent will not act on it, and cannot set it aside: {error}"
        ),
    }
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(path, holder) => write!(
                f,
                "another agent (pid {}) holds {}: stop it, or give this one a VAULTTMPFS_STATE_DIR of its own",
                if holder.is_empty() { "unknown" } else { holder },
                path.display()
            ),
            Self::Unusable(path, error) => {
                write!(f, "the state in {} cannot be used: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for JournalError {}

#[cfg(test)]
impl Journal {
    /// Without the thread that brings changes to the disk, as after a panic of it.
    pub(crate) fn without_thread(mut self) -> Self {
        self.disk.changed = None;
        self.disk.thread = None;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn record(byte: u8, here: &Origin) -> Record {
        Record {
            origin: here.clone(),
            ..crate::volumes::record::tests::attached(byte)
        }
    }

    fn here() -> Origin {
        Origin {
            machine_id: "machine".into(),
            boot_id: "boot".into(),
            node: "node".into(),
            ..Origin::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (record(1, &here()), record(2, &here()));
        {
            let (journal, records) = Journal::open(dir.path(), &here()).unwrap();
            assert!(records.is_empty());
            journal.write(&one).unwrap();
            journal.write(&two).unwrap();
            journal.remove(two.id).unwrap();
            journal.remove(two.id).unwrap();
        }
        let (_journal, records) = Journal::open(dir.path(), &here()).unwrap();
        assert_eq!(records, std::slice::from_ref(&one));
        let file = dir.path().join("volumes").join(one.id.to_string());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{one:?}").contains("inner-accessor"));
    }

    #[test]
    fn room_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), &here()).unwrap();
        let one = record(1, &here());
        let names = || -> Vec<_> {
            let entries = fs::read_dir(dir.path().join("volumes")).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        journal.prepare();
        assert_eq!(names(), [SPARE]);
        journal.reserve(one.id).unwrap();
        assert_eq!(names().len(), 1, "the room that was there");
        journal.give_back(one.id);
        assert_eq!(names(), [SPARE]);
        journal.reserve(one.id).unwrap();
        journal.write_reserved(&one).unwrap();
        assert_eq!(names(), [OsStr::new(&one.id.to_string())]);
        // Without any it takes its own.
        let two = record(2, &here());
        journal.reserve(two.id).unwrap();
        journal.write_reserved(&two).unwrap();
        assert_eq!(names().len(), 2);
        assert!(journal.has_room().is_ok());
        assert_eq!(names().len(), 2);
    }

    #[test]
    fn a_disk_that_hangs_and_a_thread_that_is_gone_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), &Origin::default()).unwrap();
        assert!(journal.is_alive());
        let busy_since = |moment| journal.disk.busy_since.store(moment, Ordering::Relaxed);
        busy_since(clock::boottime_ms());
        assert!(journal.is_alive(), "it has just begun");
        busy_since(1);
        let long_ago = clock::boottime_ms() > clock::millis(STUCK) + 1;
        assert_eq!(journal.is_alive(), !long_ago);
        busy_since(0);
        assert!(journal.is_alive());
        journal.disk.changed = None;
        let begun = std::time::Instant::now();
        while journal.is_alive() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the thread goes on"
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _journal = Journal::open(dir.path(), &here()).unwrap();
        let Err(error) = Journal::open(dir.path(), &here()) else {
            panic!("two agents have the journal");
        };
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }

    #[test]
    fn damaged_and_foreign_files_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let good = record(1, &here());
        let foreign = record(
            2,
            &Origin {
                machine_id: "other".into(),
                ..here()
            },
        );
        // A disk that was copied with its machine-id, booted on another node.
        let clone = record(
            5,
            &Origin {
                boot_id: "another".into(),
                node: "template".into(),
                ..here()
            },
        );
        let newer = Record {
            format: FORMAT + 1,
            ..record(3, &here())
        };
        {
            let (journal, _) = Journal::open(dir.path(), &here()).unwrap();
            for record in [&good, &foreign, &clone, &newer] {
                journal.write(record).unwrap();
            }
        }
        let volumes = dir.path().join("volumes");
        let cut = VolumeId::from_bytes([4; 16]).to_string();
        fs::write(volumes.join(&cut), r#"{"format":1,"kind":"tok"#).unwrap();
        fs::copy(volumes.join(good.id.to_string()), volumes.join("copy")).unwrap();
        fs::write(volumes.join(".x.new"), "").unwrap();
        fs::create_dir(volumes.join("unreadable")).unwrap();
        let (_journal, records) = Journal::open(dir.path(), &here()).unwrap();
        assert_eq!(records, [good]);
        let mut aside: Vec<_> = fs::read_dir(dir.path().join("set-aside"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        aside.sort();
        let mut expected = vec![
            foreign.id.to_string(),
            clone.id.to_string(),
            newer.id.to_string(),
            cut,
            "copy".into(),
        ];
        expected.sort();
        assert_eq!(aside, expected);
        assert!(!volumes.join(".x.new").exists());
    }
}
