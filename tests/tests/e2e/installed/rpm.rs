//! The other family's package, with its scripts, in a machine that has rpm beside its own packages.

use super::{AGENT, AGENTS_SOCKET, DRIVER, PLACE, Site, assert_same};
use vaulttmpfs_tests::package;

const PACKAGE: &str = "/root/vaulttmpfs.rpm";
const SETTINGS: &str = "/etc/sysconfig/vaulttmpfs";

#[test]
fn an_rpm_installs_upgrades_and_erases() {
    let site = Site::bare();
    site.machine.copy_in(&package("rpm"), PACKAGE);
    rpm(&site, "--install");
    assert_files(&site);
    site.assert_active(AGENTS_SOCKET, true);
    assert_same(&site.machine, PLACE, DRIVER);
    site.write_settings(SETTINGS, &[]);
    site.write_token(&site.vault.root().make_generator_token());
    site.machine.sh(&format!("systemctl start {AGENT}"));
    site.wait_until_ready();
    let (since, kept) = (site.socket_since(), site.mount("kept"));

    // An upgrade is told from an erasure: the scripts of the version that goes stop nothing.
    let calls = site.under_load(|| {
        let pid = site.main_pid();
        rpm(&site, "--upgrade --replacepkgs");
        assert_ne!(site.main_pid(), pid, "the new version's agent runs");
    });
    println!("{calls} calls over an upgrade");
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
    rpm(&site, "--install");
    erase(&site);
    assert!(!site.machine.has(PLACE), "no volume is mounted");
    assert!(!site.machine.has("/usr/bin/vaulttmpfs"));
    assert!(
        site.machine.has(&format!("{SETTINGS}.rpmsave")),
        "an administrator's settings"
    );
}

#[track_caller]
fn rpm(site: &Site, how: &str) {
    let said = site
        .machine
        .sh(&format!("rpm {how} --nodeps {PACKAGE} 2>&1"));
    assert!(!said.contains("scriptlet failed"), "{said}");
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
