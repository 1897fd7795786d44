//! A kubelet's root in a mount namespace of the test's own, and the driver executed on it.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vaulttmpfs_api::MountDir;
use vaulttmpfs_shim::{Answer, Bounds, Call, Settings};

/// The pod's uid in every directory here.
pub(crate) const UID: &str = "afd196c8a70643bdc8c3b5e59c5eb89b";

/// A wait that ends by its condition; only a broken test gets this far.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    /// A tmpfs of the namespace is mounted on it: whatever a test leaves behind goes with it.
    base: TempDir,
}

impl Bed {
    /// A new one, or nothing without root's rights. This thread and its children are in the namespace.
    pub(crate) fn new() -> Option<Self> {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            eprintln!("SKIPPED: this test mounts and needs root");
            return None;
        }
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let base = tempfile::tempdir().unwrap();
        mount(
            Some("bed"),
            base.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        Some(Self { base })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// A mount directory as the kubelet makes it.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        let dir = self.unmade(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The same, but not made.
    pub(crate) fn unmade(&self, name: &str) -> PathBuf {
        self.path(&format!(
            "kubelet/pods/{UID}/volumes/cloudwatt~vaulttmpfs/{name}"
        ))
    }

    /// The driver with these arguments, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(driver());
        command
            .args(arguments)
            .env_clear()
            .env("VAULTTMPFS_SOCKET", self.socket())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Value {
        answer(&self.command(arguments).output().unwrap())
    }

    pub(crate) fn mount(&self, dir: &Path) -> Value {
        self.call(&["mount", dir.to_str().unwrap(), &options()])
    }

    /// A mount in this process, so that its bounds can be others than the driver's.
    pub(crate) fn mount_with(&self, dir: &Path, bounds: Bounds) -> Answer {
        let call = Call::Mount {
            dir: MountDir::parse(dir.to_str().unwrap()).unwrap(),
            options: options(),
        };
        call.answer(|| Settings {
            socket: Ok(self.socket()),
            bounds,
        })
    }

    pub(crate) fn unmount(&self, dir: &Path) -> Value {
        self.call(&["unmount", dir.to_str().unwrap()])
    }

    /// Unmounts what this process has had open: a child of another test's, on its way to exec, may
    /// have it open a moment longer.
    pub(crate) fn unmount_used(&self, dir: &Path) {
        eventually("it can be unmounted", || {
            let answer = self.unmount(dir);
            answer["status"] == "Success" || {
                assert_failure(&answer, "still in use");
                false
            }
        });
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = umount2(self.base.path(), MntFlags::MNT_DETACH);
    }
}

/// The driver under test: cargo's, or another one, such as `packaging/build-driver` makes, that
/// `VAULTTMPFS_DRIVER` names.
pub(crate) fn driver() -> PathBuf {
    std::env::var_os("VAULTTMPFS_DRIVER").map_or_else(
        || env!("CARGO_BIN_EXE_vaulttmpfs-shim").into(),
        PathBuf::from,
    )
}

/// What the kubelet would make of the driver's end: it must be one line of JSON and exit code 0.
pub(crate) fn answer(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(output.stdout.ends_with(b"\n"), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The options of a pod, with a Kubernetes secret among them.
pub(crate) fn options() -> String {
    format!(
        r#"{{"kubernetes.io/fsType":"","kubernetes.io/pod.uid":"{UID}","kubernetes.io/readwrite":"rw","kubernetes.io/secret/k":"aHVudGVyMg==","vault/policies":"app"}}"#
    )
}

/// The sources of the mounts on a directory, uppermost last.
pub(crate) fn sources(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.split(' ').nth(4) == dir.to_str())
        .map(|line| line.split_once(" - ").unwrap().1)
        .map(|tail| tail.split(' ').nth(1).unwrap().to_owned())
        .collect()
}

/// A tmpfs of someone else's.
pub(crate) fn mount_foreign(dir: &Path) {
    let none: Option<&str> = None;
    mount(Some("someone"), dir, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

#[track_caller]
pub(crate) fn assert_success(answer: &Value) {
    assert_eq!(answer["status"], "Success", "{answer}");
}

#[track_caller]
pub(crate) fn assert_failure(answer: &Value, part: &str) {
    assert_eq!(answer["status"], "Failure", "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains(part), "{message}");
    assert!(!message.contains("aHVudGVyMg"), "{message}");
    assert!(!message.contains("cy5zZWNyZXQ"), "{message}");
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
