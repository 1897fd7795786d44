//! The one room with unsafe code: calls that nix does not have, and the allocator.
//!
//! The numbers are those of `linux/mount.h`; the calls are in Linux since 5.2, or as they say, on every
//! architecture under the same number.
#![allow(
    unsafe_code,
    reason = "raw system calls and a global allocator cannot be written without"
)]

use crate::answer;
use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_long, c_uint};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOUNT_ATTR_NOSUID: c_uint = 2;
const MOUNT_ATTR_NODEV: c_uint = 4;
const MOUNT_ATTR_NOEXEC: c_uint = 8;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
/// libc does not name it yet.
const SYS_STATMOUNT: c_long = 457;

/// Begins a file system.
pub(crate) fn fsopen(kind: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: the name is a C string that outlives the call; the kernel writes nothing.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets an option with a value.
pub(crate) fn fsconfig_string(fs: &impl AsFd, key: &CStr, value: &CStr) -> nix::Result<()> {
    fsconfig(fs, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())
}

/// Sets an option without a value.
pub(crate) fn fsconfig_flag(fs: &impl AsFd, key: &CStr) -> nix::Result<()> {
    fsconfig(fs, FSCONFIG_SET_FLAG, key.as_ptr(), ptr::null())
}

/// Makes the file system with the options set before.
pub(crate) fn fsconfig_create(fs: &impl AsFd) -> nix::Result<()> {
    fsconfig(fs, FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())
}

fn fsconfig(
    fs: &impl AsFd,
    command: c_uint,
    key: *const c_char,
    value: *const c_char,
) -> nix::Result<()> {
    let fd = fs.as_fd().as_raw_fd();
    let aux: c_int = 0;
    // SAFETY: the callers pass null or C strings that outlive the call; the kernel only reads them.
    let done = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, aux) };
    Errno::result(done).map(drop)
}

/// Mounts the file system nowhere yet; without set-user-ID, devices and programs in it.
pub(crate) fn fsmount(fs: &impl AsFd) -> nix::Result<OwnedFd> {
    let fd = fs.as_fd().as_raw_fd();
    let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    // SAFETY: numbers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) })
}

/// Attaches a mount to a directory.
pub(crate) fn move_mount(mount: &impl AsFd, directory: &impl AsFd) -> nix::Result<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), directory.as_fd().as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the two paths are constant C strings, which the kernel only reads.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            c"".as_ptr(),
            to,
            c"".as_ptr(),
            flags,
        )
    };
    Errno::result(done).map(drop)
}

/// The id of the mount that a descriptor is on, or nothing where the kernel does not say: before
/// Linux 5.8.
pub(crate) fn mount_id(fd: &impl AsFd) -> nix::Result<Option<u64>> {
    statx_mount_id(fd, libc::STATX_MNT_ID)
}

/// The same as an id that is never given to another mount: since Linux 6.8.
pub(crate) fn unique_mount_id(fd: &impl AsFd) -> nix::Result<Option<u64>> {
    statx_mount_id(fd, libc::STATX_MNT_ID_UNIQUE)
}

fn statx_mount_id(fd: &impl AsFd, kind: c_uint) -> nix::Result<Option<u64>> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // Not by libc's name for it: std takes that symbol as a weak one, so that in a static program it
    // may be null.
    // SAFETY: the path is a constant C string, the buffer is one statx large and ours; all zeros are
    // a valid statx, whatever the kernel fills in.
    let (done, found) = unsafe {
        let done = libc::syscall(
            libc::SYS_statx,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            kind,
            buffer.as_mut_ptr(),
        );
        (done, buffer.assume_init())
    };
    Errno::result(done)?;
    Ok((found.stx_mask & kind != 0).then_some(found.stx_mnt_id))
}

/// Asks for some facts of the mount with this unique id: bits and answer as `struct statmount` has them.
/// Since Linux 6.8.
pub(crate) fn statmount(id: u64, wanted: u64, answer: &mut [u8]) -> nix::Result<()> {
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        id: u64,
        wanted: u64,
    }
    let request = Request {
        // `MNT_ID_REQ_SIZE_VER0`
        size: 24,
        spare: 0,
        id,
        wanted,
    };
    // SAFETY: the request is as large as it says and outlives the call; the kernel writes to the answer,
    // which is ours alone, and no further than its length.
    let done = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            answer.as_mut_ptr(),
            answer.len(),
            0 as c_uint,
        )
    };
    Errno::result(done).map(drop)
}

/// Overwrites bytes with zeros, with all the room that they have.
pub(crate) fn wipe(bytes: &mut Vec<u8>) {
    // SAFETY: the room is the vector's own, which we hold alone; any byte may become zero. Unlike
    // memset this may not be left out by a compiler that sees nobody read the zeros.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.capacity()) };
}

/// Writes to standard output, once, whatever comes of it.
pub(crate) fn write_stdout(bytes: &[u8]) {
    // SAFETY: pointer and length are those of a slice.
    unsafe { libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

/// Ends the process with exit code 0, at once: nothing is left to flush, and the kernel frees faster.
pub(crate) fn exit() -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(0) }
}

/// Lets writes to a closed pipe fail, instead of killing the process.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Makes `call: fn() -> Answer` the program's entry, in place of `main` as std starts it. What std
/// does before `main` (reading `/proc/self/maps`, a signal stack, handlers) is for programs with
/// threads and long lives; here it would be a fifth of all instructions. [`crate::run`] does what is
/// needed of it.
#[macro_export]
macro_rules! entry {
    ($call:path) => {
        #[allow(unsafe_code, reason = "the C library calls this by its name")]
        // SAFETY: no other function of the program is named so.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> std::ffi::c_int {
            $crate::run($call)
        }
    };
}

fn owned(fd: c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this descriptor for us, and it fits what the kernel calls an int.
    #[allow(clippy::cast_possible_truncation, reason = "descriptors are ints")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The system's allocator; when it has nothing left, the call is answered and ended, because Rust
/// would abort, with a message and an exit code that the kubelet must not see.
pub struct Allocator;

// SAFETY: every method hands its arguments unchanged to the system's allocator, which fulfils the
// contract, and returns what that returns or not at all.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        found(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        found(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        found(unsafe { System.realloc(old, layout, size) })
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(old, layout) }
    }
}

fn found(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        answer::give_up(answer::OUT_OF_MEMORY);
        exit();
    }
    memory
}
