//! The machine itself: what the tests beside this one believe of it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;
use vaulttmpfs_tests::{Machine, eventually, eventually_within};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// What lets a test be started to be killed.
const VICTIM: &str = "VAULTTMPFS_TEST_VICTIM";

#[test]
fn a_reboot_keeps_files_and_ends_processes_and_mounts() {
    let mut machine = Machine::boot();
    let boot_id = machine.sh(BOOT_ID);
    machine.sh("mkdir /mnt/kept; touch /mnt/kept/file; mount -t tmpfs vaulttmpfs:00 /mnt/kept");
    machine.sh("systemd-run --unit=sleeper sleep infinity");
    assert_eq!(machine.volumes().len(), 1);
    assert_eq!(machine.property("sleeper", "ActiveState"), "active");
    for reboot in [Machine::reboot, Machine::lose_power] {
        reboot(&mut machine);
        assert_ne!(machine.sh(BOOT_ID), boot_id, "a boot of its own");
        assert!(machine.has("/mnt/kept/file") && machine.volumes().is_empty());
        assert_eq!(machine.property("sleeper", "ActiveState"), "inactive");
    }
}

#[test]
fn no_network_leads_out_of_it() {
    let machine = Machine::boot();
    let devices = machine.sh("ls /sys/class/net");
    assert_eq!(devices.trim_end(), "lo");
    let routes = machine.sh("cat /proc/net/route");
    assert_eq!(routes.lines().count(), 1, "only the heading: {routes}");
}

#[test]
fn nothing_of_it_outlives_a_killed_test() {
    if std::env::var_os(VICTIM).is_some() {
        let machine = Machine::boot();
        machine.sh("systemd-run --unit=sleeper sleep 86399");
        std::thread::sleep(Duration::from_secs(600));
    }
    let own = std::env::current_exe().unwrap();
    let name = "installed::machine::nothing_of_it_outlives_a_killed_test";
    // Its directory is all that is left of it.
    let directory = tempfile::tempdir().unwrap();
    let mut victim = Command::new(own)
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, "")
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually_within(Duration::from_secs(120), "a machine with a sleeper", || {
        sleeper()
    });
    let id = Pid::from_raw(victim.id().cast_signed());
    kill(id, Signal::SIGKILL).unwrap();
    victim.wait().unwrap();
    eventually("the machine's end", || sleeper().is_none().then_some(()));
}

/// The process of [`nothing_of_it_outlives_a_killed_test`]'s machine, as this side sees it.
fn sleeper() -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.ends_with(b"sleep\x0086399\0") && line.starts_with(b"/")
    })
}
