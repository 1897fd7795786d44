//! The mount room: fills a tmpfs that nobody sees yet and attaches it whole; finds and unmounts what
//! is mounted. It knows neither argv nor JSON nor the agent, so that another front end can use it.

use crate::clock::Deadline;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::read;
use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, fchown};
use std::time::Duration;
use vaulttmpfs_api::{Owner, VolumeId};

/// Inodes beyond the files and the root, for files that are added later.
const SPARE_INODES: usize = 16;

/// How long a call that finds the directory locked, or the mount busy, waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What `mount_id` is for, in its failures.
const MOUNT_ID: &str = "ask what is mounted on the directory";

/// What to ask the kernel for, and where it puts texts into its answer.
const STATMOUNT_FS_TYPE: u64 = 0x20;
const STATMOUNT_SB_SOURCE: u64 = 0x200;
const STATMOUNT_TEXTS: usize = 512;

/// What container runtimes let a container read (the type of `container-selinux`).
const SELINUX_LABEL: &CStr = c"system_u:object_r:container_file_t:s0";

/// A directory to mount on, locked against other calls of ours as long as this lives.
pub struct Place {
    /// The lock is on the parent, for the directory is another one once something is mounted on it.
    parent: Flock<OwnedFd>,
    name: String,
}

/// What is uppermost on a directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Top {
    /// Nothing: it is a directory like its parent.
    Nothing,
    /// A volume of ours.
    Ours(VolumeId),
    /// Someone else's mount: its type and source as `/proc/self/mountinfo` shows them.
    Foreign(String),
}

impl Top {
    fn of(kind: &str, source: &str) -> Self {
        match VolumeId::from_source(source) {
            Some(id) if kind == "tmpfs" => Self::Ours(id),
            _ => Self::Foreign(format!("{kind} from {source}")),
        }
    }
}

/// How a volume's tmpfs is made.
pub struct Shape {
    /// The volume, which becomes the tmpfs's source.
    pub id: VolumeId,
    /// The tmpfs's size limit in bytes.
    pub size: u64,
    /// How many files will be written.
    pub files: usize,
    /// The root's permission bits.
    pub mode: u32,
    /// The root's owner.
    pub owner: Owner,
    /// Whether to label it for containers, where `SELinux` is enabled.
    pub label: bool,
}

/// A tmpfs that is attached nowhere. It is gone when this is dropped.
pub struct Tmpfs(OwnedFd);

/// Why something could not be mounted, found or unmounted.
#[derive(Debug)]
pub enum Error {
    /// The directory, or one above it, is not there.
    Missing,
    /// A component is a symbolic link or no directory.
    NotADirectory,
    /// Another call has held the directory all the time.
    Locked,
    /// Something was mounted on the directory while the volume was made.
    Overtaken,
    /// The mount is in use.
    Busy,
    /// The mount table does not show what is mounted.
    NotInTable,
    /// The kernel lacks a system call.
    OldKernel(&'static str),
    /// A system call failed; what it was to do, how it failed and what else the kernel said.
    Call(String, Errno, String),
}

impl Place {
    /// Opens `tail` beneath `root` and locks it. `root` is opened as it is, links included; `tail`
    /// must be clean, and nothing in it may be a link. The directory itself, the last component, may
    /// be missing still.
    pub fn open(root: &str, tail: &str, until: Deadline) -> Result<Self, Error> {
        let (parent, name) = tail.rsplit_once('/').ok_or(Error::NotADirectory)?;
        let root = open(
            root,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(opening)?;
        // Not O_PATH: such a descriptor cannot be locked.
        let parent = open_beneath(&root, parent, OFlag::O_RDONLY).map_err(opening)?;
        Ok(Self {
            parent: lock(parent, until)?,
            name: name.to_owned(),
        })
    }

    /// What is uppermost on the directory. The mount table is read only where there is a mount and the
    /// kernel cannot be asked for it alone: reading costs more the more mounts there are.
    pub fn top(&self) -> Result<Top, Error> {
        let directory = self.directory()?;
        let id = mount_id(&directory)?;
        if id == mount_id(&self.parent)? {
            return Ok(Top::Nothing);
        }
        if let Some(top) = asked(&directory) {
            return Ok(top);
        }
        // A table that changes while it is read may leave out a line: look again.
        for _ in 0..3 {
            let table = mount_table().map_err(|e| failed("read the mount table", errno(&e)))?;
            if let Some(top) = find(&table, id) {
                return Ok(top);
            }
        }
        Err(Error::NotInTable)
    }

    /// Attaches a filled tmpfs to the bare directory: whole or not at all. Whatever was in the
    /// directory is hidden, as with any mount; the kubelet does not care either. A directory that is
    /// removed meanwhile is refused by the kernel.
    pub fn attach(&self, tmpfs: &Tmpfs) -> Result<(), Error> {
        let directory = self.directory()?;
        if mount_id(&directory)? != mount_id(&self.parent)? {
            return Err(Error::Overtaken);
        }
        match sys::move_mount(&tmpfs.0, &directory) {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT) => Err(Error::Missing),
            Err(e) => Err(failed("attach the volume", e)),
        }
    }

    /// Unmounts what is uppermost on the directory.
    pub fn unmount(&self) -> Result<(), Error> {
        // By way of the descriptor, so that no link in the path can lead elsewhere. One on the mount
        // itself would keep it busy.
        let path = format!("/proc/self/fd/{}/{}", self.parent.as_raw_fd(), self.name);
        match umount2(path.as_str(), MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::EBUSY) => Err(Error::Busy),
            Err(e) => Err(failed("unmount the volume", e)),
        }
    }

    /// Unmounts as [`Self::unmount`] does, but waits while the mount is in use: for one that must not
    /// stay.
    pub fn take_down(&self, until: Deadline) -> Result<(), Error> {
        loop {
            match self.unmount() {
                Err(Error::Busy) if until.pause(LOOK_AGAIN) => {}
                other => return other,
            }
        }
    }

    fn directory(&self) -> Result<OwnedFd, Error> {
        open_beneath(&self.parent, &self.name, OFlag::O_PATH).map_err(opening)
    }
}

impl Tmpfs {
    /// Makes an empty one.
    pub fn new(shape: &Shape) -> Result<Self, Error> {
        let fs = sys::fsopen(c"tmpfs").map_err(|e| new_call("fsopen", e))?;
        configure(&fs, shape).map_err(|(what, e)| {
            Error::Call(format!("make a tmpfs ({what})"), e, kernel_message(&fs))
        })?;
        sys::fsmount(&fs)
            .map(Self)
            .map_err(|e| new_call("fsmount", e))
    }

    /// Writes a file into its root. `name` must be a single component; one that is there already is
    /// an error.
    pub fn write(&self, name: &str, mode: u32, owner: Owner, bytes: &[u8]) -> Result<(), Error> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let step = |e| failed(&format!("write the file {name:?}"), e);
        let mut file = File::from(openat(&self.0, name, flags, Mode::empty()).map_err(step)?);
        file.write_all(bytes).map_err(|e| step(errno(&e)))?;
        fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(|e| step(errno(&e)))?;
        // Last, and not left to open: neither the umask nor the change of owner has a say.
        fchmod(&file, Mode::from_bits_truncate(mode)).map_err(step)
    }
}

/// Whether `SELinux` is enabled on this machine.
#[must_use]
pub fn selinux_enabled() -> bool {
    fs::exists("/sys/fs/selinux/enforce").unwrap_or(false)
}

/// The mount namespace that volumes are attached in, by its inode.
#[must_use]
pub fn namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/mnt")
        .ok()
        .map(|found| found.ino())
}

/// Sets all options and makes the file system; on failure says which option it was.
fn configure(fs: &OwnedFd, shape: &Shape) -> Result<(), (&'static str, Errno)> {
    let set = |key: &'static CStr, what: &'static str, value: String| {
        let value = CString::new(value).map_err(|_| (what, Errno::EINVAL))?;
        sys::fsconfig_string(fs, key, &value).map_err(|e| (what, e))
    };
    set(c"source", "source", shape.id.source())?;
    set(c"size", "size", shape.size.to_string())?;
    let inodes = shape.files + 1 + SPARE_INODES;
    set(c"nr_inodes", "nr_inodes", inodes.to_string())?;
    set(c"mode", "mode", format!("{:o}", shape.mode))?;
    set(c"uid", "uid", shape.owner.uid.to_string())?;
    set(c"gid", "gid", shape.owner.gid.to_string())?;
    // Linux 6.4 or later; before, the machine's own care for its swap must do.
    let _ = sys::fsconfig_flag(fs, c"noswap");
    if shape.label {
        // A read-only FlexVolume is relabelled by nobody else. This was read in the kubelet's and the
        // kernel's sources, and not run: it needs a machine with SELinux.
        sys::fsconfig_string(fs, c"context", SELINUX_LABEL).map_err(|e| ("context", e))?;
    }
    sys::fsconfig_create(fs).map_err(|e| ("create", e))
}

/// Locks a directory without waiting in the kernel, which knows no bound.
fn lock(mut directory: OwnedFd, until: Deadline) -> Result<Flock<OwnedFd>, Error> {
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EWOULDBLOCK)) if until.pause(LOOK_AGAIN) => directory = unlocked,
            Err((_, Errno::EWOULDBLOCK)) => return Err(Error::Locked),
            Err((_, e)) => return Err(failed("lock the volume's parent directory", e)),
        }
    }
}

/// Opens a directory beneath another, with no link on the way.
fn open_beneath(base: &OwnedFd, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(base, path, how) {
        Err(Errno::ENOSYS) => walk_beneath(base, path, flags),
        other => other,
    }
}

/// The same, a step at a time, for Linux before 5.6: nothing can climb, as no component is `..`.
fn walk_beneath(base: &OwnedFd, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let step = |at: &OwnedFd, path: &str| openat(at, path, flags, Mode::empty());
    let mut parts = path.split('/');
    let first = step(base, parts.next().unwrap_or_default())?;
    parts.try_fold(first, |at, part| step(&at, part))
}

/// The id of the mount that a directory is on.
fn mount_id(fd: &OwnedFd) -> Result<u64, Error> {
    match sys::mount_id(fd).map_err(|e| failed(MOUNT_ID, e))? {
        Some(id) => Ok(id),
        None => mount_id_by_proc(fd),
    }
}

/// The same, for Linux before 5.8.
fn mount_id_by_proc(fd: &OwnedFd) -> Result<u64, Error> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .map_err(|e| failed(MOUNT_ID, errno(&e)))?
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or(Error::NotInTable)
}

/// What the mount that a directory is on is, where the kernel says it: since Linux 6.13.
fn asked(directory: &OwnedFd) -> Option<Top> {
    let id = sys::unique_mount_id(directory).ok()??;
    let mut answer = [0; 1024];
    sys::statmount(id, STATMOUNT_FS_TYPE | STATMOUNT_SB_SOURCE, &mut answer).ok()?;
    told(&answer)
}

/// Reads `struct statmount` of `linux/mount.h`: what there is, and where its texts are.
fn told(answer: &[u8]) -> Option<Top> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let text = |at: usize| {
        let begin = STATMOUNT_TEXTS + usize::try_from(number(at)?).ok()?;
        let text = CStr::from_bytes_until_nul(answer.get(begin..)?).ok()?;
        Some(text.to_string_lossy())
    };
    let wanted = STATMOUNT_FS_TYPE | STATMOUNT_SB_SOURCE;
    let mask = u64::from_ne_bytes(answer.get(8..16)?.try_into().ok()?);
    if mask & wanted != wanted {
        return None;
    }
    Some(Top::of(&text(36)?, &text(124)?))
}

/// The mount table of this thread's namespace, read in steps as large as the kernel gives.
fn mount_table() -> io::Result<Vec<u8>> {
    let mut table = Vec::with_capacity(64 * 1024);
    File::open("/proc/thread-self/mountinfo")?.read_to_end(&mut table)?;
    Ok(table)
}

/// Finds a mount by its id in a mount table, `proc_pid_mountinfo(5)`: `ID … - TYPE SOURCE OPTIONS`.
fn find(table: &[u8], id: u64) -> Option<Top> {
    let id = format!("{id} ");
    let line = table
        .split(|&b| b == b'\n')
        .find(|line| line.starts_with(id.as_bytes()))?;
    let line = String::from_utf8_lossy(line);
    let (_, tail) = line.split_once(" - ")?;
    let mut fields = tail.split(' ');
    let (kind, source) = (fields.next()?, fields.next()?);
    Some(Top::of(kind, source))
}

/// What the kernel says about a file system that it would not make.
fn kernel_message(fs: &OwnedFd) -> String {
    let mut buffer = [0; 256];
    let length = read(fs, &mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

fn opening(e: Errno) -> Error {
    match e {
        Errno::ENOENT => Error::Missing,
        Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV => Error::NotADirectory,
        e => failed("open the mount directory", e),
    }
}

fn new_call(name: &'static str, e: Errno) -> Error {
    match e {
        Errno::ENOSYS => Error::OldKernel(name),
        e => failed(&format!("make a tmpfs ({name})"), e),
    }
}

fn failed(what: &str, e: Errno) -> Error {
    Error::Call(what.to_owned(), e, String::new())
}

fn errno(e: &io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the mount directory is not there (any more)"),
            Self::NotADirectory => f.write_str(
                "the mount directory, or one of the four above it, is a symbolic link or no directory: something else than the kubelet made it",
            ),
            Self::Locked => f.write_str("another call for a volume of this pod took too long; the kubelet will come again"),
            Self::Overtaken => f.write_str("someone else mounted on the directory while the volume was being made"),
            Self::Busy => f.write_str("the volume is still in use by a process on the node (`fuser -m` on the mount directory names it); the kubelet will come again"),
            Self::NotInTable => f.write_str("/proc does not show what is mounted on the directory: is /proc mounted for the kubelet?"),
            Self::OldKernel(call) => write!(f, "this kernel has no {call}: Linux 5.2 or later is needed"),
            Self::Call(what, e, said) => {
                write!(f, "could not {what}: {}", e.desc())?;
                if said.is_empty() { Ok(()) } else { write!(f, " ({said})") }
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const TABLE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
122 27 0:50 / /k/pods/u/volumes/cloudwatt~vaulttmpfs/v rw,nosuid shared:3 master:1 - tmpfs vaulttmpfs:000102030405060708090a0b0c0d0eff rw,size=4k
123 27 0:51 / /a\\040-\\040b rw - tmpfs tmpfs rw
124 27 0:52 / /a rw - ext4 vaulttmpfs:000102030405060708090a0b0c0d0eff rw
125 27 0:53 / /a rw - tmpfs vaulttmpfs:nonsense rw
126 27 0:53 / /a rw
";

    #[test]
    fn finds_mounts_by_id() {
        let ours = VolumeId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        let foreign = |text: &str| Some(Top::Foreign(text.into()));
        for (id, top) in [
            (122, Some(Top::Ours(ours))),
            (22, foreign("proc from proc")),
            (123, foreign("tmpfs from tmpfs")),
            (
                124,
                foreign("ext4 from vaulttmpfs:000102030405060708090a0b0c0d0eff"),
            ),
            (125, foreign("tmpfs from vaulttmpfs:nonsense")),
            (126, None),
            (2, None),
            (12, None),
        ] {
            assert_eq!(find(TABLE.as_bytes(), id), top, "{id}");
        }
    }

    #[test]
    fn both_ways_down_take_no_link() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b/c")).unwrap();
        fs::write(base.path().join("a/file"), "").unwrap();
        symlink("b", base.path().join("a/link")).unwrap();
        symlink("/etc", base.path().join("a/out")).unwrap();
        let root = OwnedFd::from(File::open(base.path()).unwrap());
        for (path, there) in [
            ("a", true),
            ("a/b/c", true),
            ("a/link", false),
            ("a/link/c", false),
            ("a/out", false),
            ("a/file", false),
            ("a/none", false),
        ] {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            assert_eq!(
                open_beneath(&root, path, OFlag::O_PATH).is_ok(),
                there,
                "{path}"
            );
            assert_eq!(walk_beneath(&root, path, flags).is_ok(), there, "{path}");
        }
        assert!(open_beneath(&root, "a/../..", OFlag::O_PATH).is_err());
    }

    #[test]
    fn both_ways_know_the_mount() {
        let root = OwnedFd::from(File::open("/").unwrap());
        let proc = OwnedFd::from(File::open("/proc").unwrap());
        assert_ne!(mount_id(&root).unwrap(), mount_id(&proc).unwrap());
        for fd in [&root, &proc] {
            assert_eq!(mount_id(fd).unwrap(), mount_id_by_proc(fd).unwrap());
        }
        let table = mount_table().unwrap();
        let found = find(&table, mount_id(&proc).unwrap());
        assert_eq!(found, Some(Top::Foreign("proc from proc".into())));
        // An older kernel does not say.
        if let Some(top) = asked(&proc) {
            assert_eq!(Some(top), found);
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_or_says_less_is_none() {
        let mut answer = [0; 600];
        answer[8..16].copy_from_slice(&0x220_u64.to_ne_bytes());
        answer[124..128].copy_from_slice(&6_u32.to_ne_bytes());
        answer[512..523].copy_from_slice(b"tmpfs\0host\0");
        let tmpfs = Some(Top::Foreign("tmpfs from host".into()));
        assert_eq!(told(&answer), tmpfs);
        assert_eq!(told(&answer[..523]), tmpfs);
        assert_eq!(told(&answer[..522]), None);
        assert_eq!(told(&[]), None);
        answer[124..128].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(told(&answer), None);
        answer[8] = 0x20;
        assert_eq!(told(&answer), None);
    }
}
