//! What a program costs in counts, which no noise of the machine changes: instructions and system
//! calls. Both by tracing: valgrind and its kind know the mount calls only in their newest versions.

use crate::trace::stopped;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// The instructions that a call of a program takes in user space. The call is made, and must succeed.
///
/// # Panics
/// Where the program fails.
#[must_use]
pub fn instructions(command: &Command) -> u64 {
    stops(command, ptrace::step)
}

/// The system calls that a call of a program makes, its `execve` among them. The call is made, and
/// must succeed.
///
/// # Panics
/// Where the program fails.
#[must_use]
pub fn system_calls(command: &Command) -> u64 {
    // It stops when a call begins and when it ends: the first is the end of execve, the last the
    // begin of exit.
    stops(command, ptrace::syscall) / 2 + 1
}

/// How often a program stops when it is let go on so each time.
fn stops(command: &Command, go_on: fn(Pid, Option<Signal>) -> nix::Result<()>) -> u64 {
    let (mut process, pid) = executed(command);
    let mut count = 0;
    let status = loop {
        go_on(pid, None).expect("letting the program go on");
        match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the traced program") {
            WaitStatus::Exited(_, status) => break status,
            WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceSyscall(_) => count += 1,
            other => panic!("{command:?}: {other:?}"),
        }
    };
    let mut answer = String::new();
    let mut output = process.stdout.take().expect("the program's output");
    output.read_to_string(&mut answer).expect("its answer");
    let succeeded = status == 0 && answer.contains("Success");
    assert!(succeeded, "{command:?}: status {status}, {answer}");
    count
}

/// The program, traced, just executed.
fn executed(command: &Command) -> (Child, Pid) {
    let (process, pid) = stopped(command, Stdio::piped());
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("tracing the program");
    kill(pid, Signal::SIGCONT).expect("letting the program go on");
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the traced program") {
            WaitStatus::PtraceEvent(_, _, event)
                if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 =>
            {
                return (process, pid);
            }
            _ => ptrace::cont(pid, None).expect("letting the program go on"),
        }
    }
}
