//! By userpass, and what goes wrong between a person and the terminal.

use super::{PASSWORD, Site, assert_said};
use serde_json::json;
use vaulttmpfs_tests::{GENERATOR_POLICY, Terminal, eventually};

#[test]
fn it_logs_in_with_a_terminal_and_without() {
    let site = Site::new().with_alice("node-admin");
    let mut terminal = Terminal::run(&site.command(&["--method=userpass", "--username=alice"]));
    for question in ["File for", "Policies of", "Token role", "Period"] {
        terminal.answer(question, "");
    }
    terminal.answer("Password: ", PASSWORD);
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    site.lab
        .vault
        .secrets()
        .assert_absent("the screen", &screen);
    assert_eq!(site.looked_up()["meta"]["creator"], "alice");
    site.assert_nothing_left();
    assert_said(
        &site.run_as_alice(&["--force"]),
        0,
        &["auth/userpass as alice"],
    );
    let _ = site.looked_up();
    assert_eq!(site.living("auth/userpass/login/alice"), 0);
}

#[test]
fn an_auth_method_may_be_mounted_elsewhere() {
    let site = Site::new();
    let root = site.lab.vault.root();
    root.write("sys/auth/corp/people", &json!({"type": "userpass"}));
    let alice = json!({"password": PASSWORD, "policies": "node-admin"});
    root.write("auth/corp/people/users/alice.b", &alice);
    let password = site.password_file();
    let said = site.run(
        &[
            "--method=userpass",
            "--auth-mount=corp/people",
            "--username=alice.b",
            "--password-file",
            &password,
        ],
        &[],
    );
    assert_said(&said, 0, &["logged in at auth/corp/people as alice.b"]);
    let _ = site.looked_up();
    site.assert_nothing_left();
}

#[test]
fn a_token_role_makes_it_for_a_login_that_may_no_more() {
    let site = Site::new().with_alice("by-role");
    let root = site.lab.vault.root();
    let create = r#"path "auth/token/create/nodes" { capabilities = ["update"] }"#;
    root.make_policy("by-role", create);
    let refused = site.run_as_alice(&[]);
    let mend = r#"path "auth/token/create-orphan" { capabilities = ["update", "sudo"] }"#;
    assert_said(&refused, 77, &[mend, "--role"]);
    site.assert_nothing_left();

    let unknown = site.run_as_alice(&["--role=nodes"]);
    assert_said(&unknown, 77, &["nodes"]);
    let mut role = json!({"orphan": true, "allowed_policies": [GENERATOR_POLICY]});
    root.write("auth/token/roles/nodes", &role);
    // A look-up does not tell whether such a token is periodic.
    let unread = site.run_as_alice(&["--role=nodes"]);
    assert_said(&unread, 0, &["not known", "written: "]);
    let both = format!("{create}\npath \"auth/token/roles/nodes\" {{ capabilities = [\"read\"] }}");
    root.make_policy("by-role", &both);
    for (changes, words) in [
        (json!({}), "not periodic"),
        (
            json!({"token_period": "96h", "token_explicit_max_ttl": "9h"}),
            "explicit max TTL",
        ),
        (
            json!({"token_period": "96h", "orphan": false}),
            "end with the login's",
        ),
    ] {
        let mut role = role.clone();
        role["token_explicit_max_ttl"] = json!(0);
        for (key, value) in changes.as_object().unwrap() {
            role[key] = value.clone();
        }
        root.write("auth/token/roles/nodes", &role);
        let refused = site.run_as_alice(&["--role=nodes", "--force"]);
        assert_said(&refused, 77, &["the token role `nodes`", words]);
    }
    role["token_period"] = json!("96h");
    root.write("auth/token/roles/nodes", &role);
    let said = site.run_as_alice(&["--role=nodes", "--force"]);
    assert_said(&said, 0, &["Vault granted a period of 96h"]);
    assert!(!said.errors.contains("periodic"), "{said:?}");
    assert_said(&site.run(&[], &[]), 0, &["kept: ", "period 96h"]);
    let more = site.run_as_alice(&["--role=nodes", "--force", "--policies=node-admin"]);
    assert_said(&more, 77, &["allowed_policies of the token role `nodes`"]);
    assert_eq!(site.living("auth/userpass/login/alice"), 0);
}

#[test]
fn ctrl_c_leaves_the_terminal_and_vault_as_they_were() {
    let site = Site::new().with_alice("node-admin");
    let mut terminal = Terminal::run(&site.command(&["--method=userpass", "--username=alice"]));
    for question in ["File for", "Policies of", "Token role", "Period"] {
        terminal.answer(question, "");
    }
    terminal.shows("Password: ");
    assert!(!terminal.echoes());
    terminal.press("\x03");
    eventually("the terminal to show again what is typed", || {
        terminal.echoes().then_some(())
    });
    let (status, screen) = terminal.end();
    assert_eq!(status, 130, "{screen}");
    assert_eq!(site.lab.vault.count("auth/userpass/login"), 0);
    assert!(!site.path().exists());
}

#[test]
fn what_is_missing_or_wrong_is_said_where_nobody_can_be_asked() {
    let site = Site::new().with_alice("node-admin");
    let password = site.password_file();
    let empty = site.file("empty", "\n");
    for (arguments, words) in [
        (&[][..], &["VAULT_TOKEN", "--username"][..]),
        (&["--username=alice"], &["--password-file", "no terminal"]),
        (&["--password-file", &password], &["--username is missing"]),
        (
            &["--username=alice", "--password-file", &empty],
            &["the password is empty"],
        ),
        (&["--username=alice", "--password-file=/none"], &["/none"]),
        (&["--username=../sys"], &["--username: expected"]),
        (
            &["--method=approle"],
            &["--method: expected ldap or userpass"],
        ),
        (
            &["--method=ldap", "--auth-mount=../sys"],
            &["--auth-mount: expected"],
        ),
        (&["--policies=root"], &["--policies: expected"]),
        (&["--period=soon"], &["--period: expected"]),
        (&["--role=a/b"], &["--role: expected"]),
        (&["--path=relative"], &["--path: expected"]),
        (
            &["--systemd-creds", "--with-key=null"],
            &["--with-key: expected"],
        ),
    ] {
        assert_said(&site.run(arguments, &[]), 64, words);
    }
    let bad = site.run(
        &[],
        &[("VAULT_ADDR", "nowhere"), ("VAULT_MAX_RETRIES", "x")],
    );
    assert_said(&bad, 64, &["VAULT_ADDR", "VAULT_MAX_RETRIES"]);
    assert_eq!(site.lab.vault.count("login"), 0);
    assert!(!site.path().exists());
}
