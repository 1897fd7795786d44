//! The other family's package, with its scripts, in a machine that has rpm beside its own packages.

use super::removal::{assert_only, before};
use super::{AGENT, AGENTS_SOCKET, DRIVER, PLACE, Site, assert_same};
use std::path::Path;
use std::process::Command;
use vaulttmpfs_tests::{cargo_generate_rpm, outside_cargo, package, package_files, readme};

const PACKAGE: &str = "/root/vaulttmpfs.rpm";
const SETTINGS: &str = "/etc/sysconfig/vaulttmpfs";

#[test]
fn an_rpm_installs_upgrades_and_erases() {
    let site = Site::bare();
    // That family's systems have these.
    site.machine.sh(
        "mkdir -p /etc/sysconfig /usr/libexec /usr/share/fish/vendor_completions.d /usr/share/zsh/site-functions",
    );
    let before = before(&site);
    site.machine.copy_in(&package("rpm"), PACKAGE);
    rpm(&site, "--install", PACKAGE);
    assert_files(&site);
    site.assert_active(AGENTS_SOCKET, true);
    assert_same(&site.machine, PLACE, DRIVER);
    site.write_settings(SETTINGS, &[]);
    site.write_token(&site.vault.root().make_generator_token());
    site.machine.sh(&format!("systemctl start {AGENT}"));
    site.wait_until_ready();
    let (since, kept) = (site.socket_since(), site.mount("kept"));

    // An upgrade is told from an erasure: the scripts of the version that goes stop nothing.
    let newer = another(&site, "99.0.0");
    let calls = site.under_load(|| {
        for (how, package) in [
            ("--upgrade --replacepkgs", PACKAGE),
            ("--upgrade", &newer),
            ("--upgrade --oldpackage", PACKAGE),
        ] {
            let pid = site.main_pid();
            rpm(&site, how, package);
            assert_ne!(site.main_pid(), pid, "the agent of {package} runs");
            assert_same(&site.machine, PLACE, DRIVER);
            let newer_driver = site
                .machine
                .sh(&format!("tail -c 6 {DRIVER} | tr -d '\\0'"));
            assert_eq!(newer_driver == "99.0.0", package == newer, "{how}");
        }
    });
    println!("{calls} calls over a new installation, an upgrade and a downgrade");
    assert_eq!(site.socket_since(), since, "the socket was made anew");
    let settings = site.machine.read(SETTINGS);
    assert!(settings.contains(site.vault.address()), "settings are kept");
    assert!(site.shown(&kept).is_some(), "the volume was forgotten");

    // Erased with a volume mounted, and without.
    let said = erase(&site);
    assert!(
        site.machine.has(PLACE),
        "the kubelet could not unmount: {said}"
    );
    assert!(
        said.contains(&kept.pod.uid) || said.contains("kept"),
        "{said}"
    );
    site.assert_active(AGENTS_SOCKET, false);
    site.assert_active(AGENT, false);
    site.unmount(&kept);
    // Its token is in the journal, and is ended without a call, once the settings are back.
    rpm(&site, "--install", PACKAGE);
    site.assert_active(AGENT, true);
    site.machine
        .sh(&format!("mv {SETTINGS}.rpmsave {SETTINGS}"));
    site.wait_for_living(0);
    erase(&site);
    assert!(!site.machine.has(PLACE), "no volume is mounted");
    assert!(!site.machine.has("/usr/bin/vaulttmpfs"));
    assert!(
        site.machine.has(&format!("{SETTINGS}.rpmsave")),
        "an administrator's settings"
    );

    // What `migrate` and a driver that had to stay leave goes with README's command.
    site.machine.sh(&format!(
        "touch {SETTINGS}.before-migrate; mkdir -p /etc/vaulttmpfs && touch /etc/vaulttmpfs/driver-dirs"
    ));
    site.machine.sh(&erasing_command());
    assert_only(&site, &before);
}

/// What README.md has that family run after an erasure, in the table's last column.
fn erasing_command() -> String {
    let readme = readme();
    let row = readme
        .lines()
        .find(|line| line.starts_with("| remove settings and state, too |"))
        .expect("the row");
    let command = row.rsplit('`').nth(1).expect("a command");
    command.to_owned()
}

#[track_caller]
fn rpm(site: &Site, how: &str, package: &str) {
    let said = site
        .machine
        .sh(&format!("rpm {how} --nodeps {package} 2>&1"));
    assert!(!said.contains("scriptlet failed"), "{said}");
}

/// Makes a package of the same files with another version, whose driver is another too, and returns
/// its path on the machine.
fn another(site: &Site, version: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    // As in cargo's target directory, which the package is made from.
    let files = directory.path().join("release/package");
    let new = directory.path().join("new.rpm");
    let script = r#"mkdir -p "$2" && cp -a "$1/." "$2" && printf %s "$3" >>"$2$4""#;
    let mut copy = Command::new("sh");
    copy.args(["-c", script, "sh"])
        .args([&package_files(), &files])
        .args([version, DRIVER]);
    assert!(copy.status().expect("sh").success(), "the files");
    let mut make = Command::new(cargo_generate_rpm());
    make.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args([
            "generate-rpm",
            "--package",
            "agent",
            "--payload-compress",
            "none",
        ])
        .args(["--set-metadata", &format!("version = \"{version}\"")])
        .arg("--target-dir")
        .arg(directory.path())
        .arg("--output")
        .arg(&new);
    let status = outside_cargo(&mut make).status().expect("its maker");
    assert!(status.success(), "the package");
    let path = format!("/root/vaulttmpfs-{version}.rpm");
    site.machine.copy_in(&new, &path);
    path
}

#[track_caller]
fn erase(site: &Site) -> String {
    let said = site.machine.sh("rpm --erase --nodeps vaulttmpfs 2>&1");
    assert!(!said.contains("scriptlet failed"), "{said}");
    said
}

/// Each file of the package is as the package says, and what it says is right.
#[track_caller]
fn assert_files(site: &Site) {
    let verified = site
        .machine
        .run(&["rpm", "--verify", "--nodeps", "vaulttmpfs"]);
    assert_eq!(
        (verified.status, verified.output.as_str()),
        (0, ""),
        "{verified:?}"
    );
    let format = r"[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} <%{FILEFLAGS:fflags}>\n]";
    let list = site
        .machine
        .sh(&format!("rpm --query --queryformat '{format}' vaulttmpfs"));
    let files: Vec<Vec<&str>> = list.lines().map(|line| line.split(' ').collect()).collect();
    assert!(files.len() > 10, "{list}");
    for file in files {
        let [path, mode, owner, flags] = file[..] else {
            panic!("a line of four: {file:?}");
        };
        assert_eq!(owner, "root:root", "{path}");
        let program = [DRIVER, "/usr/bin/vaulttmpfs"].contains(&path);
        assert_eq!(mode, if program { "100755" } else { "100644" }, "{path}");
        // c: configuration; n: an administrator's is not replaced; d: documentation.
        let wanted = match path {
            SETTINGS => "<cn>",
            _ if path.starts_with("/usr/share/doc/") || path.starts_with("/usr/share/man/") => {
                "<d>"
            }
            _ => "<>",
        };
        assert_eq!(flags, wanted, "{path}");
    }
}
