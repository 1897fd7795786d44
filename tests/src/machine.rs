//! A whole machine in a container: a real systemd boots the files of a small Debian or Ubuntu. What
//! it writes is kept over its reboots and gone with the test; no network leads out of it.

use crate::child::RunAs;
use crate::mounts::mount_table_of;
use crate::socket::{self, Answer};
use crate::{Child, Kubelet, Mount, Said, binaries, eventually_within};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use vaulttmpfs_api::{DRIVER_DIRECTORY, SOURCE_PREFIX};

/// How long booting may take on a busy machine; it takes a second on an idle one.
const BOOT: Duration = Duration::from_secs(120);

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the control group of a machine is called, before its test's process and thread.
const CGROUP_PREFIX: &str = "vaulttmpfs-machine-";

/// Where an administrator's command looks for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a machine's kubelet looks for drivers by default.
pub const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// Where a machine's agent listens.
const SOCKET: &str = "/run/vaulttmpfs/agent.sock";

/// A booted machine. Its network is the test's own thread's: a loopback that leads nowhere, where
/// the thread may run a Vault server that both see.
pub struct Machine {
    /// systemd's process id, as the test sees it.
    systemd: u32,
    container: Child,
    cgroup: PathBuf,
    // Removed last: what is above is mounted on it.
    directory: TempDir,
}

impl Machine {
    /// Boots one. The calling thread moves into a mount and a network namespace of its own; the
    /// machine ends with it, even where the whole test is killed.
    #[must_use]
    pub fn boot() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "booting a machine needs root: see tests/README.md"
        );
        let directory = tempfile::Builder::new()
            .prefix("vaulttmpfs-machine-")
            .tempdir()
            .expect("a directory for the machine");
        isolate();
        lay_over(&binaries::machine_root(), directory.path());
        let cgroup = Path::new(CGROUPS).join(cgroup_name());
        sweep();
        fs::create_dir(&cgroup).expect("a control group");
        let root = directory.path().join("root");
        prepare(&root);
        let (container, systemd) = start(&root, &cgroup);
        Self {
            systemd,
            container,
            cgroup,
            directory,
        }
    }

    /// Boots it again, as after `reboot`: its files stay, its processes and mounts are gone.
    pub fn reboot(&mut self) {
        // The command may lose its connection to the manager that it ends.
        let _ = self.run(&["systemctl", "reboot"]);
        eventually_within(BOOT, "the machine to go down", || self.container.ended());
        self.start_again();
    }

    /// Takes its power away, and boots it again.
    pub fn lose_power(&mut self) {
        self.container.kill();
        self.start_again();
    }

    fn start_again(&mut self) {
        let (container, systemd) = start(&self.directory.path().join("root"), &self.cgroup);
        (self.container, self.systemd) = (container, systemd);
    }

    /// Where the test finds a file of the machine, mounts included. Absolute symbolic links on the
    /// way would lead to the test's own files.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.systemd)).join(path.trim_start_matches('/'))
    }

    /// Writes a file, root's and 0644.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads a file that must be there.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Whether there is something.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Copies a file of the test's own side into it.
    pub fn copy_in(&self, from: &Path, to: &str) {
        let target = self.path(to);
        fs::copy(from, target)
            .unwrap_or_else(|error| panic!("{} to {to}: {error}", from.display()));
    }

    /// A command as root in all of the machine's namespaces.
    #[must_use]
    pub fn command(&self, program: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.systemd.to_string()])
            .args(["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--"])
            .args(program)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .env("SYSTEMD_PAGER", "")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, whatever comes of it.
    #[must_use]
    pub fn run(&self, program: &[impl AsRef<OsStr>]) -> Said {
        Said::of(&self.command(program).output().expect("nsenter runs"))
    }

    /// Runs some lines of shell as an administrator types them, which must go well, and returns what
    /// they wrote to standard output.
    #[track_caller]
    pub fn sh(&self, lines: &str) -> String {
        let said = self.run(&["bash", "-euo", "pipefail", "-c", lines]);
        assert_eq!(said.status, 0, "{lines}: {said:#?}");
        said.output
    }

    /// The value of a unit's property.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let value = self.sh(&format!("systemctl show --value --property {name} {unit}"));
        value.trim_end().to_owned()
    }

    /// Everything that its journal has of all its boots, one JSON object a line.
    #[must_use]
    pub fn journal(&self) -> String {
        self.sh("journalctl --sync; journalctl --output json --all")
    }

    /// One call on the agent's socket as root.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        self.inside(|| socket::call(Path::new(SOCKET), method, path, body))
    }

    /// The product's mounts on the machine, outside every service.
    #[must_use]
    pub fn volumes(&self) -> Vec<Mount> {
        let mut mounts = mount_table_of(&self.systemd.to_string());
        mounts.retain(|mount| mount.source.starts_with(SOURCE_PREFIX));
        mounts
    }

    /// Its kubelet, with the driver where the package puts it. It is to be used [`Self::inside`].
    #[must_use]
    pub fn kubelet(&self) -> Kubelet {
        let driver = Path::new(PLUGINS).join(DRIVER_DIRECTORY).join("vaulttmpfs");
        Kubelet::new(&driver, Path::new("/var/lib/kubelet"), Path::new(SOCKET)).on_a_machine()
    }

    /// Does something in a thread that sees the machine's files as its own, and nothing of the
    /// test's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let thread = || {
            let namespace = File::open(format!("/proc/{}/ns/mnt", self.systemd));
            // Threads of one process share their root until one of them asks for its own.
            unshare(CloneFlags::CLONE_FS).expect("a root of the thread's own");
            setns(namespace.expect("the machine"), CloneFlags::CLONE_NEWNS).expect("its mounts");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(thread).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.run(&[
                "journalctl",
                "--lines",
                "80",
                "--no-hostname",
                "--output",
                "short-monotonic",
            ]);
            println!("the machine's journal ends so:\n{}", said.output);
        }
        self.container.kill();
        // From here on nobody could be told of an error, and what is left is the kernel's to end.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..100 {
            remove_cgroups(&self.cgroup);
            if !self.cgroup.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for place in ["root", "upper"] {
            let _ = umount2(&self.directory.path().join(place), MntFlags::MNT_DETACH);
        }
    }
}

/// Moves the calling thread, and what it starts from now on, into namespaces where it may mount and
/// listen as it likes.
fn isolate() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .expect("namespaces (this needs CAP_SYS_ADMIN)");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let loopback = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(
        loopback.expect("ip").success(),
        "the loopback does not come up"
    );
    // A pure version 2, whatever this machine has: a container's systemd takes what it finds.
    let unmounted = Command::new("umount")
        .args(["--recursive", CGROUPS])
        .status();
    assert!(unmounted.expect("umount").success(), "{CGROUPS} is busy");
    mount_new("cgroup2", Path::new(CGROUPS), "");
    // systemd-nspawn keeps its locks there.
    mount_new("tmpfs", Path::new("/run"), "mode=0755");
}

fn mount_new(kind: &str, place: &Path, options: &str) {
    let flags = MsFlags::empty();
    mount(Some(kind), place, Some(kind), flags, Some(options))
        .unwrap_or_else(|error| panic!("{kind} on {}: {error}", place.display()));
}

/// Mounts the cached root at `directory/root` so that whatever is written goes to memory.
fn lay_over(lower: &Path, directory: &Path) {
    let upper = directory.join("upper");
    let root = directory.join("root");
    fs::create_dir(&upper).expect("a directory");
    fs::create_dir(&root).expect("a directory");
    mount_new("tmpfs", &upper, "mode=0755,size=2g");
    for part in ["files", "work"] {
        fs::create_dir(upper.join(part)).expect("a directory");
    }
    let options = format!(
        "lowerdir={},upperdir={upper}/files,workdir={upper}/work",
        lower.display(),
        upper = upper.display()
    );
    mount_new("overlay", &root, &options);
}

/// What makes the root this one machine's.
fn prepare(root: &Path) {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random uuid");
    fs::write(root.join("etc/machine-id"), uuid.replace('-', "")).expect("its machine-id");
    // The journal is kept over reboots.
    fs::create_dir_all(root.join("var/log/journal")).expect("a directory for the journal");
}

fn cgroup_name() -> String {
    format!(
        "{CGROUP_PREFIX}{}-{}",
        std::process::id(),
        nix::unistd::gettid()
    )
}

/// Removes what machines of killed tests have left: empty control groups, which end with nobody.
fn sweep() {
    for entry in fs::read_dir(CGROUPS).expect("control groups").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let test = name
            .strip_prefix(CGROUP_PREFIX)
            .and_then(|rest| rest.split('-').next());
        if test.is_some_and(|test| !Path::new("/proc").join(test).exists()) {
            remove_cgroups(&entry.path());
        }
    }
}

/// Removes a control group and those below it, as far as no process is in them.
fn remove_cgroups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Starts the container, and waits until systemd has booted it.
fn start(root: &Path, cgroup: &Path) -> (Child, u32) {
    // In a pid namespace of its own: whoever kills its first process kills them all. Without it a
    // killed systemd-nspawn leaves the machine running.
    let mut command = Child::command(OsStr::new("sh"), RunAs::Root);
    let log = File::create(root.with_file_name("console.log")).expect("the console's log");
    command
        .args(["-c", r#"echo $$ >"$0" && exec "$@""#])
        .arg(cgroup.join("cgroup.procs"))
        .args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["systemd-nspawn", "--boot", "--register=no", "--keep-unit"])
        .args(["--hostname=node", "--resolv-conf=off", "--timezone=off"])
        .args(["--link-journal=no", "--console=pipe"])
        .args(["--capability=all", "--system-call-filter=@known"])
        .arg("--directory")
        .arg(root)
        .env("PATH", PATH)
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the console's log"))
        .stderr(log);
    let mut container = Child::spawn(&mut command, "systemd-nspawn");
    let systemd = eventually_within(BOOT, "systemd to boot the machine", || {
        if let Some(status) = container.ended() {
            let log = fs::read_to_string(root.with_file_name("console.log"));
            panic!(
                "systemd-nspawn ended, {status}: {}",
                log.unwrap_or_default()
            );
        }
        let systemd = systemd_below(container.id())?;
        let enter = ["--target", &systemd.to_string(), "--mount", "--pid", "--"].map(str::to_owned);
        let state = Command::new("nsenter")
            .args(enter)
            .args(["systemctl", "is-system-running"])
            .stderr(Stdio::null())
            .output();
        let state = String::from_utf8(state.expect("nsenter runs").stdout).unwrap_or_default();
        ["running", "degraded"]
            .contains(&state.trim())
            .then_some(systemd)
    });
    (container, systemd)
}

/// The systemd that a container's `unshare` has started by way of systemd-nspawn.
fn systemd_below(unshare: u32) -> Option<u32> {
    let nspawn = *children(unshare).first()?;
    children(nspawn).into_iter().find(|process| {
        let name = fs::read_to_string(format!("/proc/{process}/comm"));
        name.is_ok_and(|name| name.trim_end() == "systemd")
    })
}

fn children(process: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}
