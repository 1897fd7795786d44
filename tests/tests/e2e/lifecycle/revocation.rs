//! Volumes that have ended: both accessors of each are revoked, whatever comes in between.

use super::{
    AFTER_GRACE, Accessors, SOON, mount_by_hand, mounted, owed, plain, plain_role, shown,
    source_of, unmount_by_hand, wait_for_log, wait_for_state, wait_until_seen,
};
use std::process::Stdio;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Fault, Lab, Moment, Pod, eventually, eventually_within, kill_at};

const CREATE: &str = "POST /v1/auth/token/create";

/// Nothing is left of it: not at Vault, not in the journal.
#[track_caller]
fn assert_over(lab: &Lab, accessors: &Accessors, within: Duration) {
    accessors.wait_until_revoked(lab, within);
    eventually("an empty journal", || {
        lab.node.records().is_empty().then_some(())
    });
    assert_eq!(owed(lab), 0);
}

#[test]
fn after_an_unmount() {
    let lab = Lab::builder().role(plain_role("1h")).start();
    let untouched = mounted(&lab, "untouched-0", &lab.options());
    let used = mounted(&lab, "used-0", &lab.options());
    let plain = mounted(&lab, "plain-0", &plain(&lab));
    let holder = lab.unwrap(&used);
    let accessors = [&untouched, &used, &plain].map(|volume| Accessors::of(&lab, volume));
    assert_eq!(
        accessors.each_ref().map(|both| both.living(&lab)),
        [2, 1, 1]
    );
    let wrapping = untouched.read("vault-token");
    for volume in [&untouched, &used, &plain] {
        lab.kubelet.unmount(volume).assert_success();
    }
    for both in &accessors {
        assert_over(&lab, both, SOON);
    }
    assert_eq!(holder.lookup_self().status, 403);
    assert_eq!(lab.vault.root().unwrap(&wrapping).status, 400);
    assert_eq!(lab.living(), 0);
}

#[test]
fn after_an_unmount_while_vault_was_sealed() {
    let mut lab = Lab::start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    lab.vault.seal();
    lab.kubelet.unmount(&volume).assert_success();
    wait_for_state(&lab, &volume, "ended");
    assert_eq!(owed(&lab), 1);
    lab.vault.unseal();
    assert_over(&lab, &accessors, SOON);
}

#[test]
fn after_an_unmount_while_vault_was_away() {
    let mut lab = Lab::builder().vault_on_disk().start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    lab.vault.stop();
    lab.kubelet.unmount(&volume).assert_success();
    wait_for_state(&lab, &volume, "ended");
    wait_for_log(&lab, "cannot be reached");
    lab.vault.start_again();
    accessors.assert_alive(&lab);
    assert_over(&lab, &accessors, SOON);
}

#[test]
fn by_an_agent_that_was_killed_with_debts() {
    let mut lab = Lab::start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    lab.vault.seal();
    lab.kubelet.unmount(&volume).assert_success();
    lab.agent.kill();
    lab.vault.unseal();
    accessors.assert_alive(&lab);
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_over(&lab, &accessors, SOON);
}

#[test]
fn of_the_second_accessor_when_the_agent_was_killed_after_the_first() {
    let mut lab = Lab::builder().proxied().start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    // The first call passes, the second never ends.
    lab.proxy().order(1, super::REVOKE, Fault::CloseAfter);
    lab.proxy().always(super::REVOKE, Fault::Silence);
    lab.kubelet.unmount(&volume).assert_success();
    eventually_within(SOON, "the first accessor's revocation", || {
        (accessors.living(&lab) == 1).then_some(())
    });
    lab.agent.kill();
    lab.proxy().heal();
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_over(&lab, &accessors, SOON);
}

/// What vanishes without an unmount call has a minute to show itself again. One test for all the
/// ways, so that the minute passes once.
#[test]
fn a_minute_after_a_volume_has_vanished_and_not_when_it_comes_back() {
    let mut lab = Lab::start();
    let [by_hand, agent_down, back, stays] = ["by-hand-0", "agent-down-0", "back-0", "stays-0"]
        .map(|pod| mounted(&lab, pod, &lab.options()));
    let all = [&by_hand, &agent_down, &back, &stays];
    for volume in all {
        wait_until_seen(&lab, volume);
    }
    let [hand, down, again, living] = all.map(|volume| Accessors::of(&lab, volume));
    let source = source_of(&lab, &back);

    let begun = Instant::now();
    unmount_by_hand(&by_hand);
    unmount_by_hand(&back);
    wait_for_state(&lab, &by_hand, "ended");
    wait_for_state(&lab, &back, "ended");
    mount_by_hand(&back, &source);
    wait_for_state(&lab, &back, "attached");

    lab.agent.kill();
    lab.kubelet.unmount(&agent_down).assert_success();
    lab.agent.start();
    lab.agent.wait_until_ready();
    wait_for_state(&lab, &agent_down, "ended");
    for both in [&hand, &down] {
        both.assert_alive(&lab);
    }
    hand.wait_until_revoked(&lab, AFTER_GRACE);
    assert!(
        begun.elapsed() >= Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    down.wait_until_revoked(&lab, AFTER_GRACE);
    for (volume, both) in [(&back, &again), (&stays, &living)] {
        both.assert_alive(&lab);
        assert_eq!(shown(&lab, volume).unwrap()["state"], "attached");
    }
    unmount_by_hand(&back);
}

/// The agent died before it saw the volume in the mount table, and the kubelet unmounted it while
/// nobody listened. The next agent sees another come, so it would see this one, too.
#[test]
fn of_a_volume_that_was_attached_and_never_seen_where_others_come() {
    let mut lab = Lab::start();
    let other = mounted(&lab, "other-0", &lab.options());
    let volume = mounted(&lab, "web-0", &lab.options());
    for volume in [&other, &volume] {
        wait_until_seen(&lab, volume);
    }
    let accessors = Accessors::of(&lab, &volume);
    lab.agent.kill();
    lab.kubelet.unmount(&volume).assert_success();
    lab.node.change_records(|record| {
        let seen = record["pod"]["name"] == "other-0";
        record["seen"] = seen.into();
    });
    lab.agent.start();
    lab.agent.wait_until_ready();
    let [first, new] = ["first-0", "new-0"].map(|pod| {
        let volume = mounted(&lab, pod, &lab.options());
        wait_until_seen(&lab, &volume);
        volume
    });
    accessors.wait_until_revoked(&lab, AFTER_GRACE);
    for volume in [&other, &first, &new] {
        Accessors::of(&lab, volume).assert_alive(&lab);
    }
}

#[test]
fn after_a_reboot() {
    let mut lab = Lab::start();
    let volume = mounted(&lab, "web-0", &lab.options());
    wait_until_seen(&lab, &volume);
    let accessors = Accessors::of(&lab, &volume);
    lab.agent.kill();
    unmount_by_hand(&volume);
    lab.node.change_records(|record| {
        record["origin"]["boot_id"] = "11111111-2222-3333-4444-555555555555".into();
    });
    accessors.assert_alive(&lab);
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_over(&lab, &accessors, SOON);
}

/// The first volume of a node is given up only once another one was seen: before that, the agent
/// cannot know that it sees the kubelet's mounts at all.
#[test]
fn after_a_driver_died_before_it_attached() {
    let lab = Lab::start();
    let die = |pod| {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        std::fs::create_dir_all(&volume.directory).unwrap();
        let arguments = lab.kubelet.mount_arguments(&volume, &lab.options());
        kill_at(&lab.kubelet.command(&arguments), Moment::BeforeAttach);
        volume
    };
    let first = die("first-0");
    let other = mounted(&lab, "other-0", &lab.options());
    wait_until_seen(&lab, &other);
    let second = die("second-0");
    assert_eq!(lab.node.volumes().len(), 1);
    for (volume, within) in [(second, SOON), (first, AFTER_GRACE)] {
        eventually_within(within, "the end of its token", || {
            lab.vault
                .root()
                .accessors_of_pod(&volume.pod.uid)
                .is_empty()
                .then_some(())
        });
    }
    assert_eq!(lab.living(), 1);
}

#[test]
fn not_after_a_driver_died_behind_its_attach() {
    let lab = Lab::start();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    std::fs::create_dir_all(&volume.directory).unwrap();
    let arguments = lab.kubelet.mount_arguments(&volume, &lab.options());
    kill_at(&lab.kubelet.command(&arguments), Moment::AfterAttach);
    wait_for_state(&lab, &volume, "attached");
    Accessors::of(&lab, &volume).assert_alive(&lab);
    lab.kubelet.mount(&volume, &lab.options()).assert_success();
    assert_eq!(lab.living(), 1, "confirmed, not made anew");
}

#[test]
fn after_a_driver_died_while_vault_was_asked() {
    let lab = Lab::builder().proxied().start();
    lab.proxy().order(1, CREATE, Fault::held());
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    std::fs::create_dir_all(&volume.directory).unwrap();
    let arguments = lab.kubelet.mount_arguments(&volume, &lab.options());
    let mut command = lab.kubelet.command(&arguments);
    let mut driver = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the token", || (lab.living() == 1).then_some(()));
    driver.kill().unwrap();
    driver.wait().unwrap();
    eventually("the agent to see that it is gone", || {
        (lab.agent.connections() == 0).then_some(())
    });
    lab.proxy().release();
    eventually_within(SOON, "the end of its token", || {
        (lab.living() == 0).then_some(())
    });
}

#[test]
fn of_a_token_whose_directory_was_unmounted_while_vault_was_asked() {
    let lab = Lab::builder().proxied().start();
    lab.proxy().order(1, CREATE, Fault::held());
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    std::thread::scope(|scope| {
        let mount = scope.spawn(|| kubelet.mount(&volume, &options));
        eventually("the token", || (lab.living() == 1).then_some(()));
        let path = format!("/v1/volumes?mount_dir={}", volume.directory.display());
        assert!(lab.agent.call("DELETE", &path, "").is_success());
        lab.proxy().release();
        let outcome = mount.join().unwrap();
        outcome.assert_failure(&["unmounted", "while Vault made the token"]);
    });
    assert_eq!(lab.node.volumes(), []);
    eventually_within(SOON, "the end of its token", || {
        (lab.living() == 0).then_some(())
    });
}

#[test]
fn of_the_earlier_token_when_a_directory_is_mounted_anew() {
    let lab = Lab::start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let earlier = Accessors::of(&lab, &volume);
    unmount_by_hand(&volume);
    lab.kubelet.mount(&volume, &lab.options()).assert_success();
    let holder = lab.unwrap(&volume);
    earlier.wait_until_revoked(&lab, SOON);
    assert_eq!(holder.read("secret/app").status, 200);
    assert_eq!(lab.vault.root().accessors_of_pod(&volume.pod.uid).len(), 1);
}

#[test]
fn is_over_when_vault_knows_the_token_no_more() {
    // A volume whose token Vault knows no more owes nothing, and is not tried for ever.
    let lab = Lab::builder().proxied().start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    for accessor in &accessors.0 {
        let body = serde_json::json!({ "accessor": accessor });
        lab.vault.root().write("auth/token/revoke-accessor", &body);
    }
    lab.kubelet.unmount(&volume).assert_success();
    assert_over(&lab, &accessors, SOON);
    assert!(lab.proxy().count(super::REVOKE) <= 2);
}
