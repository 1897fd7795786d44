//! Tokens that Vault has lost while their pods live: named, and never made anew under a pod.

use super::{Accessors, SOON, mounted, shown, wait_for_log, wait_until_seen};
use serde_json::json;
use std::time::Duration;
use vaulttmpfs_tests::{Lab, Role, Volume, eventually_within};

const CREATE: &str = "POST /v1/auth/token/create";

fn lost(lab: &Lab) -> u64 {
    lab.agent.get("/v1/status")["volumes"]["by_state"]["lost"]
        .as_u64()
        .unwrap_or_default()
}

/// How many tokens a line of the log says to be lost.
fn lost_by(line: &str) -> usize {
    if line.contains("does not know its token") {
        return 1;
    }
    let (_, count) = line.split_once("Vault has lost ").unwrap_or_default();
    let count = count.split(' ').next().and_then(|count| count.parse().ok());
    count.unwrap_or(0)
}

#[track_caller]
fn wait_until_lost(lab: &Lab, volumes: &[Volume]) {
    eventually_within(SOON, "all of them to be lost", || {
        (usize::try_from(lost(lab)).unwrap() == volumes.len()).then_some(())
    });
}

#[test]
fn one_revoked_behind_the_agents_back_is_named() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "20s" }))
        .proxied()
        .start();
    let volume = mounted(&lab, "robbed-0", &lab.options());
    let other = mounted(&lab, "other-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    let body = json!({ "accessor": accessors.0[0] });
    lab.vault.root().write("auth/token/revoke-accessor", &body);
    wait_for_log(
        &lab,
        "shop/robbed-0 volume vault: Vault does not know its token any more",
    );
    wait_until_lost(&lab, std::slice::from_ref(&volume));
    assert_eq!(shown(&lab, &volume).unwrap()["lost"], true);
    assert_eq!(shown(&lab, &other).unwrap()["lost"], false);
    // Known over a restart, said once, and nothing is made anew under a running pod.
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    // Until its renewal would have been due.
    super::give_time(Duration::from_secs(10));
    assert_eq!(lost(&lab), 1);
    let log = lab.agent.log();
    assert_eq!(log.matches("does not know its token any more").count(), 1);
    assert_eq!(lab.proxy().count(CREATE), 2);
    Accessors::of(&lab, &other).assert_alive(&lab);
}

#[test]
fn many_after_a_backup_was_restored_are_one_event() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "60s" }))
        .role(Role::new("rare", &json!({})))
        .vault_on_disk()
        .start();
    let before = mounted(&lab, "before-0", &lab.options());
    lab.vault.save();
    eventually_within(SOON, "mounts to work again", || {
        (lab.agent.call("GET", "/readyz", "").status == 200).then_some(())
    });
    let mut after: Vec<_> = (0..8)
        .map(|number| mounted(&lab, &format!("after-{number}"), &lab.options()))
        .collect();
    // Its own renewal is far off.
    let rare = lab.options().with("vault/role", "rare");
    after.push(mounted(&lab, "rare-0", &rare));
    wait_until_seen(&lab, &after[8]);
    let kept = Accessors::of(&lab, &before);
    lab.vault.restore();
    // Renewals are due over some seconds: no one event by luck alone.
    wait_until_lost(&lab, &after);
    kept.assert_alive(&lab);
    assert_eq!(shown(&lab, &before).unwrap()["lost"], false);
    eventually_within(SOON, "all of them to be said", || {
        let said: usize = lab.agent.log().lines().map(lost_by).sum();
        (said >= after.len()).then_some(())
    });
    super::give_time(Duration::from_secs(8));
    let log = lab.agent.log();
    let said: Vec<&str> = log.lines().filter(|line| lost_by(line) > 0).collect();
    assert!(said[0].contains("Vault has lost"), "{said:#?}");
    let all: usize = said.iter().map(|line| lost_by(line)).sum();
    assert_eq!(all, after.len(), "{said:#?}");
}

#[test]
fn one_that_ended_lost_owes_nothing_for_ever() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "10s" }))
        .start();
    let volume = mounted(&lab, "robbed-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    let body = json!({ "accessor": accessors.0[0] });
    lab.vault.root().write("auth/token/revoke-accessor", &body);
    wait_until_lost(&lab, std::slice::from_ref(&volume));
    lab.kubelet.unmount(&volume).assert_success();
    accessors.wait_until_revoked(&lab, SOON);
    eventually_within(SOON, "an empty journal", || {
        lab.node.records().is_empty().then_some(())
    });
    // The directory's next volume is a new one.
    let again = mounted(&lab, "robbed-0", &lab.options());
    assert_eq!(lab.unwrap(&again).read("secret/app").status, 200);
}
