//! What a pod's options and the agent's settings change.

use super::{
    AFTER_GRACE, Accessors, LOOK_UP, RENEW, REVOKE, SOON, age, give_time, mounted, owed,
    wait_for_log,
};
use serde_json::json;
use std::time::Duration;
use vaulttmpfs_tests::{Lab, eventually, eventually_within};

#[test]
fn a_pod_that_wants_no_renewal() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "15s" }))
        .proxied()
        .start();
    let volume = mounted(&lab, "web-0", &lab.options().with("vault/renew", "false"));
    let other = mounted(&lab, "other-0", &lab.options());
    let unwilling = Accessors::of(&lab, &volume);
    let willing = Accessors::of(&lab, &other);
    eventually_within(SOON, "its expiry", || {
        lab.vault
            .root()
            .lookup_accessor(&unwilling.0[0])
            .is_none()
            .then_some(())
    });
    willing.assert_alive(&lab);
    assert!(lab.proxy().count(RENEW) > 0);
    let log = serde_json::to_string(&lab.vault.audit_log()).unwrap();
    assert!(!renewed(&lab, &unwilling.0[0]), "{}", log.len());
    assert!(renewed(&lab, &willing.0[0]));
}

/// Whether Vault was ever asked to renew it.
fn renewed(lab: &Lab, accessor: &str) -> bool {
    lab.vault.audit_log().iter().any(|entry| {
        entry["request"]["path"] == "auth/token/renew-accessor"
            && entry["request"]["data"]["accessor"] == accessor
    })
}

#[test]
fn a_pod_that_wants_no_revocation() {
    let lab = Lab::builder().proxied().start();
    let volume = mounted(&lab, "web-0", &lab.options().with("vault/revoke", "false"));
    let other = mounted(&lab, "other-0", &lab.options());
    let both = [&volume, &other].map(|volume| Accessors::of(&lab, volume));
    for volume in [&volume, &other] {
        lab.kubelet.unmount(volume).assert_success();
    }
    both[1].wait_until_revoked(&lab, SOON);
    eventually("an empty journal", || {
        lab.node.records().is_empty().then_some(())
    });
    both[0].assert_alive(&lab);
    assert_eq!(owed(&lab), 0);
    assert_eq!(lab.proxy().count(REVOKE), 2);
}

#[test]
fn an_agent_that_revokes_nothing() {
    let lab = Lab::builder()
        .set("VAULTTMPFS_REVOKE", "false")
        .proxied()
        .start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    lab.kubelet.unmount(&volume).assert_success();
    eventually_within(SOON, "an empty journal", || {
        lab.node.records().is_empty().then_some(())
    });
    give_time(Duration::from_secs(5));
    accessors.assert_alive(&lab);
    assert_eq!(lab.proxy().count(REVOKE), 0);
}

#[test]
fn a_delay_before_revocations() {
    let mut lab = Lab::builder().set("VAULTTMPFS_REVOKE_DELAY", "20s").start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    let begun = std::time::Instant::now();
    lab.kubelet.unmount(&volume).assert_success();
    eventually("the debt", || (owed(&lab) == 1).then_some(()));
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    accessors.assert_alive(&lab);
    accessors.wait_until_revoked(&lab, AFTER_GRACE);
    assert!(begun.elapsed() >= Duration::from_secs(20));
}

#[test]
fn a_greatest_age_for_renewals() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "15s" }))
        .set("VAULTTMPFS_MAX_AGE", "30s")
        .start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessor = Accessors::of(&lab, &volume).0.remove(0);
    eventually_within(SOON, "its life up to that age", || {
        (age(&lab, &accessor).expect("renewed so far") >= 29).then_some(())
    });
    eventually_within(SOON, "its end beyond it", || {
        age(&lab, &accessor).is_none().then_some(())
    });
    let log = lab.agent.log();
    assert!(!log.contains("does not know its token"), "ended, not lost");
}

#[test]
fn a_token_that_nobody_unwrapped_is_said_with_its_pods_name() {
    let lab = Lab::builder().proxied().start();
    let options = lab.options().with("vault/wrapTTL", "60s");
    let untouched = mounted(&lab, "forgetful-0", &options);
    let used = mounted(&lab, "careful-0", &options);
    let _ = lab.unwrap(&used);
    wait_for_log(&lab, "forgetful-0");
    eventually_within(SOON, "the look", || {
        lab.agent
            .log()
            .contains("nobody has unwrapped its token")
            .then_some(())
    });
    eventually_within(SOON, "both looks", || {
        (lab.proxy().count(LOOK_UP) >= 2).then_some(())
    });
    give_time(Duration::from_secs(5));
    assert_eq!(lab.proxy().count(LOOK_UP), 2, "one look a volume");
    let log = lab.agent.log();
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("nobody has unwrapped"))
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("shop/forgetful-0"), "{said:?}");
    let counts = &lab.agent.get("/v1/status")["volumes"];
    assert_eq!(counts["by_state"]["not-unwrapped"], 1);
    assert_eq!(counts["live"], 2, "said, and nothing done");
    for volume in [&untouched, &used] {
        let inner = Accessors::of(&lab, volume).0.remove(0);
        assert!(lab.vault.root().lookup_accessor(&inner).is_some());
    }
}

#[test]
fn a_token_that_nobody_unwrapped_is_ended_where_an_admin_wants_it() {
    let lab = Lab::builder()
        .set("VAULTTMPFS_WATCH_UNWRAP", "revoke")
        .start();
    let options = lab.options().with("vault/wrapTTL", "60s");
    let untouched = mounted(&lab, "forgetful-0", &options);
    let used = mounted(&lab, "careful-0", &options);
    let holder = lab.unwrap(&used);
    let accessors = Accessors::of(&lab, &untouched);
    accessors.wait_until_revoked(&lab, SOON);
    wait_for_log(&lab, "shop/forgetful-0");
    assert_eq!(holder.lookup_self().status, 200);
}

#[test]
fn nobody_looks_where_an_admin_does_not_want_it() {
    let lab = Lab::builder()
        .set("VAULTTMPFS_WATCH_UNWRAP", "false")
        .proxied()
        .start();
    let options = lab.options().with("vault/wrapTTL", "5s");
    let volume = mounted(&lab, "forgetful-0", &options);
    let wrapping = Accessors::of(&lab, &volume).0.remove(1);
    eventually("the wrapping's end", || {
        lab.vault
            .root()
            .lookup_accessor(&wrapping)
            .is_none()
            .then_some(())
    });
    assert_eq!(lab.proxy().count(LOOK_UP), 0);
    assert!(!lab.agent.log().contains("nobody has unwrapped"));
}
