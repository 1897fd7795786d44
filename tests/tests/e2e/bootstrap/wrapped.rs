//! What configuration management ships: a wrapped token, good for one use.

use super::{GENERATOR_POLICY, Site, assert_said};
use serde_json::{Value, json};
use std::fs;
use vaulttmpfs_tests::text;

/// Writes a token's wrapping, made by root at this path with this body, and returns its file.
fn shipped(site: &Site, path: &str, body: &Value) -> String {
    let answer = site.lab.vault.root().wrapped(path, body, "5m");
    site.file("shipped", &text(&answer["wrap_info"]["token"]))
}

fn generator() -> Value {
    json!({"policies": [GENERATOR_POLICY], "period": "768h", "display_name": "shipped"})
}

#[test]
fn a_generator_token_is_unwrapped_once_and_put_in_place() {
    let site = Site::new();
    let file = shipped(&site, "auth/token/create-orphan", &generator());
    let by_file = ["--wrapped-token-file", &file];
    let said = site.run(&by_file, &[]);
    assert_said(&said, 0, &["unwrapped: ", "written: ", "period of 768h"]);
    assert_eq!(site.looked_up()["display_name"], "token-shipped");
    site.assert_nothing_left();

    // A good token is there: what is shipped again stays whole, used or not.
    assert_said(&site.run(&by_file, &[]), 0, &["kept: "]);
    let file = shipped(&site, "auth/token/create-orphan", &generator());
    assert_said(&site.run(&by_file, &[]), 0, &["kept: "]);
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(site.lab.vault.root().unwrap(&token).status, 200);

    // Now somebody else has it.
    let used = site.run(&[&by_file[..], &["--force"]].concat(), &[]);
    assert_said(&used, 65, &["ALARM", "unwrapped before", "audit log"]);
    let _ = site.looked_up();
}

#[test]
fn what_a_tokens_creation_did_not_make_is_not_even_unwrapped() {
    let site = Site::new();
    let made_up = json!({"auth": {"client_token": "s.of.somebody.elses.making"}});
    let file = shipped(&site, "sys/wrapping/wrap", &made_up);
    let said = site.run(&["--wrapped-token-file", &file], &[]);
    assert_said(
        &said,
        65,
        &[
            "ALARM",
            "sys/wrapping/wrap",
            "not by the creation of a token",
        ],
    );
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(site.lab.vault.root().unwrap(&token).status, 200);
    for junk in ["", "two words", "s.unknown"] {
        let file = site.file("junk", junk);
        let said = site.run(&["--wrapped-token-file", &file], &[]);
        assert_said(&said, 65, &[&file]);
    }
    let said = site.run(&["--wrapped-token-file=/none"], &[]);
    assert_said(&said, 65, &["/none"]);
    assert!(!site.path().exists());
}

#[test]
fn a_token_that_may_make_one_is_used_and_ended() {
    let site = Site::new();
    let body = json!({"policies": ["node-admin"], "ttl": "10m"});
    let by_file = |file: &str| ["--wrapped-token-file".to_owned(), file.to_owned()];
    let run = |file: &str| {
        let arguments = by_file(file);
        site.run(&[&arguments[0], &arguments[1]], &[])
    };
    let file = shipped(&site, "auth/token/create", &body);
    assert_said(&run(&file), 0, &["unwrapped: ", "written: "]);
    let token = site.looked_up();
    assert_eq!(token["path"], "auth/token/create-orphan");
    let left = |policy: &str| {
        let tokens = site.lab.vault.root().tokens();
        let of_it = |token: &&Value| token["policies"].to_string().contains(policy);
        tokens.iter().filter(of_it).count()
    };
    assert_eq!(left("node-admin"), 0);

    // One that is neither: it is spent, and ended.
    fs::remove_file(site.path()).unwrap();
    let body = json!({"policies": ["app"], "ttl": "10m"});
    let file = shipped(&site, "auth/token/create", &body);
    assert_said(
        &run(&file),
        77,
        &["create-orphan", "no generator token either"],
    );
    assert_eq!(left("\"app\""), 0);
    assert!(!site.path().exists());
}
