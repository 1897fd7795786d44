//! Tokens of living volumes live on, far beyond their TTL.

use super::{
    Accessors, RENEW, SOON, age, mounted, plain, plain_role, shown, wait_for_log, wait_until_seen,
};
use serde_json::json;
use std::time::Duration;
use vaulttmpfs_tests::{Lab, Role, eventually_within, text};

/// In seconds. A third of it is the time between renewals, so a busy machine may be late by half.
const PERIOD: u64 = 15;

/// For how many periods the tokens are watched.
const PERIODS: u64 = 4;

#[test]
fn tokens_live_for_many_periods() {
    let period = format!("{PERIOD}s");
    let lab = Lab::builder()
        .applications(&json!({ "period": period }))
        .role(plain_role(&period))
        .role(Role::new("rare", &json!({ "period": period })))
        .proxied()
        .start();
    let untouched = mounted(&lab, "untouched-0", &lab.options());
    let used = mounted(&lab, "used-0", &lab.options());
    let holder = lab.unwrap(&used);
    let plain = mounted(&lab, "plain-0", &plain(&lab));
    let plain_holder = lab.vault.root().with_token(&plain.read("vault-token"));
    // The agent hears of this role with the first mount.
    let rare = mounted(&lab, "rare-0", &lab.options().with("vault/role", "rare"));
    let all = [&untouched, &used, &plain, &rare].map(|volume| {
        let accessor = Accessors::of(&lab, volume).0.remove(0);
        (volume, accessor)
    });
    let until = PERIOD * PERIODS;
    eventually_within(
        Duration::from_secs(2 * until),
        "some periods to pass",
        || {
            let ages = all.each_ref().map(|(volume, accessor)| {
                age(&lab, accessor).unwrap_or_else(|| panic!("{}: its token died", volume.pod.name))
            });
            ages.iter().all(|age| *age >= until).then_some(())
        },
    );
    for holder in [
        &holder,
        &plain_holder,
        &lab.unwrap(&untouched),
        &lab.unwrap(&rare),
    ] {
        assert_eq!(holder.read("secret/app").status, 200);
    }
    // Thirds of a period, give or take a quarter: not in a rush, either.
    let most = usize::try_from(4 * until.div_ceil(PERIOD / 4)).unwrap();
    let renewals = lab.proxy().count(RENEW);
    assert!(renewals <= most, "{renewals} renewals of 4 volumes");
    for (volume, _) in all {
        let shown = shown(&lab, volume).unwrap();
        assert!(shown["renewed_wall_ms"].is_u64(), "{shown}");
        assert_eq!(shown["lost"], false);
    }
}

/// A token's TTL, in seconds.
const TTL: u64 = 15;

/// How long it lives at most, in seconds.
const MAX: u64 = 60;

fn is_kept_to_its_end_which_is_said_before(role: Role, options: &[(&str, &str)]) {
    let lab = Lab::builder().role(role).start();
    let options = options
        .iter()
        .fold(lab.options(), |all, (name, value)| all.with(name, value))
        .with("vault/role", "ending")
        .with("vault/ttl", &format!("{TTL}s"));
    let volume = mounted(&lab, "ending-0", &options);
    let accessor = Accessors::of(&lab, &volume).0.remove(0);
    let holder = lab.unwrap(&volume);
    wait_for_log(&lab, "shop/ending-0 volume vault: its token ends in");
    let said_at = age(&lab, &accessor).expect("said while the token lives");
    assert!((MAX / 2..MAX).contains(&said_at), "said after {said_at} s");
    // Its last renewal may be a whole TTL before its end, where the end is the agent's to keep.
    eventually_within(Duration::from_secs(MAX), "nearly its whole life", || {
        let age = age(&lab, &accessor).expect("kept to its end");
        (age >= MAX - TTL - 1).then_some(())
    });
    assert_eq!(holder.read("secret/app").status, 200);
    eventually_within(Duration::from_secs(MAX), "its end", || {
        age(&lab, &accessor).is_none().then_some(())
    });
}

#[test]
fn a_roles_max_ttl() {
    let changes = json!({ "period": "0s", "explicit_max_ttl": format!("{MAX}s") });
    is_kept_to_its_end_which_is_said_before(Role::new("ending", &changes), &[]);
}

/// Vault forgets it at the first renewal, which takes the role's: keeping it is the agent's.
#[test]
fn a_pods_own_max_ttl() {
    let max = format!("{MAX}s");
    let role = Role::new("ending", &json!({ "period": "0s" }));
    is_kept_to_its_end_which_is_said_before(role, &[("vault/maxTTL", &max)]);
}

#[test]
fn renewals_wait_for_vault_and_go_on() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "40s" }))
        .start();
    let volumes: Vec<_> = (0..20)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    let accessors: Vec<_> = volumes.iter().map(|one| Accessors::of(&lab, one)).collect();
    // Sealed until all are due.
    lab.vault.seal();
    super::give_time(Duration::from_secs(18));
    lab.vault.unseal();
    eventually_within(
        Duration::from_secs(90),
        "one and a half periods to pass",
        || {
            let ages: Vec<u64> = accessors
                .iter()
                .map(|both| age(&lab, &both.0[0]).expect("a living token"))
                .collect();
            ages.iter().all(|age| *age >= 60).then_some(())
        },
    );
}

/// A role's new period takes effect at a token's next renewal, which may be hours ahead by the old.
#[test]
fn a_roles_shorter_period_ends_no_token() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "72s" }))
        .start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessor = Accessors::of(&lab, &volume).0.remove(0);
    let shorter = Role::new("applications", &json!({ "period": "15s" }));
    lab.vault.root().make_roles(&[shorter]);
    eventually_within(Duration::from_secs(180), "some shorter periods", || {
        (age(&lab, &accessor).expect("a living token") >= 90).then_some(())
    });
    assert!(!lab.agent.log().contains("explicit max TTL"));
}

/// Due together, as after an outage: the nearest expiry first, and no faster than the rate.
#[test]
fn after_an_outage_the_nearest_expiry_goes_first() {
    const VOLUMES: u64 = 8;
    /// So many are asked for at once, and Vault may take them in any order.
    const ON_THEIR_WAY: usize = 4;
    let mut lab = Lab::builder()
        .set("VAULTTMPFS_MAX_VAULT_RATE", "2:1")
        .proxied()
        .start();
    for number in 0..VOLUMES {
        let volume = mounted(&lab, &format!("web-{number}"), &lab.options());
        wait_until_seen(&lab, &volume);
    }
    lab.agent.kill();
    let mut expected = Vec::new();
    lab.node.change_records(|record| {
        let name = record["pod"]["name"].as_str().unwrap();
        let number: u64 = name.trim_start_matches("web-").parse().unwrap();
        // In no order of making, pods or ids.
        let minutes = 10 + number * 5 % VOLUMES;
        let created = record["created"].clone();
        let later = |field: &str| created[field].as_u64().unwrap() + minutes * 60_000;
        record["expires"] = json!({ "boottime": later("boottime"), "wall": later("wall") });
        record["ttl_ms"] = json!(3);
        expected.push((minutes, record["accessor"].as_str().unwrap().to_owned()));
    });
    expected.sort();
    lab.agent.start();
    eventually_within(SOON, "all renewals", || {
        (lab.proxy().count(RENEW) == expected.len()).then_some(())
    });
    let renewed: Vec<String> = lab
        .vault
        .audit_log()
        .iter()
        .filter(|entry| {
            entry["type"] == "request" && entry["request"]["path"] == "auth/token/renew-accessor"
        })
        .map(|entry| text(&entry["request"]["data"]["accessor"]))
        .collect();
    let expected: Vec<_> = expected.into_iter().map(|(_, accessor)| accessor).collect();
    for (place, accessor) in renewed.iter().enumerate() {
        let due = expected.iter().position(|one| one == accessor).unwrap();
        let moved = place.abs_diff(due);
        assert!(moved < ON_THEIR_WAY, "{due} was renewed as {place}");
    }
    let times = lab.proxy().times(RENEW);
    let took = *times.last().unwrap() - times[0];
    assert!(
        took >= Duration::from_secs(2),
        "8 at 2 a second in {took:?}"
    );
}
