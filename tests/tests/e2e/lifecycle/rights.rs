//! The generator token's troubles: they cost what they must, and no volume.

use super::{Accessors, LOOK_UP, RENEW, REVOKE, SOON, age, give_time, mounted, owed, shown};
use serde_json::json;
use std::time::Duration;
use vaulttmpfs_tests::{Fault, GENERATOR_POLICY, Lab, eventually_within};

/// The generator's policy without the right to one of the calls by accessor.
fn take_right(lab: &Lab, action: &str) {
    let path = format!("sys/policies/acl/{GENERATOR_POLICY}");
    let policy = lab.vault.root().read(&path).body["data"]["policy"].clone();
    let rules: Vec<&str> = policy
        .as_str()
        .unwrap()
        .lines()
        .filter(|line| !line.contains(&format!("auth/token/{action}-accessor")))
        .collect();
    lab.vault
        .root()
        .make_policy(GENERATOR_POLICY, &rules.join("\n"));
}

#[test]
fn a_generator_token_that_dies_costs_no_volume() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "60s" }))
        .start();
    let volumes: Vec<_> = (0..6)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    let accessors: Vec<_> = volumes.iter().map(|one| Accessors::of(&lab, one)).collect();
    let token = std::fs::read_to_string(lab.node.path("etc/token")).unwrap();
    lab.vault
        .root()
        .write("auth/token/revoke", &json!({ "token": token }));
    // Until all have been due.
    give_time(Duration::from_secs(27));
    for volume in &volumes {
        let shown = shown(&lab, volume).unwrap();
        assert_eq!(
            (&shown["state"], &shown["lost"]),
            (&json!("attached"), &json!(false))
        );
        assert_eq!(shown["managed"], true, "{shown}");
    }
    let status = lab.agent.call("GET", "/readyz", "");
    assert_eq!(status.status, 503, "{status:?}");
    assert!(status.body.contains("generator token"), "{status:?}");
    lab.write_generator_token(&lab.vault.root().make_generator_token());
    eventually_within(
        Duration::from_secs(120),
        "a period and a half to pass",
        || {
            let ages: Vec<u64> = accessors
                .iter()
                .map(|both| age(&lab, &both.0[0]).expect("all renewed once the token is good"))
                .collect();
            ages.iter().all(|age| *age >= 90).then_some(())
        },
    );
    assert_eq!(lab.agent.call("GET", "/readyz", "").status, 200);
}

#[test]
fn a_403_now_and_then_costs_no_volume() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "40s" }))
        .proxied()
        .start();
    let volumes: Vec<_> = (0..4)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    let accessors: Vec<_> = volumes.iter().map(|one| Accessors::of(&lab, one)).collect();
    lab.proxy()
        .order(4, RENEW, Fault::error(403, "permission denied"));
    eventually_within(
        Duration::from_secs(120),
        "a period and a half to pass",
        || {
            let ages: Vec<u64> = accessors
                .iter()
                .map(|both| age(&lab, &both.0[0]).expect("renewed all the same"))
                .collect();
            ages.iter().all(|age| *age >= 60).then_some(())
        },
    );
    assert!(lab.proxy().count(RENEW) > 4);
}

#[test]
fn no_right_to_renew() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "12s" }))
        .proxied()
        .start();
    take_right(&lab, "renew");
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    eventually_within(SOON, "a try", || {
        (lab.proxy().count(RENEW) >= 1).then_some(())
    });
    assert_eq!(lab.agent.call("GET", "/readyz", "").status, 200);
    let shown = shown(&lab, &volume).unwrap();
    assert_eq!(
        (&shown["state"], &shown["lost"]),
        (&json!("attached"), &json!(false))
    );
    eventually_within(SOON, "the missing right to be said", || {
        lab.agent.log().contains("renew-accessor").then_some(())
    });
    lab.kubelet.unmount(&volume).assert_success();
    accessors.wait_until_revoked(&lab, SOON);
    // Mounts go on.
    let other = mounted(&lab, "web-1", &lab.options());
    assert_eq!(lab.unwrap(&other).read("secret/app").status, 200);
}

#[test]
fn no_right_to_revoke() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "12s" }))
        .proxied()
        .start();
    take_right(&lab, "revoke");
    let ended = mounted(&lab, "ended-0", &lab.options());
    let living = mounted(&lab, "living-0", &lab.options());
    let accessor = Accessors::of(&lab, &living).0.remove(0);
    let expires = Accessors::of(&lab, &ended).0.remove(0);
    lab.kubelet.unmount(&ended).assert_success();
    eventually_within(SOON, "a try", || {
        (lab.proxy().count(REVOKE) >= 1).then_some(())
    });
    assert_eq!(owed(&lab), 1);
    assert_eq!(lab.agent.call("GET", "/readyz", "").status, 200);
    eventually_within(SOON, "two periods of the living one", || {
        (age(&lab, &accessor).expect("renewed all the same") >= 24).then_some(())
    });
    assert!(
        lab.vault.root().lookup_accessor(&expires).is_none(),
        "left to expire"
    );
    eventually_within(SOON, "the missing right to be said", || {
        lab.agent.log().contains("revoke-accessor").then_some(())
    });
    eventually_within(SOON, "the debt to be forgotten a TTL after", || {
        (owed(&lab) == 0).then_some(())
    });
}

#[test]
fn no_right_to_look_up() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "12s" }))
        .proxied()
        .start();
    take_right(&lab, "lookup");
    let options = lab.options().with("vault/wrapTTL", "30s");
    let volume = mounted(&lab, "web-0", &options);
    let accessor = Accessors::of(&lab, &volume).0.remove(0);
    eventually_within(SOON, "the look", || {
        (lab.proxy().count(LOOK_UP) >= 1).then_some(())
    });
    eventually_within(SOON, "three periods", || {
        (age(&lab, &accessor).expect("renewed all the same") >= 36).then_some(())
    });
    assert!(lab.proxy().count(LOOK_UP) < 5, "and not for ever");
    // Vault's refusal says nothing of the volume.
    assert!(!lab.agent.log().contains("failed for good"));
}

/// A quota that background work exceeds: it waits for its turn, and every token lives on.
#[test]
fn a_quota_that_is_too_small_slows_down_and_ends_nothing() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "45s" }))
        .start();
    let volumes: Vec<_> = (0..8)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    let accessors: Vec<_> = volumes.iter().map(|one| Accessors::of(&lab, one)).collect();
    let (ended, living) = accessors.split_at(4);
    lab.vault.root().write(
        "sys/quotas/rate-limit/small",
        &json!({ "path": "auth/token/", "rate": 1, "interval": "4s" }),
    );
    for volume in &volumes[..4] {
        lab.kubelet.unmount(volume).assert_success();
    }
    eventually_within(SOON * 2, "a word about the quota", || {
        let log = lab.agent.log();
        log.contains("fewer renewals and revocations").then_some(())
    });
    give_time(Duration::from_secs(8));
    lab.vault.root().delete("sys/quotas/rate-limit/small");
    for both in ended {
        both.wait_until_revoked(&lab, SOON * 2);
    }
    for both in living {
        assert!(lab.vault.root().lookup_accessor(&both.0[0]).is_some());
    }
    assert_eq!(lab.agent.log().matches("fewer renewals").count(), 1);
}

/// Errors that no retry mends, and answers that nobody expects: each is tried in measure.
#[test]
fn odd_answers_are_not_tried_without_end() {
    for (fault, what) in [
        (Fault::error(400, "invalid request"), "final"),
        (Fault::error(500, "internal error"), "unknown"),
        (Fault::page(502), "a gateway's"),
        (Fault::text("no json"), "nonsense"),
    ] {
        let lab = Lab::builder()
            .applications(&json!({ "period": "12s" }))
            .proxied()
            .start();
        lab.proxy()
            .always("POST /v1/auth/token/lookup-accessor", fault.clone());
        lab.proxy().always(REVOKE, fault);
        let options = lab.options().with("vault/wrapTTL", "20s");
        let volume = mounted(&lab, "web-0", &options);
        let ended = mounted(&lab, "ended-0", &lab.options());
        let accessor = Accessors::of(&lab, &volume).0.remove(0);
        lab.kubelet.unmount(&ended).assert_success();
        eventually_within(SOON, "two periods", || {
            let age = age(&lab, &accessor).unwrap_or_else(|| panic!("{what}: not renewed"));
            (age >= 24).then_some(())
        });
        for call in [LOOK_UP, REVOKE] {
            eventually_within(SOON, "a try", || {
                (lab.proxy().count(call) >= 1).then_some(())
            });
            let tries = lab.proxy().count(call);
            assert!(tries < 20, "{what}: {tries} times {call}");
        }
        // Once for the look, once for the revocation.
        let said = lab.agent.log().matches("failed and is tried again").count();
        assert!(said <= 2, "{what}: said {said} times");
    }
}
