//! What processes take: time from exec to exit, CPU, memory, wake-ups.

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a program whose answer must be a success, and returns the time from exec to exit.
pub(crate) fn run(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let output = command.output().expect("the program starts");
    let took = begun.elapsed();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("Success"), "{command:?}: {output:?}");
    took
}

/// CPU of a living process, all its threads, those that ended too.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()));
    let time = clock.and_then(clock_gettime);
    Duration::from(time.expect("the process's CPU time"))
}

/// CPU of all children that ended and were waited for.
pub(crate) fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the children's usage");
    [usage.user_time(), usage.system_time()]
        .map(|time| {
            let microseconds = time.tv_sec() * 1_000_000 + time.tv_usec();
            Duration::from_micros(microseconds.unsigned_abs())
        })
        .iter()
        .sum()
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process's status");
    number(&status, "VmRSS:") as f64
}

/// How often the process's threads went to sleep since they were started, and so were woken.
pub(crate) fn sleeps(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a process's threads");
    threads
        .flatten()
        // A thread may end meanwhile.
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .map(|status| number(&status, "voluntary_ctxt_switches:"))
        .sum()
}

fn number(status: &str, field: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {field} in {status}"))
}
