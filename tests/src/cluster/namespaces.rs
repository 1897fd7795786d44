//! A test in mount, network and process namespaces of its own: whatever it starts, containers too,
//! is gone with the one process that holds them.

use crate::child::RunAs;
use crate::node::own;
use crate::{Child, eventually};
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set, to the name of the test's cgroup, where the test is already in there.
const INSIDE: &str = "VAULTTMPFS_TESTS_CGROUP";

/// Where containerd and runc keep what is of no use after a reboot, and where the kubelet writes the
/// containers' output. Both paths are fixed.
const FIXED: [&str; 2] = ["/run", "/var/log"];

/// Where the product's commands keep what they did to the machine.
const CHANGED: [&str; 2] = ["/etc", "/var/lib"];

/// What a kubelet changes of the machine's settings, and the values it wants: it is shown that they
/// are there already.
const SYSCTLS: [(&str, &str); 4] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
];

/// Runs the rest of the calling test in there: the test's program is executed again, for this test
/// alone. `test` must be a closure that is written in the test itself, because its type has the
/// test's name.
#[track_caller]
pub fn in_own_namespaces<F: FnOnce()>(test: F) {
    if std::env::var_os(INSIDE).is_some() {
        furnish();
        return test();
    }
    // Tests may be threads of one process.
    let cgroup = format!(
        "vaulttmpfs-tests-{}-{}",
        std::process::id(),
        test_name::<F>().replace(':', "-")
    );
    let mut command = Child::command(OsStr::new("unshare"), RunAs::Root);
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "--",
        ])
        // The first process of a process namespace inherits, and must reap, what others leave.
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(std::env::current_exe().expect("the test's own path"))
        .args([
            "--exact",
            test_name::<F>(),
            "--nocapture",
            "--include-ignored",
        ])
        .envs(std::env::vars_os())
        .env(INSIDE, &cgroup)
        .stdin(Stdio::null());
    let mut namespaces = Child::spawn(&mut command, "the namespaces");
    let status = namespaces.wait();
    remove_cgroups(&cgroup);
    assert!(
        status.success(),
        "the test failed in its namespaces: {status}"
    );
}

/// `pods::module::test::{{closure}}` is known to the test's program as `module::test`.
fn test_name<F>() -> &'static str {
    let name = std::any::type_name::<F>();
    let name = name
        .strip_suffix("::{{closure}}")
        .expect("a test's closure");
    let (_, name) = name.split_once("::").expect("a test of a program");
    name
}

/// Makes the namespaces fit for servers and a kubelet.
fn furnish() {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.expect("ip").success(), "there is no loopback");
    for path in FIXED {
        let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
        mount(tmpfs, path, tmpfs, MsFlags::empty(), none).expect("a tmpfs");
    }
    for directory in CHANGED {
        own(directory, Path::new("/run/own"));
    }
    for (name, value) in SYSCTLS {
        let file = Path::new("/run").join(name.replace('/', "."));
        fs::write(&file, value).expect("a file");
        show_instead(&file, &format!("/proc/sys/{name}"));
    }
}

/// Lets this file be seen at that path.
pub(super) fn show_instead(file: &Path, path: &str) {
    let none = None::<&str>;
    mount(Some(file), path, none, MsFlags::MS_BIND, none).expect("a bind mount");
}

/// The cgroup below which all containers are.
pub(super) fn cgroup() -> String {
    std::env::var(INSIDE).expect("a test that runs in_own_namespaces")
}

/// A cgroup stays when its processes are gone.
fn remove_cgroups(name: &str) {
    let root = PathBuf::from("/sys/fs/cgroup");
    // Version 2, or a directory for each controller of version 1.
    let controllers = fs::read_dir(&root).expect("cgroups").flatten();
    let hierarchies = std::iter::once(root.clone()).chain(controllers.map(|entry| entry.path()));
    for cgroup in hierarchies.map(|hierarchy| hierarchy.join(name)) {
        eventually("the end of the containers' cgroups", || {
            let Ok(containers) = fs::read_dir(&cgroup) else {
                return Some(());
            };
            for container in containers.flatten().filter(|entry| entry.path().is_dir()) {
                // Busy until the kernel is done with its processes.
                let _ = fs::remove_dir(container.path());
            }
            fs::remove_dir(&cgroup).ok()
        });
    }
}
