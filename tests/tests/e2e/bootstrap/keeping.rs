//! A good token that is there is kept, and no other.

use super::{Site, assert_said};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use vaulttmpfs_tests::{GENERATOR_POLICY, text};

/// A token as somebody made it by hand, written in its place.
fn written(site: &Site, changes: &serde_json::Value) -> String {
    let mut body = json!({
        "policies": [GENERATOR_POLICY],
        "no_parent": true,
        "period": "768h",
    });
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = site.lab.vault.root().write("auth/token/create", &body);
    let token = text(&answer["auth"]["client_token"]);
    site.file("etc/token", &token);
    token
}

#[test]
fn a_good_token_is_kept_unless_another_is_wanted() {
    let site = Site::new().with_alice("node-admin");
    let first = written(&site, &json!({}));
    // Nobody need be able to log in.
    let kept = site.run(&[], &[]);
    assert_said(&kept, 0, &["kept: ", "period 768h", "--force"]);
    assert_eq!(site.token(), first);
    assert_said(&site.run_as_alice(&["--force"]), 0, &["written: "]);
    assert_ne!(site.token(), first);
    let second = site.token();
    assert_said(&site.run_as_alice(&[]), 0, &["kept: "]);
    assert_eq!(site.token(), second);
    assert_eq!(site.lab.vault.count("auth/userpass/login"), 1);
}

#[test]
fn what_is_no_good_token_is_replaced() {
    let site = Site::new().with_alice("node-admin");
    site.lab.vault.root().make_policy(
        "weak",
        r#"path "auth/token/create/applications" { capabilities = ["update"] }"#,
    );
    for (changes, why) in [
        (json!({"policies": ["weak"]}), "could do more"),
        (json!({"policies": ["node-admin"]}), "may not create tokens"),
        (json!({"period": "", "ttl": "1h"}), "not periodic"),
        (json!({"renewable": false}), "not periodic"),
        (json!({"explicit_max_ttl": "999h"}), "explicit max TTL"),
        (json!({"policies": ["root"], "period": ""}), "root token"),
    ] {
        let before = written(&site, &changes);
        assert_said(&site.run_as_alice(&[]), 0, &[why, "written: "]);
        assert_ne!(site.token(), before, "{why}");
        let _ = site.looked_up();
    }
    let before = site.token();
    let own = site.lab.vault.root().with_token(&before);
    own.write("auth/token/revoke-self", &json!({}));
    assert_said(&site.run_as_alice(&[]), 0, &["does not take", "written: "]);
    for junk in ["", "two words", "s.unknown"] {
        fs::write(site.path(), junk).unwrap();
        assert_said(&site.run_as_alice(&[]), 0, &["written: "]);
        let _ = site.looked_up();
    }
}

#[test]
fn a_token_that_could_do_no_more_is_kept_though_its_policy_lacks_something() {
    let site = Site::new();
    let rule = r#"path "auth/token/create/applications" { capabilities = ["update"] }"#;
    site.lab.vault.root().make_policy(GENERATOR_POLICY, rule);
    let first = written(&site, &json!({}));
    let kept = site.run(&[], &[]);
    assert_said(&kept, 0, &["kept: ", "renew-accessor"]);
    assert_eq!(site.token(), first);
}

#[test]
fn a_file_stays_with_its_owner() {
    let site = Site::new();
    site.lab.write_generator_token("s.unknown");
    let owner = fs::metadata(site.path()).unwrap().uid();
    assert_ne!(owner, 0);
    assert_said(&site.run_as_root_of_vault(&[]), 0, &["written: "]);
    let file = fs::metadata(site.path()).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (owner, 0o600));
}
