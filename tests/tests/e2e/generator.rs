//! The generator token: renewed, checked, refused where it is too strong or too weak, and replaced
//! while the agent runs; and the commands that an administrator has for it and for the volumes.

use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{
    AFTER_UNMOUNT, Fault, GENERATOR_POLICY, Lab, Pod, Role, Vault, eventually, eventually_within,
    text,
};

/// Short enough to pass some times within a test, long enough that a machine may stall.
const PERIOD: Duration = Duration::from_secs(9);

/// The generator's policy without the rights by accessor.
const CREATE_ONLY: &str = r#"
path "auth/token/create/applications" { capabilities = ["update"] }
path "auth/token/roles/applications" { capabilities = ["read"] }
"#;

fn make_token(vault: &Vault, changes: &Value) -> Value {
    let mut body = json!({
        "policies": [GENERATOR_POLICY],
        "no_parent": true,
        "period": "24h",
        "renewable": true,
    });
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    vault.write("auth/token/create", &body)["auth"].clone()
}

/// A lab whose agent, not yet started, finds a generator token made with these changes.
fn with_token(changes: &Value) -> (Lab, Value) {
    let lab = Lab::builder().without_agent().start();
    let token = make_token(lab.vault.root(), changes);
    lab.write_generator_token(&text(&token["client_token"]));
    (lab, token)
}

fn start(lab: &mut Lab) {
    lab.agent.start();
    lab.agent.wait_until_ready();
}

fn revoke(lab: &Lab, accessor: &Value) {
    let body = json!({ "accessor": accessor });
    lab.vault.root().write("auth/token/revoke-accessor", &body);
}

fn lines(lab: &Lab, field: &str) -> String {
    lab.agent.get("/v1/status")[field].to_string()
}

/// Waits until one line under this field of the status has all these words.
fn eventually_says(lab: &Lab, field: &str, words: &[&str]) {
    eventually(&format!("{words:?} among the {field}"), || {
        let status = lab.agent.get("/v1/status");
        let has_all = |line: &Value| {
            words
                .iter()
                .all(|word| line.as_str().unwrap().contains(word))
        };
        status[field]
            .as_array()
            .unwrap()
            .iter()
            .any(has_all)
            .then_some(())
    });
}

fn policies(lab: &Lab) -> String {
    lab.agent.get("/v1/status")["vault"]["generator_policies"].to_string()
}

/// A policy by which a token that is in use can be told from another.
fn make_second_policy(lab: &Lab) {
    lab.vault.root().make_policy(
        "second",
        r#"path "secret/none" { capabilities = ["deny"] }"#,
    );
}

pub(super) fn second_token(lab: &Lab) -> String {
    make_second_policy(lab);
    let changes = json!({"policies": [GENERATOR_POLICY, "second"]});
    text(&make_token(lab.vault.root(), &changes)["client_token"])
}

#[test]
fn it_is_renewed_over_many_periods_without_a_mount() {
    let (mut lab, token) = with_token(&json!({"period": "9s"}));
    start(&mut lab);
    let begun = Instant::now();
    let accessor = text(&token["accessor"]);
    while begun.elapsed() < 3 * PERIOD {
        let alive = lab.vault.root().lookup_accessor(&accessor);
        assert!(alive.is_some(), "dead after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    let generator = lab.agent.get("/v1/status")["generator"].clone();
    assert_eq!(generator["period_s"], 9, "{generator}");
    assert!(generator["ttl_s"].as_u64().unwrap() <= 9, "{generator}");
    assert!(generator["next_renewal_s"].is_u64(), "{generator}");
    let renewals = lab.vault.audit_log();
    let renewals = renewals.iter().filter(|entry| {
        entry["type"] == "response" && entry["request"]["path"] == "auth/token/renew-self"
    });
    let renewals = renewals.count();
    assert!((6..=18).contains(&renewals), "{renewals} renewals");
    eventually_says(&lab, "warnings", &["period is 9s", "outage", "6s"]);
    let _ = lab.mounted(&lab.options());
}

/// Vault takes any period, and grants what its longest lease allows.
#[test]
fn its_period_is_what_vault_grants() {
    let (mut lab, _) = with_token(&json!({"period": "8760h"}));
    start(&mut lab);
    let period = || lab.agent.get("/v1/status")["generator"]["period_s"].clone();
    assert_eq!(period(), 768 * 3600);
    let longest = json!({"max_lease_ttl": "100h"});
    let root = lab.vault.root();
    root.write("sys/auth/token/tune", &longest);
    assert_eq!(lab.command(&["renew-token"]).status, 0);
    assert_eq!(period(), 100 * 3600);
    // What the alert on its end goes by: the whole of it is left.
    let metrics = lab.agent.call("GET", "/metrics", "").body;
    let line = "\nvaulttmpfs_generator_token_period_seconds 360000\n";
    assert!(metrics.contains(line), "{metrics}");
}

/// Vault's look-up of such a token shows no period.
#[test]
fn a_token_by_a_token_role_has_that_roles_period() {
    let (mut lab, _) = with_token(&json!({}));
    let root = lab.vault.root();
    let role = json!({"orphan": true, "period": "12h", "allowed_policies": [GENERATOR_POLICY]});
    root.write("auth/token/roles/nodes", &role);
    let token = json!({"policies": [GENERATOR_POLICY]});
    let token = root.write("auth/token/create/nodes", &token)["auth"].clone();
    lab.write_generator_token(&text(&token["client_token"]));
    start(&mut lab);
    let period = || lab.agent.get("/v1/status")["generator"]["period_s"].clone();
    assert_eq!(period(), 12 * 3600);
    eventually_says(&lab, "warnings", &["period is 12h", "outage"]);
    assert_eq!(lab.command(&["renew-token"]).status, 0);
    assert_eq!(period(), 12 * 3600);
}

/// Vault answers otherwise, but not how long the token has: that is over, and no reason for haste.
#[test]
fn a_token_past_its_end_is_not_asked_for_without_a_pause() {
    const LOOK: &str = "GET /v1/auth/token/lookup-self";
    let mut lab = Lab::builder().proxied().without_agent().start();
    let life = json!({"period": null, "ttl": "20s", "renewable": false});
    let token = make_token(lab.vault.root(), &life);
    lab.write_generator_token(&text(&token["client_token"]));
    start(&mut lab);
    lab.proxy().always(LOOK, Fault::error(500, "some error"));
    eventually_within(Duration::from_secs(120), "the agent to notice", || {
        (lab.agent.call("GET", "/readyz", "").status == 503).then_some(())
    });
    let looks = lab.proxy().count(LOOK);
    assert!(looks < 10, "{looks} looks");
}

/// Refused like any other that is no good, it is not kept in mind for the next session.
#[test]
fn a_refused_token_that_may_not_look_itself_up_leaves_the_one_in_use() {
    let mut lab = Lab::start();
    let mute = make_token(lab.vault.root(), &json!({"no_default_policy": true}));
    lab.write_generator_token(&text(&mute["client_token"]));
    let said = lab.command(&["reload"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("token in use stays"), "{said:?}");
    lab.vault.seal();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    let _ = lab.kubelet.mount(&volume, &lab.options());
    eventually("the session to break", || {
        (lab.agent.call("GET", "/readyz", "").status == 503).then_some(())
    });
    lab.vault.unseal();
    lab.agent.wait_until_ready();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_root_token_is_refused() {
    let mut lab = Lab::builder().without_agent().start();
    let token = lab
        .vault
        .root()
        .write("auth/token/create", &json!({"policies": ["root"]}));
    lab.write_generator_token(&text(&token["auth"]["client_token"]));
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab.assert_refused(
        &lab.options(),
        &["root token", "bootstrap", "VAULTTMPFS_ALLOW_ROOT_TOKEN"],
    );
    assert_eq!(lab.agent.call("GET", "/readyz", "").status, 503);
    let _ = lab.agent.stop();
    let allow = ("VAULTTMPFS_ALLOW_ROOT_TOKEN".to_owned(), "true".to_owned());
    lab.agent.settings.extend([allow]);
    start(&mut lab);
    eventually_says(&lab, "warnings", &["root token"]);
    assert!(
        lab.agent
            .log()
            .contains("WARN the generator token is a root token")
    );
    assert_eq!(
        lab.agent.get("/v1/status")["generator"]["ttl_s"],
        Value::Null
    );
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_role_that_makes_children_is_a_concern() {
    let lab = Lab::builder().without_agent().start();
    let role = json!({"orphan": false});
    lab.vault
        .root()
        .write("auth/token/roles/applications", &role);
    let mut lab = lab;
    start(&mut lab);
    let mend = "vault write auth/token/roles/applications orphan=true";
    eventually_says(&lab, "concerns", &["children", mend]);
    assert_eq!(lab.agent.get("/v1/status")["degraded"], true);
    let _ = lab.mounted(&lab.options());
    let said = lab.command(&["status"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.output.contains(mend), "{said:?}");
    lab.vault
        .root()
        .write("auth/token/roles/applications", &json!({"orphan": true}));
    assert_eq!(lab.command(&["reload"]).status, 0);
    eventually("the concern to go", || {
        (lab.command(&["status"]).status == 0).then_some(())
    });
}

#[test]
fn a_role_whose_tokens_cannot_be_kept_is_a_warning() {
    let mut lab = Lab::builder().without_agent().start();
    let role = json!({"renewable": false, "allowed_policies": []});
    lab.vault
        .root()
        .write("auth/token/roles/applications", &role);
    start(&mut lab);
    eventually_says(&lab, "warnings", &["cannot be kept alive", "renewed"]);
    eventually_says(&lab, "warnings", &["allowed_policies"]);
}

#[test]
fn missing_rights_are_named_once_with_what_to_add() {
    let mut lab = Lab::builder().without_agent().start();
    lab.vault.root().make_policy(GENERATOR_POLICY, CREATE_ONLY);
    start(&mut lab);
    for path in ["renew-accessor", "revoke-accessor", "lookup-accessor"] {
        let line = format!(r#"path "auth/token/{path}" {{ capabilities = ["update"] }}"#);
        eventually_says(&lab, "concerns", &[&line]);
        assert_eq!(
            lab.agent.log().matches(&line).count(),
            1,
            "{}",
            lab.agent.log()
        );
    }
    let _ = lab.mounted(&lab.options());
    // Once more makes nothing said twice.
    assert_eq!(lab.command(&["reload"]).status, 0);
    lab.vault.root().make_roles(&[Role::applications()]);
    assert_eq!(lab.command(&["reload"]).status, 0);
    eventually("the concerns to go", || {
        (lines(&lab, "concerns") == "[]").then_some(())
    });
    assert_eq!(lab.agent.log().matches("capabilities = ").count(), 3);
}

#[test]
fn a_default_wrap_ttl_that_the_policy_refuses_is_a_concern() {
    let lab = Lab::builder().set("VAULT_WRAP_TTL", "1h").start();
    eventually_says(&lab, "concerns", &["wrap TTL", "10m", "VAULT_WRAP_TTL"]);
}

#[test]
fn a_token_without_the_default_policy() {
    let (mut lab, _) = with_token(&json!({"no_default_policy": true}));
    lab.agent.start();
    lab.agent.wait_until_serving();
    let right = r#"path "auth/token/lookup-self" { capabilities = ["read"] }"#;
    lab.assert_refused(&lab.options(), &["policy `default`", right]);
    // With that right alone, the others cannot be asked for: a note, and all else works.
    let rules = format!("{CREATE_ONLY}\n{right}");
    lab.vault.root().make_policy(GENERATOR_POLICY, &rules);
    lab.agent.wait_until_ready();
    eventually_says(&lab, "warnings", &["may not ask", "sys/capabilities-self"]);
    assert_eq!(lines(&lab, "concerns"), "[]");
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_token_that_ends_degrades_and_another_one_mends() {
    let (mut lab, token) = with_token(&json!({"period": "15s"}));
    start(&mut lab);
    revoke(&lab, &token["accessor"]);
    // Noticed at the next renewal, with no mount.
    eventually("the agent to notice", || {
        (lab.agent.call("GET", "/readyz", "").status == 503).then_some(())
    });
    eventually_says(
        &lab,
        "reasons",
        &["does not take the generator token", "403"],
    );
    lab.assert_refused(&lab.options(), &["generator token"]);
    assert_eq!(lab.command(&["status"]).status, 1);
    lab.write_generator_token(&second_token(&lab));
    lab.agent.wait_until_ready();
    let _ = lab.mounted(&lab.options());
}

/// Nobody revoked them: their time was over.
#[test]
fn a_token_that_expires_degrades() {
    let (mut lab, token) = with_token(&json!({"period": "15s", "explicit_max_ttl": "30s"}));
    let long = Duration::from_secs(120);
    let expired = |lab: &Lab, token: &Value| {
        eventually_within(long, "the agent to notice", || {
            (lab.agent.call("GET", "/readyz", "").status == 503).then_some(())
        });
        let accessor = text(&token["accessor"]);
        assert_eq!(lab.vault.root().lookup_accessor(&accessor), None);
        let said = lab.command(&["status"]);
        assert_eq!(said.status, 1, "{said:?}");
        for words in ["does not take the generator token", "bootstrap"] {
            assert!(said.output.contains(words), "{said:?}");
        }
    };
    start(&mut lab);
    expired(&lab, &token);

    // One that is never renewed, too.
    let brief = json!({"period": Value::Null, "ttl": "20s", "renewable": false});
    let token = make_token(lab.vault.root(), &brief);
    lab.write_generator_token(&text(&token["client_token"]));
    lab.agent.wait_until_ready();
    expired(&lab, &token);
    lab.assert_refused(&lab.options(), &["does not take the generator token"]);
}

#[test]
fn a_failed_renewal_is_tried_again() {
    let mut lab = Lab::builder().proxied().without_agent().start();
    let token = make_token(lab.vault.root(), &json!({"period": "24s"}));
    lab.write_generator_token(&text(&token["client_token"]));
    let renewal = "POST /v1/auth/token/renew-self";
    let fault = vaulttmpfs_tests::Fault::error(500, "internal error");
    lab.proxy().always(renewal, fault);
    start(&mut lab);
    eventually_says(&lab, "concerns", &["could not be renewed", "500"]);
    lab.proxy().heal();
    eventually("a renewal", || {
        (lines(&lab, "concerns") == "[]").then_some(())
    });
    assert!(lab.proxy().count(renewal) >= 2);
    let accessor = text(&token["accessor"]);
    assert!(lab.vault.root().lookup_accessor(&accessor).is_some());
}

#[test]
fn reload_takes_only_a_token_that_serves() {
    let lab = Lab::start();
    let before = policies(&lab);
    let weak = make_token(lab.vault.root(), &json!({"policies": ["app"]}));
    for (bad, words) in [
        (
            "s.notatoken00000000000000".to_owned(),
            &["generator token", "403"][..],
        ),
        (
            text(&weak["client_token"]),
            &[
                "auth/token/create/applications",
                "capabilities = [\"update\"]",
            ],
        ),
        (String::new(), &["empty"]),
    ] {
        lab.write_generator_token(&bad);
        let said = lab.command(&["reload"]);
        assert_eq!(said.status, 1, "{said:?}");
        assert!(said.errors.contains("token in use stays"), "{said:?}");
        assert!(
            words.iter().all(|word| said.errors.contains(word)),
            "{said:?}"
        );
        assert_eq!(policies(&lab), before);
        let volume = lab.mounted(&lab.options());
        lab.kubelet.unmount(&volume).assert_success();
    }
    lab.write_generator_token(&second_token(&lab));
    let said = lab.command(&["reload"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(policies(&lab).contains("second"));
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_new_token_in_the_file_is_taken_by_itself() {
    let lab = Lab::start();
    let path = lab.node.path("etc/token");
    let first = fs::read_to_string(&path).unwrap();
    let second = second_token(&lab);
    let in_use = |second: bool| {
        eventually("the file's token to be in use", || {
            (policies(&lab).contains("second") == second).then_some(())
        });
    };
    // By another file in its place.
    let new = lab.node.write_for_agent("etc/token.new", &second);
    fs::rename(&new, &path).unwrap();
    in_use(true);
    // By writing over it, in two parts.
    let (begin, end) = first.split_at(10);
    fs::write(&path, begin).unwrap();
    fs::write(&path, format!("{begin}{end}")).unwrap();
    in_use(false);
    // Removed and made anew.
    lab.write_generator_token(&second);
    in_use(true);
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_file_that_is_gone_or_cut_short_changes_nothing() {
    let mut lab = Lab::start();
    let path = lab.node.path("etc/token");
    let token = fs::read_to_string(&path).unwrap();
    let before = policies(&lab);
    fs::write(&path, &token[..10]).unwrap();
    eventually("the agent to refuse half a token", || {
        lab.agent.log().contains("token in use stays").then_some(())
    });
    fs::write(&path, "").unwrap();
    fs::remove_file(&path).unwrap();
    // Also when the session has to be made anew.
    lab.vault.seal();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    lab.kubelet
        .mount(&volume, &lab.options())
        .assert_failure(&["sealed"]);
    lab.vault.unseal();
    lab.agent.wait_until_ready();
    assert_eq!(policies(&lab), before);
    let _ = lab.mounted(&lab.options());
}

#[test]
fn status_tells_how_the_agent_is() {
    let mut lab = Lab::start();
    let said = lab.command(&["status"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.output.contains("generator token  ends in"), "{said:?}");
    let said = lab.command(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.output).unwrap();
    assert_eq!((said.status, &status["ready"]), (0, &Value::Bool(true)));
    let _ = lab.agent.stop();
    let said = lab.command(&["status"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.errors.contains("agent.sock"), "{said:?}");
    assert_eq!(lab.command(&["reload"]).status, 2);
    assert_eq!(lab.command(&["revocations", "forget"]).status, 64);
}

#[test]
fn revocations_are_held_and_released() {
    let lab = Lab::start();
    assert_eq!(lab.command(&["revocations", "hold"]).status, 0);
    let volume = lab.mounted(&lab.options());
    lab.kubelet.unmount(&volume).assert_success();
    eventually("the volume's end", || {
        (lab.agent.get("/v1/status")["volumes"]["owed"] == 1).then_some(())
    });
    assert_eq!(lab.command(&["status"]).status, 1, "a hold is a concern");
    assert_eq!(lab.living(), 1);
    assert_eq!(lab.command(&["revocations", "release"]).status, 0);
    eventually_within(AFTER_UNMOUNT, "the revocation", || {
        (lab.living() == 0).then_some(())
    });
    assert_eq!(lab.command(&["status"]).status, 0);
}

#[test]
fn volumes_that_the_journal_has_lost_are_adopted() {
    let plain = Role::new("plain", &json!({}));
    let mut lab = Lab::builder().role(plain).start();
    let wrapped = lab.kubelet.volume(&Pod::new("web-0"), "v");
    lab.kubelet.mount(&wrapped, &lab.options()).assert_success();
    let unwrapped = lab.kubelet.volume(&Pod::new("web-1"), "v");
    let options = lab
        .options()
        .with("vault/role", "plain")
        .with("vault/unwrap", "true");
    lab.kubelet.mount(&unwrapped, &options).assert_success();
    let _ = lab.agent.stop();
    empty_the_journal(&lab);
    start(&mut lab);
    assert_eq!(lab.agent.volumes().len(), 0);
    eventually_says(&lab, "concerns", &["2 mounted volumes", "vaulttmpfs adopt"]);
    let said = lab.command(&["adopt"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(said.output.matches("taken up: ").count(), 2, "{said:?}");
    assert_eq!(lab.agent.volumes().len(), 2);
    lab.assert_all_accounted_for();
    let said = lab.command(&["adopt"]);
    assert!(
        said.status == 0 && said.output.contains("nothing to do"),
        "{said:?}"
    );
    for volume in [&wrapped, &unwrapped] {
        lab.kubelet.unmount(volume).assert_success();
    }
    eventually_within(AFTER_UNMOUNT, "their tokens' revocation", || {
        (lab.living() == 0).then_some(())
    });
}

#[test]
fn a_volume_whose_token_is_dead_is_not_adopted() {
    let mut lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let _ = lab.agent.stop();
    empty_the_journal(&lab);
    let accessors = lab.vault.root().accessors_of_pod(&volume.pod.uid);
    revoke(&lab, &json!(accessors[0]));
    start(&mut lab);
    let said = lab.command(&["adopt"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("not taken up: "), "{said:?}");
    assert!(said.errors.contains("does not confirm"), "{said:?}");
    assert_eq!(lab.agent.volumes().len(), 0);
}

/// Whoever can write into a volume must not be able to have another pod's token ended.
#[test]
fn a_volume_that_names_another_pods_token_is_not_adopted() {
    let mut lab = Lab::start();
    let [robbed, thief] = ["web-0", "web-1"].map(|pod| {
        let volume = lab.kubelet.volume(&Pod::new(pod), "v");
        lab.kubelet.mount(&volume, &lab.options()).assert_success();
        volume
    });
    let _ = lab.agent.stop();
    empty_the_journal(&lab);
    let file = "vault-token.json";
    fs::write(thief.directory.join(file), robbed.read(file)).unwrap();
    start(&mut lab);
    let said = lab.command(&["adopt"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("another pod's"), "{said:?}");
    let known = lab.agent.volumes();
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!(known[0]["mount_dir"].as_str(), robbed.directory.to_str());
    // Its end ends nobody's token.
    lab.kubelet.unmount(&thief).assert_success();
    lab.kubelet.mount(&robbed, &lab.options()).assert_success();
    assert_eq!(lab.vault.root().accessors_of_pod(&robbed.pod.uid).len(), 1);
}

#[test]
fn a_token_that_cannot_be_kept_for_ever_is_a_warning() {
    let lab = Lab::start();
    let forever = Value::Null;
    for (changes, words) in [
        (
            json!({"period": forever, "ttl": "2h", "renewable": false}),
            ["cannot be renewed", "ends in", "bootstrap"],
        ),
        (
            json!({"period": forever, "ttl": "2h"}),
            ["not periodic", "max TTL", "bootstrap"],
        ),
        (
            json!({"explicit_max_ttl": "48h"}),
            ["explicit max TTL", "48h", "no renewal goes beyond"],
        ),
    ] {
        let token = make_token(lab.vault.root(), &changes);
        lab.write_generator_token(&text(&token["client_token"]));
        assert_eq!(lab.command(&["reload"]).status, 0);
        eventually_says(&lab, "warnings", &words);
    }
    lab.write_generator_token(&lab.vault.root().make_generator_token());
    assert_eq!(lab.command(&["reload"]).status, 0);
    eventually("the warnings to go", || {
        (!lines(&lab, "warnings").contains("generator token")).then_some(())
    });
}

fn empty_the_journal(lab: &Lab) {
    for entry in fs::read_dir(lab.node.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}
