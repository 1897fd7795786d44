//! `vaulttmpfs support-bundle`: what there is to know of this node, in one archive.

use super::{complain, say};
use crate::bundle::{self, MAX_PART, Part};
use crate::check::{self, Wish};
use crate::client::{self, Unseen};
use crate::exit::Exit;
use crate::mount_table::{self, Mount};
use crate::screen::Screen;
use crate::{atomic_file, clock, logging, program};
use std::fs;
use std::path::{self, PathBuf};
use std::time::Duration;
use vaulttmpfs_api::{STATUS_PATH, VOLUMES_PATH};

/// Only root reads it: names of pods, policies and hosts are in it.
const MODE: u32 = 0o600;

/// systemd's programs have so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// All checks together stay below a minute; this is for the case that they do not.
const PATIENCE_TO_CHECK: Duration = Duration::from_secs(90);

/// Our units.
const UNITS: [&str; 4] = [
    "vaulttmpfs-agent.service",
    "vaulttmpfs-agent.socket",
    "vaulttmpfs-reload.path",
    "vaulttmpfs-reload.service",
];

/// What is asked of a unit. Never `Environment=`, where a drop-in may have put anything.
const PROPERTIES: &str = "--property=Id,Description,LoadState,ActiveState,SubState,Result,UnitFileState,FragmentPath,DropInPaths,\
    ActiveEnterTimestamp,InactiveEnterTimestamp,NeedDaemonReload,MainPID,NRestarts,ExecMainStartTimestamp,ExecMainCode,\
    ExecMainStatus,StatusText,StatusErrno,MemoryCurrent,MemoryPeak,TasksCurrent,CPUUsageNSec,NAccepted,NConnections,NRefused";

/// Runs the command.
#[must_use]
pub fn run(output: Option<PathBuf>) -> Exit {
    if !nix::unistd::geteuid().is_root() {
        complain("support-bundle is root's: run it as root");
        return Exit::Failed;
    }
    match write(output) {
        Ok((path, parts)) => {
            for part in &parts {
                if let Err(why) = &part.content {
                    complain(&format!("{} is left out: {why}", part.name));
                }
            }
            say(&format!("written: {}", path.display()));
            Exit::Done
        }
        Err(problem) => {
            complain(&problem);
            Exit::Failed
        }
    }
}

fn write(output: Option<PathBuf>) -> Result<(PathBuf, Vec<Part>), String> {
    let (host, time) = (host(), logging::now());
    let name = name(&host, &time);
    let output = output.unwrap_or_else(|| format!("{name}.tar.gz").into());
    let failed = |error| format!("cannot write {}: {error}", output.display());
    let output = path::absolute(&output).map_err(failed)?;
    let runtime = client::runtime()?;
    let parts = runtime.block_on(collect());
    // A part that was not waited for any longer is not waited for here either.
    runtime.shutdown_background();
    let now = clock::wall_ms() / 1000;
    let archive = bundle::pack(&name, &about(&host, &time), &parts, now).map_err(failed)?;
    atomic_file::write(&output, &archive, MODE).map_err(failed)?;
    Ok((output, parts))
}

/// All parts, side by side: what one waits for delays no other.
async fn collect() -> Vec<Part> {
    let (status, volumes, settings, metrics, checked, units, properties, log) = tokio::join!(
        look(STATUS_PATH),
        look(VOLUMES_PATH),
        look("/v1/settings"),
        look("/metrics"),
        check(),
        systemctl(&["status", "--full", "--lines=0"]),
        systemctl(&["show", PROPERTIES]),
        log(),
    );
    let settings = bundle::settings(settings).into_bytes();
    vec![
        Part::new("status.json", status),
        Part::new("volumes.json", volumes),
        Part::new("settings.txt", Ok(settings)),
        Part::new("metrics.txt", metrics),
        Part::new("check.txt", checked),
        Part::new("units.txt", units),
        Part::new("properties.txt", properties),
        Part::new("mounts.txt", mounts()),
        Part::new("log.txt", log),
    ]
}

async fn look(path: &str) -> Result<Vec<u8>, String> {
    client::look(path).await.map_err(|unseen| match unseen {
        Unseen::NoAnswer(why) | Unseen::Refused(why) => why,
    })
}

/// What `vaulttmpfs check` says, a trial token aside: in a thread of its own, where it may block.
async fn check() -> Result<Vec<u8>, String> {
    let report = tokio::task::spawn_blocking(|| check::report(&Wish::default()));
    match tokio::time::timeout(PATIENCE_TO_CHECK, report).await {
        Ok(Ok(report)) => Ok(report.text(&Screen::default()).into_bytes()),
        Ok(Err(_)) => Err("it failed by a defect of this program".to_owned()),
        Err(_) => Err(format!("not done in {} s", PATIENCE_TO_CHECK.as_secs())),
    }
}

async fn systemctl(arguments: &[&str]) -> Result<Vec<u8>, String> {
    let arguments = [&["--no-pager"], arguments, &UNITS].concat();
    program::output("systemctl", &arguments, MAX_PART, PATIENCE).await
}

async fn log() -> Result<Vec<u8>, String> {
    let arguments = [
        "--no-pager",
        "--quiet",
        "--output=short-iso",
        "--lines=1000",
    ];
    let units = UNITS.iter().flat_map(|unit| ["--unit", unit]);
    let arguments: Vec<&str> = arguments.into_iter().chain(units).collect();
    program::output("journalctl", &arguments, MAX_PART, PATIENCE).await
}

/// The lines of the mount table that are volumes of ours, as this process sees it.
fn mounts() -> Result<Vec<u8>, String> {
    let table = fs::read(mount_table::OWN).map_err(|error| error.to_string())?;
    let table = String::from_utf8_lossy(&table);
    let is_ours = |line: &&str| Mount::parse(line).is_some_and(|mount| mount.volume().is_some());
    let ours: Vec<&str> = table.lines().filter(is_ours).collect();
    Ok(format!("{}\n", ours.join("\n")).into_bytes())
}

/// What the archive begins with.
fn about(host: &str, time: &str) -> String {
    let first_line = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = first_line("/proc/sys/kernel/osrelease");
    let system = first_line("/etc/os-release");
    let system = system
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("unknown");
    format!(
        "vaulttmpfs {} on {host}, {time}\nLinux {}, {}\n\n\
         No token, accessor or password is in here. Names of pods, policies, hosts and files are: have a look before you hand it on.\n",
        env!("CARGO_PKG_VERSION"),
        kernel.trim(),
        system.trim_matches('"'),
    )
}

/// The name of the archive's directory, and of its file: letters, digits, dots and dashes.
fn name(host: &str, time: &str) -> String {
    let seconds = time.split('.').next().unwrap_or(time);
    format!("vaulttmpfs-support-{host}-{seconds}")
        .replace(|one: char| !one.is_ascii_alphanumeric() && one != '.', "-")
}

fn host() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_on_every_file_system() {
        let name = name("node/..\n1", "2026-11-21T16:20:05.123456Z");
        assert_eq!(name, "vaulttmpfs-support-node-..-1-2026-11-21T16-20-05");
    }
}
