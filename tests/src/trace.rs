//! Killing a process at one exact moment, which no clock hits: the driver just before, or just after,
//! it attaches its volume; the agent at any of its system calls.

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::eventually;

/// `move_mount`, which has this number on every architecture that is younger than Linux 2.6.
const MOVE_MOUNT: &str = "429";

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
    let mut stopped = stopped_first(command);
    let mut process = stopped.spawn().expect("the driver starts");
    let pid = Pid::from_raw(process.id().cast_signed());
    eventually("the driver to stop itself", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, state) = stat.rsplit_once(") ")?;
        state.starts_with('T').then_some(())
    });
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("tracing the driver");
    kill(pid, Signal::SIGCONT).expect("letting the driver go on");
    let mut inside = false;
    loop {
        let pass_on = match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the traced driver") {
            WaitStatus::PtraceSyscall(_) => {
                inside = !inside;
                if is_move_mount(pid) && inside == (moment == Moment::BeforeAttach) {
                    break;
                }
                None
            }
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGCONT => Some(signal),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                panic!("the driver ended and has attached nothing")
            }
            _ => None,
        };
        ptrace::syscall(pid, pass_on).expect("letting the driver go on");
    }
    kill(pid, Signal::SIGKILL).expect("killing the driver");
    process.wait().expect("the end of the driver");
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

/// The same command behind a shell that stops itself first, so that it can be traced from its first
/// instruction on.
fn stopped_first(command: &Command) -> Command {
    let mut stopped = Command::new("/bin/sh");
    stopped
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for (name, value) in command.get_envs() {
        stopped.env(name, value.unwrap_or(OsStr::new("")));
    }
    stopped
}

fn is_move_mount(pid: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(MOVE_MOUNT)
}
