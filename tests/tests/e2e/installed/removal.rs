//! Removal and purge: pods that run are left alone, and otherwise nothing stays.

use super::{AGENT, AGENTS_SOCKET, PACKAGE, PLACE, Site};
use std::collections::BTreeSet;
use vaulttmpfs_tests::{Machine, PLUGINS, Volume};

#[test]
fn what_was_purged_has_left_nothing() {
    let site = Site::bare();
    let before = before(&site);
    site.unmount(&first_volume(&site));
    assert!(files(&site.machine).is_superset(&before));

    let said = remove(&site);
    assert!(!site.machine.has(PLACE), "the driver is left: {said}");
    site.assert_active(AGENTS_SOCKET, false);
    site.assert_active(AGENT, false);
    assert!(
        site.machine.has(super::SETTINGS),
        "settings go with a purge"
    );

    purge(&site);
    assert_only(&site, &before);
    let units = site
        .machine
        .sh("systemctl list-units --all --plain --no-legend 'vaulttmpfs*'");
    assert_eq!(units, "", "units left");
}

#[test]
fn a_driver_with_volumes_stays_until_they_are_gone() {
    let site = Site::installed();
    let volume = site.mount("web-0");
    let token = site.machine.inside(|| volume.read("vault-token"));
    let said = remove(&site);
    // The pod is named, runs on, and can end.
    assert!(
        said.contains("web-0") || said.contains(&volume.pod.uid),
        "{said}"
    );
    assert_eq!(site.machine.volumes().len(), 1);
    assert!(
        site.machine.has(PLACE),
        "the kubelet could not unmount: {said}"
    );
    site.assert_active(AGENTS_SOCKET, false);
    site.assert_active(AGENT, false);
    assert_eq!(site.vault.root().unwrap(&token).status, 200);
    site.unmount(&volume);

    // The command that the script named ends the job.
    finish(&site, &said);

    // Who comes back finds its volumes' tokens in the journal, and revokes them, without a call.
    site.apt(PACKAGE);
    site.assert_active(AGENT, true);
    site.wait_for_living(0);
    site.unmount(&site.mount("web-1"));
}

#[test]
fn a_purge_leaves_nothing_of_a_driver_that_had_to_stay() {
    let site = Site::bare();
    let before = before(&site);
    let volume = first_volume(&site);
    let said = remove(&site);
    site.unmount(&volume);
    finish(&site, &said);
    let purged = purge(&site);
    assert!(!purged.contains("the driver is left"), "{purged}");
    assert_only(&site, &before);

    // Purged at once, with a volume mounted: what is left is named, and how it goes.
    let volume = first_volume(&site);
    let purged = purge(&site);
    let place = format!("the driver is left in {PLUGINS},");
    assert!(purged.contains(&place), "{purged}");
    assert!(
        site.machine.has(PLACE),
        "the kubelet could not unmount: {purged}"
    );
    site.unmount(&volume);
    finish(&site, &purged);
    site.machine.sh(&command_in(&purged, ", then: "));
    // The kubelet's own directories.
    site.machine.sh("rm -r /usr/libexec/kubernetes");
    assert_only(&site, &before);

    // They stay for who watches them, as a kubelet does, whatever it is called.
    site.install();
    remove(&site);
    site.machine.sh(&format!(
        "mkdir -p {PLUGINS} && systemd-run --path-property PathChanged={PLUGINS} true"
    ));
    purge(&site);
    assert!(site.machine.has(PLUGINS), "it was watched");
}

/// Installs the package, and mounts a volume.
fn first_volume(site: &Site) -> Volume {
    site.install();
    site.write_settings(super::SETTINGS, &[]);
    site.write_token(&site.vault.root().make_generator_token());
    site.machine.sh(&format!("systemctl start {AGENT}"));
    site.wait_until_ready();
    site.mount("web-0")
}

/// Purges the package, and returns what was said.
#[track_caller]
fn purge(site: &Site) -> String {
    site.machine.sh("apt-get purge --yes vaulttmpfs 2>&1")
}

/// The files before the package comes, with the directories that an administrator and a kubelet make.
pub(super) fn before(site: &Site) -> BTreeSet<String> {
    site.machine
        .sh("mkdir -p /etc/kubernetes /var/lib/kubelet/pods");
    files(&site.machine)
}

/// The files are those again, once the administrator's own are away, and the pod's directory.
#[track_caller]
pub(super) fn assert_only(site: &Site, before: &BTreeSet<String>) {
    site.machine.sh(&format!(
        "rm {}; rm -rf /var/lib/kubelet/pods/*",
        super::TOKEN
    ));
    let after = files(&site.machine);
    let left: Vec<_> = after.difference(before).collect();
    assert!(left.is_empty(), "left: {left:#?}");
    let gone: Vec<_> = before.difference(&after).collect();
    assert!(gone.is_empty(), "taken away: {gone:#?}");
}

/// Runs the command that the removal named.
#[track_caller]
fn finish(site: &Site, said: &str) {
    let command = command_in(said, "finish with: ");
    site.machine.sh(&command);
    let left = site
        .machine
        .sh(&format!("ls -A {PLUGINS} 2>/dev/null || true"));
    assert_eq!(left.trim(), "", "{command} in: {said}");
}

/// Removes the package, and returns what was said.
#[track_caller]
fn remove(site: &Site) -> String {
    site.machine.sh("apt-get remove --yes vaulttmpfs 2>&1")
}

/// The line of shell that a script tells to run.
fn command_in(said: &str, after: &str) -> String {
    let (_, rest) = said
        .split_once(after)
        .unwrap_or_else(|| panic!("no command in: {said}"));
    rest.lines().next().expect("a line").to_owned()
}

/// Every file of the machine's disk, but those that are rewritten all the time by others, and what
/// Debian keeps of users that once were, and rpm of packages.
fn files(machine: &Machine) -> BTreeSet<String> {
    let places = "/etc /usr /opt /var/lib /root /srv /home /run/vaulttmpfs /run/systemd/system";
    let list = machine.sh(&format!(
        "find {places} -xdev -not -path '/var/lib/apt/*' -not -path '/var/lib/dpkg/*' \\
             -not -path '/var/lib/systemd/*' -not -name '*-' -not -name '*.deb' \\
             -not -name '*.rpm' -not -path '*/.rpmdb*' -not -path '/var/lib/rpm*' 2>/dev/null || true"
    ));
    list.lines().map(str::to_owned).collect()
}
