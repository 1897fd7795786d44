//! Under a load of pods that come and go, no call is lost: whatever is restarted, killed, installed
//! anew or replaced by another version.

use super::{AGENT, DRIVER, PACKAGE, PLACE, SOON, Site, assert_same, repacked};
use vaulttmpfs_tests::eventually_within;

/// Another directory where a kubelet looks for drivers.
const OTHER_PLUGINS: &str = "/opt/plugins";
const OTHER_PLACE: &str = "/opt/plugins/cloudwatt~vaulttmpfs/vaulttmpfs";

#[test]
fn restarts_and_kills_lose_no_call() {
    let site = Site::installed();
    let kept = site.mount("kept");
    let calls = site.under_load(|| {
        for _ in 0..5 {
            another_agent(&site, &format!("systemctl restart {AGENT}"));
            another_agent(&site, &format!("systemctl kill --signal KILL {AGENT}"));
        }
    });
    println!("{calls} calls over 5 restarts and 5 kills");
    assert_kept(&site, &kept);
    site.unmount(&kept);
}

#[test]
fn packages_that_come_and_go_lose_no_call_and_update_every_place() {
    // However many volumes a fast machine mounts meanwhile, their revocations take no long time.
    let site = Site::installed_with(&["VAULTTMPFS_MAX_VAULT_RATE=10000"]);
    site.machine.sh(&format!(
        "mkdir -p {OTHER_PLUGINS} && vaulttmpfs install-driver --plugin-dir {OTHER_PLUGINS}"
    ));
    let newer = repacked(&site.machine, "99.0.0");
    let (since, kept) = (site.socket_since(), site.mount("kept"));
    let calls = site.under_load(|| {
        // Installed again, upgraded, downgraded.
        for package in [PACKAGE, &newer, PACKAGE] {
            let pid = site.main_pid();
            site.apt(package);
            assert_ne!(site.main_pid(), pid, "the agent of {package} runs");
            assert_same(&site.machine, PLACE, DRIVER);
            assert_same(&site.machine, OTHER_PLACE, DRIVER);
        }
    });
    println!("{calls} calls over three installations");
    // The calls above may have been lucky.
    assert_eq!(site.socket_since(), since, "the socket was made anew");
    assert_kept(&site, &kept);
    // No token of the others is left: each end was told, or found out.
    site.wait_for_living(1);
    site.unmount(&kept);
}

fn another_agent(site: &Site, command: &str) {
    let pid = site.main_pid();
    site.machine.sh(command);
    eventually_within(SOON, "another agent", || {
        (![0, pid].contains(&site.main_pid())).then_some(())
    });
}

/// A volume that was mounted before is still there and known, and its token lives.
#[track_caller]
fn assert_kept(site: &Site, volume: &vaulttmpfs_tests::Volume) {
    assert!(site.shown(volume).is_some(), "the volume was forgotten");
    let token = site.machine.inside(|| volume.read("vault-token"));
    assert_eq!(site.vault.root().unwrap(&token).status, 200);
}
