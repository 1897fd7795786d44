//! Killing a process at one exact moment, which no clock hits: the driver just before, or just after,
//! it attaches its volume; the agent at any of its system calls; a command at each that may change something.

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::eventually;

/// `move_mount`, which has this number on every architecture that is younger than Linux 2.6.
const MOVE_MOUNT: &str = "429";

/// Calls that change nothing for whoever comes later: to be killed there is to be killed at the next one.
/// A file that was made by opening it is found at the next one, too.
const LOOKING: [libc::c_long; 10] = [
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_openat,
    libc::SYS_read,
    libc::SYS_statx,
];

/// Where the driver dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Its volume is filled and not attached.
    BeforeAttach,
    /// Its volume is attached, and nobody has heard of it.
    AfterAttach,
}

/// Runs the command, and kills it (-9) at this moment. Fails the test when it never comes there.
pub fn kill_at(command: &Command, moment: Moment) {
    let killed = kill_when(command, |pid, inside| {
        call(pid) == MOVE_MOUNT && inside == (moment == Moment::BeforeAttach)
    });
    assert!(killed, "the driver ended and has attached nothing");
}

/// Runs a command of the admin's, and kills it (-9) just before a call of the kernel that may change
/// something: the one with this number since it has taken hold of a place. Whether it came so far.
pub fn kill_at_change(command: &Command, number: usize) -> bool {
    let (mut holds, mut seen) = (false, 0);
    kill_when(command, |pid, inside| {
        let call: libc::c_long = call(pid).parse().unwrap_or(-1);
        holds = holds || call == libc::SYS_flock;
        if !inside || !holds || LOOKING.contains(&call) {
            return false;
        }
        seen += 1;
        seen > number
    })
}

/// Runs the command, and kills it as soon as a stop at a call of the kernel (true: on the way into it)
/// is the one. False when it ends before; then it must have done well.
fn kill_when(command: &Command, mut is_it: impl FnMut(Pid, bool) -> bool) -> bool {
    let (mut process, pid) = stopped(command, Stdio::null());
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("tracing the program");
    kill(pid, Signal::SIGCONT).expect("letting the program go on");
    let mut inside = false;
    let killed = loop {
        let pass_on = match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the traced program") {
            WaitStatus::PtraceSyscall(_) => {
                inside = !inside;
                if is_it(pid, inside) {
                    kill(pid, Signal::SIGKILL).expect("killing the program");
                    break true;
                }
                None
            }
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGCONT => Some(signal),
            ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                assert_eq!(
                    ended,
                    WaitStatus::Exited(pid, 0),
                    "{command:?} failed by itself"
                );
                break false;
            }
            _ => None,
        };
        ptrace::syscall(pid, pass_on).expect("letting the program go on");
    };
    // One that has ended by itself was waited for above.
    let _ = process.wait();
    killed
}

/// Kills (-9) a running child when its first thread begins or ends a system call for the `count`th
/// time, unless `over` comes first. Returns whether it was killed; traced it stays either way.
pub fn kill_at_call(process: u32, count: usize, over: impl Fn() -> bool) -> bool {
    let pid = Pid::from_raw(process.cast_signed());
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("tracing the process");
    ptrace::interrupt(pid).expect("stopping the process");
    let look = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    let mut calls = 0;
    loop {
        let pass_on = match waitpid(pid, Some(look)).expect("the traced process") {
            WaitStatus::StillAlive if over() => return false,
            WaitStatus::StillAlive => {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            WaitStatus::PtraceSyscall(_) => {
                calls += 1;
                if calls == count {
                    break;
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => panic!("the process ended"),
            _ => None,
        };
        ptrace::syscall(pid, pass_on).expect("letting the process go on");
    }
    kill(pid, Signal::SIGKILL).expect("killing the process");
    true
}

/// The same command behind a shell that has stopped itself, so that it can be traced from its first
/// instruction on.
pub(crate) fn stopped(command: &Command, output: Stdio) -> (Child, Pid) {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or(OsStr::new("")));
    }
    let process = shell.spawn().expect("the shell starts");
    let pid = Pid::from_raw(process.id().cast_signed());
    eventually("the shell to stop itself", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, state) = stat.rsplit_once(") ")?;
        state.starts_with('T').then_some(())
    });
    (process, pid)
}

/// The number of the call at which it is stopped.
fn call(pid: Pid) -> String {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().unwrap_or_default().to_owned()
}
