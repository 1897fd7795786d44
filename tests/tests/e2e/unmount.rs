//! Unmount needs nobody, and takes nothing that is not ours.

use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;
use vaulttmpfs_tests::{Lab, Pod, eventually};

/// Longer than an unmount takes that only tells an agent who does not listen.
const SOON: Duration = Duration::from_secs(60);

fn mount_tmpfs(source: &str, directory: &Path) {
    let flags = MsFlags::empty();
    mount(Some(source), directory, Some("tmpfs"), flags, None::<&str>).unwrap();
}

#[test]
fn a_volume_goes_and_the_agent_forgets_it() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    lab.kubelet.unmount(&volume).assert_success();
    assert_eq!(lab.node.volumes(), []);
    eventually("the agent to forget the volume", || {
        let left = lab.agent.volumes();
        let attached = left.iter().any(|volume| volume["state"] == "attached");
        (!attached).then_some(())
    });
    lab.assert_all_accounted_for();
}

#[test]
fn nothing_mounted_is_nothing_to_do() {
    let lab = Lab::start();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    lab.kubelet.unmount_only(&volume).assert_success();
    fs::create_dir_all(&volume.directory).unwrap();
    lab.kubelet.unmount(&volume).assert_success();
}

#[test]
fn it_works_without_an_agent() {
    let mut lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    lab.agent.kill();
    let outcome = lab.kubelet.unmount(&volume);
    outcome.assert_success();
    assert!(outcome.took < SOON, "{:?}", outcome.took);
    assert_eq!(lab.node.volumes(), []);
}

#[test]
fn it_works_with_an_agent_that_hangs() {
    let mut lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    lab.agent.freeze();
    let outcome = lab.kubelet.unmount(&volume);
    lab.agent.thaw();
    outcome.assert_success();
    assert!(outcome.took < SOON, "{:?}", outcome.took);
    assert_eq!(lab.node.volumes(), []);
}

#[test]
fn it_works_without_vault() {
    let mut lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    lab.vault.process().kill();
    let outcome = lab.kubelet.unmount(&volume);
    outcome.assert_success();
    assert!(outcome.took < SOON, "{:?}", outcome.took);
}

#[test]
fn every_stacked_volume_goes() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    // As an older driver, or a kubelet that was killed twice, may have left it.
    mount_tmpfs(
        "vaulttmpfs:000102030405060708090a0b0c0d0eff",
        &volume.directory,
    );
    assert_eq!(lab.node.volumes().len(), 2);
    lab.kubelet.unmount(&volume).assert_success();
    assert_eq!(lab.node.volumes(), []);
}

#[test]
fn what_someone_else_mounted_stays() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    mount_tmpfs("theirs", &volume.directory);
    let before = lab.node.mounts();
    lab.kubelet
        .unmount_only(&volume)
        .assert_failure(&["someone else", "theirs"]);
    assert_eq!(lab.node.mounts(), before);
    nix::mount::umount(&volume.directory).unwrap();
    lab.kubelet.unmount(&volume).assert_success();
}

#[test]
fn a_busy_volume_stays_until_it_is_not() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let open = File::open(volume.directory.join("vault-token")).unwrap();
    lab.kubelet
        .unmount_only(&volume)
        .assert_failure(&["in use"]);
    assert_eq!(lab.node.volumes().len(), 1);
    drop(open);
    lab.kubelet.unmount(&volume).assert_success();
    assert_eq!(lab.node.volumes(), []);
}
