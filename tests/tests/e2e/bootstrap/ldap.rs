//! As the first plugin did it: by LDAP, with questions or without.

use super::{PASSWORD, Site, assert_said, node};
use serde_json::json;
use std::io::Write;
use std::process::Stdio;
use vaulttmpfs_tests::{LDAP_SUFFIX, Lab, Ldap, Terminal};

/// A site whose Vault asks a real LDAP server.
fn with_ldap() -> (Site, Ldap) {
    let site = Site::of(Lab::builder().vault_with_ldap());
    let ldap = Ldap::start(&[("alice", PASSWORD)]);
    let root = site.lab.vault.root();
    root.write("sys/auth/ldap", &json!({"type": "ldap"}));
    let settings = json!({"url": ldap.address(), "userdn": LDAP_SUFFIX, "userattr": "cn"});
    root.write("auth/ldap/config", &settings);
    root.write("auth/ldap/users/alice", &json!({"policies": "node-admin"}));
    (site, ldap)
}

#[test]
fn a_person_is_asked_for_all_of_it() {
    let (site, _ldap) = with_ldap();
    let mut terminal = Terminal::run(&site.command(&[]));
    terminal.answer("File for the generator token [", "");
    terminal.answer(
        "Policies of the generator token [applications_token_creator]",
        "",
    );
    terminal.answer("Token role to make it by", "");
    terminal.answer("Period [768h]", "forever");
    terminal.shows("expected a duration");
    terminal.answer("Period [768h]", "48h");
    terminal.answer("Log in by ldap or userpass [ldap]", "");
    terminal.answer("User", "alice");
    terminal.shows("Password: ");
    assert!(!terminal.echoes(), "the password would be shown");
    terminal.types(PASSWORD);
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    assert!(
        screen.contains("logged in at auth/ldap as alice"),
        "{screen}"
    );
    assert!(screen.contains("Vault granted a period of 48h"), "{screen}");
    site.lab
        .vault
        .secrets()
        .assert_absent("the screen", &screen);
    let token = site.looked_up();
    assert_eq!(token["period"], 48 * 3600, "{token}");
    assert_eq!(
        token["display_name"],
        format!("token-vaulttmpfs-{}", node())
    );
    assert_eq!(token["meta"]["node"], node());
    assert_eq!(token["meta"]["creator"], "alice");
    site.assert_nothing_left();
    // It was ended by itself, and not by the end of something else.
    assert_eq!(site.lab.vault.count("auth/token/revoke-self"), 1);
    assert_eq!(site.living("auth/ldap/login/alice"), 0);

    // The second time there is nothing to be asked but where to look.
    let mut terminal = Terminal::run(&site.command(&[]));
    terminal.answer("File for the generator token [", "");
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("kept: "), "{screen}");
    assert_eq!(site.lab.vault.count("auth/ldap/login"), 1);
}

#[test]
fn nobody_need_be_there() {
    let (site, ldap) = with_ldap();
    // By options, the password in a file.
    let password = site.password_file();
    let by_file = ["--username=alice", "--password-file", &password];
    assert_said(
        &site.run(&by_file, &[]),
        0,
        &["logged in at auth/ldap as alice"],
    );
    assert_eq!(site.looked_up()["period"], 768 * 3600);

    // By the environment, the password from a pipe.
    let mut command = site.command(&["--force"]);
    command
        .env("VAULTTMPFS_BOOTSTRAP_USERNAME", "alice")
        .env("VAULTTMPFS_BOOTSTRAP_PASSWORD_FILE", "-")
        .env("VAULTTMPFS_BOOTSTRAP_PERIOD", "24h")
        .env("VAULTTMPFS_BOOTSTRAP_ROLE", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut pipe = process.stdin.take().unwrap();
    pipe.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    let ended = process.wait_with_output().unwrap();
    drop(pipe);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(site.looked_up()["period"], 24 * 3600);
    assert_eq!(site.living("auth/ldap/login/alice"), 0);

    // A wrong password, and a server that is gone.
    let before = site.token();
    let wrong = site.file("wrong", "another.password.that.is.not.hers");
    let by_wrong = ["--force", "--username=alice", "--password-file", &wrong];
    let refused = site.run(&by_wrong, &[]);
    assert_said(
        &refused,
        77,
        &["does not let alice log in at auth/ldap", "password"],
    );
    drop(ldap);
    let by_file = ["--force", "--username=alice", "--password-file", &password];
    assert_ne!(site.run(&by_file, &[]).status, 0);
    assert_eq!(site.token(), before);
}
