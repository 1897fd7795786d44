//! What a pod may ask for: a few of each kind; the parsers' own tests have the tables.

use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use vaulttmpfs_tests::{GENERATOR_POLICY, Lab, Options, Role, Volume, text};

/// What Vault knows of a volume's token.
fn token_of(lab: &Lab, volume: &Volume) -> serde_json::Value {
    let [accessor] = &lab.vault.root().accessors_of_pod(&volume.pod.uid)[..] else {
        panic!("not one token for one volume");
    };
    lab.vault.root().lookup_accessor(accessor).unwrap()
}

#[test]
fn each_option_does_what_it_says() {
    let lab = Lab::builder()
        .role(Role::new("jobs", &json!({"period": "2h"})))
        .start();
    let options = Options::new(&[
        ("vault/policies", " app, ,other,"),
        ("vault/role", "jobs"),
        ("vault/wrapTTL", "1m30s"),
        ("vault/tokenFilename", "key"),
        ("vault/filePermissions", "0440"),
        ("vault/maxTTL", "90m"),
        ("vault/unwrap", "false"),
    ]);
    let volume = lab.mounted(&options);
    assert_eq!(volume.files(), ["ca.crt", "key", "key.json"]);
    let file = fs::metadata(volume.directory.join("key")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o440);
    assert_eq!(volume.read_json("key.json")["ttl"], 90);
    let token = token_of(&lab, &volume);
    assert_eq!(token["policies"], json!(["app", "default", "other"]));
    assert_eq!(token["explicit_max_ttl"], 90 * 60);
    assert_eq!(token["role"], "jobs");
    assert_eq!(token["orphan"], true);
}

#[test]
fn a_ttl_is_for_roles_without_a_period() {
    let lab = Lab::builder()
        .role(Role::new("short", &json!({"period": "0"})))
        .start();
    let volume = lab.mounted(
        &lab.options()
            .with("vault/role", "short")
            .with("vault/ttl", "20m"),
    );
    let token = token_of(&lab, &volume);
    assert_eq!(token["creation_ttl"], 20 * 60, "{token}");
    lab.kubelet.unmount(&volume).assert_success();
    lab.assert_refused(
        &lab.options().with("vault/ttl", "20m"),
        &["vault/ttl", "applications", "vault/maxTTL"],
    );
}

/// By a role that is not known a renewal might give more than the pod wants.
#[test]
fn a_max_ttl_is_for_roles_that_can_be_read() {
    let lab = Lab::builder().role(Role::new("hidden", &json!({}))).start();
    let rules = r#"path "auth/token/create/hidden" { capabilities = ["update"] }"#;
    lab.vault.root().make_policy(GENERATOR_POLICY, rules);
    let options = lab.options().with("vault/role", "hidden");
    let volume = lab.mounted(&options);
    lab.kubelet.unmount(&volume).assert_success();
    lab.assert_refused(
        &options.with("vault/maxTTL", "1h"),
        &["vault/maxTTL", "auth/token/roles/hidden"],
    );
}

#[test]
fn the_nodes_settings_are_the_pods_defaults() {
    let lab = Lab::builder()
        .role(Role::new("jobs", &json!({})))
        .set("VAULTTMPFS_DEFAULT_ROLE_NAME", "jobs")
        .set("VAULTTMPFS_TOKEN_FILENAME", "key")
        .set("VAULT_WRAP_TTL", "70s")
        .start();
    let volume = lab.mounted(&lab.options());
    assert_eq!(volume.read_json("key.json")["ttl"], 70);
    assert_eq!(token_of(&lab, &volume)["role"], "jobs");
}

#[test]
fn wrong_options_are_named_all_at_once() {
    let lab = Lab::builder().proxied().start();
    let options = Options::new(&[
        ("vault/policies", "app"),
        ("vault/filePermissions", "0888"),
        ("vault/wrapTTL", "soon"),
        ("vault/unwrap", "perhaps"),
        ("vault/polices", "app"),
        ("vault/tokenFilename", "ca.crt"),
    ]);
    lab.assert_refused(
        &options,
        &[
            "vault/filePermissions",
            "vault/wrapTTL",
            "vault/unwrap",
            "vault/polices",
            "vault/policies",
            "vault/tokenFilename",
        ],
    );
    assert_eq!(lab.proxy().count("POST /v1/auth/token/create"), 0);
}

#[test]
fn unknown_options_can_be_let_pass() {
    let lab = Lab::builder()
        .set("VAULTTMPFS_UNKNOWN_OPTIONS", "warn")
        .start();
    let _ = lab.mounted(&lab.options().with("vault/polices", "x"));
    assert!(
        lab.agent.log().contains("vault/polices"),
        "{}",
        lab.agent.log()
    );
}

#[test]
fn a_pod_that_names_no_policy_gets_the_roles() {
    let lab = Lab::builder().proxied().start();
    let volume = lab.mounted(&Options::new(&[]));
    assert_eq!(
        token_of(&lab, &volume)["policies"],
        json!(["app", "default", "other"])
    );
    // Vault would have given them the generator's: they are named in the create itself.
    let log = lab.vault.audit_log();
    let create = log
        .iter()
        .find(|entry| entry["request"]["path"] == "auth/token/create/applications")
        .unwrap();
    assert_eq!(
        create["request"]["data"]["policies"],
        json!(["app", "other"])
    );
}

#[test]
fn a_pod_that_names_no_policy_is_refused_where_the_role_names_none() {
    let lab = Lab::builder()
        .role(Role::new("open", &json!({"allowed_policies": []})))
        .role(Role::new(
            "denying",
            &json!({"allowed_policies": [], "disallowed_policies": ["x"]}),
        ))
        .start();
    for role in ["open", "denying"] {
        let options = Options::new(&[("vault/role", role)]);
        lab.assert_refused(&options, &["vault/policies", role]);
        let blank = Options::new(&[("vault/role", role), ("vault/policies", " , ")]);
        lab.assert_refused(&blank, &["vault/policies", role]);
    }
}

#[test]
fn nobody_gets_root_or_the_generators_own_policies() {
    let everything = json!({"allowed_policies": ["root", GENERATOR_POLICY, "app"]});
    let lab = Lab::builder()
        .proxied()
        .role(Role::new("everything", &everything))
        .start();
    for policies in [
        "root",
        "app,root",
        GENERATOR_POLICY,
        "app,applications_token_creator",
    ] {
        let refused = policies.rsplit(',').next().unwrap();
        let options = Options::new(&[("vault/role", "everything"), ("vault/policies", policies)]);
        lab.assert_refused(&options, &[refused]);
    }
    // The role's own would be these.
    lab.assert_refused(
        &Options::new(&[("vault/role", "everything")]),
        &["everything"],
    );
    assert_eq!(lab.proxy().count("POST /v1/auth/token/create"), 0);
    assert_eq!(lab.living(), 0);
}

#[test]
fn batch_tokens_are_served_and_shown_as_unmanaged() {
    let batch = json!({"token_type": "batch", "renewable": false, "period": "0"});
    let lab = Lab::builder().role(Role::new("batch", &batch)).start();
    let volume = lab.mounted(&lab.options().with("vault/role", "batch"));
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
    let shown = &lab.agent.volumes()[0];
    assert_eq!(shown["managed"], false);
    assert!(
        text(&shown["unmanaged_because"]).contains("batch"),
        "{shown}"
    );
    lab.kubelet.unmount(&volume).assert_success();
}

#[test]
fn tokens_that_cannot_be_renewed_are_served_and_shown_as_unmanaged() {
    let fixed = json!({"renewable": false, "period": "0"});
    let lab = Lab::builder().role(Role::new("fixed", &fixed)).start();
    let volume = lab.mounted(&lab.options().with("vault/role", "fixed"));
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
    let shown = &lab.agent.volumes()[0];
    assert_eq!(shown["managed"], false);
    assert!(
        text(&shown["unmanaged_because"]).contains("renew"),
        "{shown}"
    );
    lab.kubelet.unmount(&volume).assert_success();
    lab.assert_all_accounted_for();
}

#[test]
fn a_role_that_is_no_orphan_is_served() {
    let lab = Lab::builder()
        .role(Role::new("child", &json!({"orphan": false})))
        .start();
    let volume = lab.mounted(&lab.options().with("vault/role", "child"));
    assert_eq!(token_of(&lab, &volume)["orphan"], false);
}
