//! Where the programs under test, and OpenBao, are.

use std::path::{Path, PathBuf};

const OPENBAO_VERSION: &str = "2.7.2";

/// The agent and admin's command, `vaulttmpfs`.
pub(crate) fn agent() -> PathBuf {
    built("vaulttmpfs", &profile())
}

/// The driver that the kubelet executes.
pub(crate) fn driver() -> PathBuf {
    built("driver/vaulttmpfs", &target())
}

/// OpenBao: `OPENBAO`, or where `tests/run` keeps it.
pub(crate) fn openbao() -> PathBuf {
    let path = std::env::var_os("OPENBAO").map_or_else(cached_openbao, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: tests/run fetches it, or let OPENBAO name another",
        path.display()
    );
    path
}

fn cached_openbao() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    cache.join(format!("vaulttmpfs/openbao-{OPENBAO_VERSION}/bao"))
}

fn built(name: &str, directory: &Path) -> PathBuf {
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is missing: tests/run builds it (or `cargo build --workspace` and packaging/build-driver)",
        path.display()
    );
    path
}

/// `target/debug` or the like: this program is in it, or in its `deps`.
fn profile() -> PathBuf {
    let program = std::env::current_exe().expect("this program's own path");
    let mut directory = program.parent().expect("a program is in a directory");
    if directory.ends_with("deps") {
        directory = directory
            .parent()
            .expect("deps is in a profile's directory");
    }
    directory.to_owned()
}

fn target() -> PathBuf {
    let profile = profile();
    profile.parent().expect("a profile is in target").to_owned()
}

/// Takes away what cargo tells a test about itself: a cargo that the command starts would take the
/// variables for changed ones, and build again what build scripts made with others.
pub fn outside_cargo(command: &mut std::process::Command) -> &mut std::process::Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let own = ["CARGO", "NEXTEST", "__NEXTEST", "LD_LIBRARY_PATH"];
        let kept = ["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&&*text);
        if own.iter().any(|prefix| text.starts_with(prefix)) && !kept {
            command.env_remove(&name);
        }
    }
    command
}
