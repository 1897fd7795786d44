//! Whatever fails, no token is left behind, and the one in place stays.

use super::{GENERATOR_POLICY, Site, assert_said};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;
use vaulttmpfs_tests::{Fault, Lab, Terminal, eventually};

#[test]
fn the_callers_own_token_stays_theirs_and_vault_grants_what_it_may() {
    let site = Site::new();
    let token = site.root_token();
    let said = site.run(&["--period=1000h"], &[("VAULT_TOKEN", &token)]);
    assert_said(
        &said,
        0,
        &["granted a period of 768h (1000h was asked for)"],
    );
    assert!(site.looked_up()["ttl"].as_u64() <= Some(768 * 3600));
    assert_eq!(
        site.lab
            .vault
            .root()
            .with_token(&token)
            .lookup_self()
            .status,
        200
    );
    let bad = site.run(&["--force"], &[("VAULT_TOKEN", "s.unknown")]);
    assert_said(&bad, 77, &["auth/token/create-orphan"]);
    let odd = site.run(&["--force"], &[("VAULT_TOKEN", "two words")]);
    assert_said(&odd, 64, &["VAULT_TOKEN: expected"]);
}

#[test]
fn a_token_that_cannot_be_written_is_revoked() {
    let site = Site::new().with_alice("node-admin");
    let full = site.lab.node.path("full");
    fs::create_dir(&full).unwrap();
    let flags = MsFlags::empty();
    // A directory that may be written to, and has no room.
    mount(
        Some("full"),
        &full,
        Some("tmpfs"),
        flags,
        Some("nr_inodes=1,mode=0755"),
    )
    .unwrap();
    let path = full.join("token");
    let said = site.run_as_alice(&["--path", path.to_str().unwrap()]);
    assert_said(&said, 1, &["cannot be written", path.to_str().unwrap()]);
    assert!(!path.exists());
    assert_eq!(site.lab.vault.count("auth/token/create-orphan"), 1);
    site.assert_nothing_left();

    // What can be known before is known before anyone logs in.
    let logins = site.lab.vault.count("auth/userpass/login");
    let said = site.run_as_alice(&["--path", "/proc/none/token"]);
    assert_said(&said, 1, &["/proc/none/token"]);
    assert_eq!(site.lab.vault.count("auth/userpass/login"), logins);
}

#[test]
fn a_token_of_no_use_replaces_none() {
    let site = Site::new().with_alice("node-admin");
    assert_said(&site.run_as_alice(&[]), 0, &["written: "]);
    let before = site.token();
    let misspelt = site.run_as_alice(&["--force", "--policies=aplications_token_creator"]);
    assert_said(
        &misspelt,
        77,
        &[
            "does not exist",
            "of no use",
            "may not create tokens of the role `applications`",
        ],
    );
    assert_eq!(site.token(), before);
    site.assert_nothing_left();
}

#[test]
fn a_vault_that_cannot_be_asked_is_told_from_one_that_refuses() {
    let mut site = Site::new().with_alice("node-admin");
    site.lab.vault.seal();
    assert_said(&site.run_as_alice(&[]), 69, &["sealed"]);
    site.lab.vault.unseal();
    let nobody = site.run(
        &[],
        &[
            ("VAULT_ADDR", "https://127.0.0.1:1"),
            ("VAULT_MAX_RETRIES", "0"),
        ],
    );
    assert_said(&nobody, 69, &["cannot be reached"]);
    let stranger = site.run(&[], &[("VAULT_CACERT", "")]);
    assert_said(&stranger, 69, &["is not trusted"]);
    assert!(!site.path().exists());
}

#[test]
fn an_answer_that_is_lost_is_told_of_and_not_asked_for_again() {
    let site = Site::of(Lab::builder().proxied()).with_alice("node-admin");
    let proxy = site.lab.proxy();
    proxy.order(1, "POST /v1/auth/token/create-orphan", Fault::Cut(40));
    let said = site.run_as_alice(&[]);
    assert_ne!(said.status, 0);
    assert_said(
        &said,
        said.status,
        &["there may be a token named token-vaulttmpfs-"],
    );
    assert_eq!(proxy.count("POST /v1/auth/token/create-orphan"), 1);
    assert_eq!(site.living("auth/userpass/login/alice"), 0);
    assert!(!site.path().exists());

    // One that was surely not carried out is.
    let later = Fault::error(429, "come later");
    proxy.order(1, "POST /v1/auth/token/create-orphan", later);
    assert_said(&site.run_as_alice(&[]), 0, &["written: "]);
    let _ = site.looked_up();
}

/// Bootstrap on a terminal, as `alice`, with more settings and all but one question answered.
fn at_the_last_question(site: &Site, more: &[(&str, &str)]) -> Terminal {
    let (password, path) = (site.password_file(), site.path());
    let mut command = site.command(&[
        "--method=userpass",
        "--username=alice",
        "--password-file",
        &password,
        "--policies",
        GENERATOR_POLICY,
        // An option that is empty is asked for.
        "--role=",
        "--period=48h",
        "--path",
        path.to_str().unwrap(),
    ]);
    command.envs(more.iter().copied());
    let mut terminal = Terminal::run(&command);
    terminal.shows("Token role");
    terminal
}

/// Waits until this was asked for so often, and presses Ctrl-C; what was shown until the end.
fn interrupted_after(site: &Site, terminal: Terminal, call: &str, tries: usize) -> String {
    let proxy = site.lab.proxy();
    eventually(&format!("{tries} times {call}"), || {
        (proxy.count(call) >= tries).then_some(())
    });
    terminal.press("\x03");
    let (status, screen) = terminal.end();
    assert_eq!(status, 130, "{screen}");
    // A slow machine may have let it go on for some.
    assert!(proxy.count(call) <= tries + 3, "it went on: {screen}");
    assert!(!site.path().exists());
    screen
}

/// Without an interrupt they would take hours.
const MANY_TRIES: (&str, &str) = ("VAULT_MAX_RETRIES", "1000");

#[test]
fn tries_that_would_go_on_are_cut_short_by_an_interrupt() {
    let mut site = Site::of(Lab::builder().proxied()).with_alice("node-admin");
    let create = "POST /v1/auth/token/create-orphan";
    // Four tries are 1.75 s; the next pause alone is 2 s.
    let later = || Fault::error(429, "come later");
    site.lab.proxy().order(1000, create, later());
    let terminal = at_the_last_question(&site, &[MANY_TRIES]);
    terminal.types("");
    let screen = interrupted_after(&site, terminal, create, 4);
    assert!(screen.contains("interrupted: Vault at "), "{screen}");
    assert_eq!(site.living("auth/userpass/login/alice"), 0);
    site.assert_nothing_left();

    // There is no login's token yet, and Vault could not end one.
    let terminal = at_the_last_question(&site, &[MANY_TRIES]);
    site.lab.vault.seal();
    terminal.types("");
    let screen = interrupted_after(&site, terminal, "POST /v1/auth/userpass/login/alice", 5);
    assert!(screen.contains("is sealed"), "{screen}");
    site.lab.vault.unseal();
    site.assert_nothing_left();
}

#[test]
fn a_vault_that_hangs_holds_an_interrupt_up_for_seconds() {
    let site = Site::of(Lab::builder().proxied()).with_alice("node-admin");
    let create = "POST /v1/auth/token/create-orphan";
    site.lab
        .proxy()
        .order(1, create, Fault::Late(Duration::from_secs(300)));
    let terminal = at_the_last_question(&site, &[("VAULT_CLIENT_TIMEOUT", "10m")]);
    terminal.types("");
    let screen = interrupted_after(&site, terminal, create, 1);
    let lost = "there may be a token named token-vaulttmpfs-";
    assert!(screen.contains(lost), "{screen}");
    assert_eq!(site.living("auth/userpass/login/alice"), 0);
}

#[test]
fn tries_that_go_on_end_with_the_time_for_all_of_it() {
    let site = Site::of(Lab::builder().proxied()).with_alice("node-admin");
    let create = "POST /v1/auth/token/create-orphan";
    site.lab
        .proxy()
        .order(1000, create, Fault::error(429, "come later"));
    let terminal = at_the_last_question(&site, &[MANY_TRIES, ("VAULT_CLIENT_TIMEOUT", "6s")]);
    terminal.types("");
    let (status, screen) = terminal.end();
    assert_eq!(status, 69, "{screen}");
    assert!(screen.contains("come later"), "{screen}");
    assert_eq!(site.living("auth/userpass/login/alice"), 0);
    site.assert_nothing_left();
}

#[test]
fn a_token_that_is_just_being_made_is_waited_for_and_ended() {
    let site = Site::of(Lab::builder().proxied()).with_alice("node-admin");
    let create = "POST /v1/auth/token/create-orphan";
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let made = site.lab.proxy().count(create);
        site.lab.proxy().order(1, create, Fault::held());
        let terminal = at_the_last_question(&site, &[]);
        terminal.types("");
        eventually("the token to be asked for", || {
            (site.lab.proxy().count(create) > made).then_some(())
        });
        terminal.signal(signal);
        site.lab.proxy().release();
        let (status, screen) = terminal.end();
        assert_eq!(status, 130, "{screen}");
        assert!(screen.contains("interrupted"), "{screen}");
        assert_eq!(site.lab.proxy().count(create), made + 1);
        assert!(!site.path().exists());
        site.assert_nothing_left();
    }
}
