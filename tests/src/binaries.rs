//! Where the programs under test, and OpenBao, are.

use std::path::{Path, PathBuf};

const OPENBAO_VERSION: &str = "2.7.2";
const OPENBAO_WITH_LDAP_VERSION: &str = "2.6.2";
const KUBELET_VERSION: &str = "1.20.2";

/// The agent and admin's command, `vaulttmpfs`.
pub fn agent() -> PathBuf {
    built("vaulttmpfs", &profile())
}

/// The driver that the kubelet executes.
pub fn driver() -> PathBuf {
    built("driver/vaulttmpfs", &target())
}

/// OpenBao: `OPENBAO`, or where `tests/run` keeps it.
pub(crate) fn openbao() -> PathBuf {
    fetched("OPENBAO", &format!("openbao-{OPENBAO_VERSION}/bao"))
}

/// The last OpenBao with LDAP among its auth methods: `OPENBAO_WITH_LDAP`, or where `tests/run` keeps it.
pub(crate) fn openbao_with_ldap() -> PathBuf {
    let name = format!("openbao-{OPENBAO_WITH_LDAP_VERSION}/bao");
    fetched("OPENBAO_WITH_LDAP", &name)
}

/// A real kubelet: `KUBELET`, or where `tests/run` keeps it.
pub(crate) fn kubelet() -> PathBuf {
    fetched("KUBELET", &format!("kubelet-{KUBELET_VERSION}/kubelet"))
}

/// A program that this variable names, or else is in the cache.
fn fetched(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| cache().join(name), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: tests/run puts it there, or let {variable} name another",
        path.display()
    );
    path
}

/// The root of a machine to boot: `MACHINE_ROOT`, or the one that `tests/run` made last.
pub(crate) fn machine_root() -> PathBuf {
    named("MACHINE_ROOT").unwrap_or_else(|| last_in_cache("machine-"))
}

/// The files of an LDAP server's package: `SLAPD`, or what `tests/run` fetched last.
pub(crate) fn slapd() -> PathBuf {
    named("SLAPD").unwrap_or_else(|| last_in_cache("slapd-"))
}

/// Prometheus: `PROMETHEUS`, or the one that `tests/run` fetched last. `promtool` is beside it.
pub(crate) fn prometheus() -> PathBuf {
    named("PROMETHEUS").unwrap_or_else(|| last_in_cache("prometheus-").join("prometheus"))
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn last_in_cache(prefix: &str) -> PathBuf {
    let entries = std::fs::read_dir(cache()).into_iter().flatten().flatten();
    let fitting = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(prefix.as_bytes())
    });
    let last = fitting.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    last.unwrap_or_else(|| panic!("{prefix}… is missing: tests/run has it"))
        .path()
}

/// What `packaging/build` made last, by its ending: `deb` or `rpm`.
#[must_use]
pub fn package(ending: &str) -> PathBuf {
    let packages = std::fs::read_dir(target().join("packages"));
    let entries = packages.into_iter().flatten().flatten();
    let kind = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|own| own == ending));
    let last = kind.max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
    last.unwrap_or_else(|| panic!("no {ending} package is built: packaging/build makes it"))
}

/// The files that `packaging/build` put into these packages, as on a node.
#[must_use]
pub fn package_files() -> PathBuf {
    target().join("release/package")
}

/// What `packaging/build` makes rpms with: `CARGO_GENERATE_RPM`, or the one that it built last.
#[must_use]
pub fn cargo_generate_rpm() -> PathBuf {
    let built = || last_in_cache("cargo-generate-rpm-").join("bin/cargo-generate-rpm");
    named("CARGO_GENERATE_RPM").unwrap_or_else(built)
}

fn cache() -> PathBuf {
    let caches = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    caches.join("vaulttmpfs")
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
