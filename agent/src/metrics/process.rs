//! The process's own figures, by the names that Prometheus' clients agree on.

use super::{Readings, number};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use std::fs;

/// Adds what the kernel knows of this process, which began at `since`, in seconds since 1970. A figure
/// that cannot be read is left out.
pub fn process(readings: &Readings, since: f64) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let seconds = number(u64::try_from(micros).unwrap_or_default()) / 1e6;
        let help = "User and system CPU time spent, in seconds.";
        readings.counter("process_cpu_seconds_total", help, seconds);
    }
    if let (Some(pages), Ok(Some(size))) = (resident_pages(), sysconf(SysconfVar::PAGE_SIZE)) {
        let bytes = number(pages) * number(u64::try_from(size).unwrap_or_default());
        let help = "Resident memory, in bytes.";
        readings.gauge("process_resident_memory_bytes", help, bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One is the directory's own.
        let open = number(open.count().saturating_sub(1) as u64);
        readings.gauge("process_open_fds", "Open file descriptors.", open);
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let help = "The most file descriptors that may be open.";
        readings.gauge("process_max_fds", help, number(soft));
    }
    let help = "When the process started, in seconds since 1970.";
    readings.gauge("process_start_time_seconds", help, since);
}

/// The second number of `/proc/self/statm` (`proc_pid_statm(5)`).
fn resident_pages() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        assert!(resident_pages().unwrap() > 10);
    }
}
