//! The agent as systemd runs it: with a socket that was passed, a place to say how it is, and
//! somebody who starts it anew when it ends.

use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::Duration;
use vaulttmpfs_tests::{
    GENERATOR_POLICY, Lab, Node, Pod, Said, Settings, eventually, eventually_within, text,
};

/// Names of settings in the environment after [`spoil`] whose values are wrong.
const BAD: [&str; 3] = ["VAULT_ADDR", "VAULT_CLIENT_TIMEOUT", "VAULT_CACERT"];

fn set(lab: &mut Lab, name: &str, value: &str) -> Option<String> {
    lab.agent.settings.insert(name.to_owned(), value.to_owned())
}

/// Makes the settings bad, and returns the good ones.
fn spoil(lab: &mut Lab) -> Settings {
    let good = lab.agent.settings.clone();
    set(lab, "VAULT_ADDR", "ftp://vault");
    set(lab, "VAULT_CLIENT_TIMEOUT", "soon");
    set(lab, "VAULT_CACERT", "/nowhere/ca.crt");
    good
}

#[test]
fn a_passed_socket_outlives_the_agent_and_loses_no_call() {
    let mut lab = Lab::builder().supervised().start();
    let before = fs::metadata(lab.node.socket()).unwrap();
    let heard = lab.agent.manager().heard();
    assert_eq!(heard[0], "READY=1", "{heard:?}");
    let volume = lab.mounted(&lab.options());
    assert!(lab.agent.stop().success());
    let last = lab.agent.manager().heard();
    let stopping = last.iter().position(|said| said == "STOPPING=1");
    let after = &last[stopping.expect("STOPPING=1") + 1..];
    assert!(
        after.iter().all(|said| said.starts_with("STATUS=stopping")),
        "{last:?}"
    );
    let still = fs::metadata(lab.node.socket()).unwrap();
    assert_eq!(
        (before.ino(), before.uid()),
        (still.ino(), still.uid()),
        "the socket's file is not the agent's to remove"
    );
    // A call waits in the backlog for the next agent.
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    let other = lab.kubelet.volume(&Pod::new("web-1"), "vault");
    std::thread::scope(|scope| {
        let mount = scope.spawn(|| kubelet.mount(&other, &options));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!mount.is_finished(), "nobody has answered it");
        lab.agent.start();
        mount.join().unwrap().assert_success();
    });
    lab.kubelet.unmount(&volume).assert_success();
}

#[test]
fn only_a_listening_unix_stream_is_taken_for_the_socket() {
    let node = Node::new();
    let connected = std::os::unix::net::UnixStream::pair().unwrap().0;
    let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    for stdin in [
        Stdio::from(std::os::fd::OwnedFd::from(connected)),
        Stdio::from(std::os::fd::OwnedFd::from(datagrams)),
        Stdio::from(std::os::fd::OwnedFd::from(tcp)),
        Stdio::from(file),
    ] {
        let said = vaulttmpfs_tests::with_passed(&node, stdin);
        assert_eq!(said.status, 69, "{said:?}");
        let why = "not a listening Unix stream socket";
        assert!(said.errors.contains(why), "{said:?}");
    }
}

#[test]
fn the_status_follows_vault_and_the_volumes() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    lab.vault.seal();
    lab.agent.start();
    lab.agent.manager().hears("READY=1", &[]);
    lab.agent.manager().hears("STATUS=not ready", &["sealed"]);
    lab.vault.unseal();
    lab.agent.manager().hears("STATUS=ready", &[]);
    let hold = lab.command(&["revocations", "hold"]);
    assert_eq!(hold.status, 0, "{hold:?}");
    lab.agent
        .manager()
        .hears("STATUS=ready, but degraded", &["revocations are held"]);
    assert_eq!(lab.command(&["revocations", "release"]).status, 0);
    lab.agent.manager().hears("STATUS=ready", &[]);
    // Mounts change nothing of it.
    let volume = lab.mounted(&lab.options());
    lab.kubelet.unmount(&volume).assert_success();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lab.agent.manager().heard(), [""; 0]);
    assert!(lab.agent.stop().success());
    lab.agent.manager().hears("STOPPING=1", &[]);
}

#[test]
fn the_watchdog_hears_of_an_agent_that_turns_and_of_no_other() {
    let mut lab = Lab::builder()
        .supervised()
        .set("WATCHDOG_USEC", "400000")
        .start();
    for _ in 0..5 {
        lab.agent.manager().hears("WATCHDOG=1", &[]);
    }
    lab.agent.freeze();
    // What it said before.
    lab.agent.manager().heard();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lab.agent.manager().heard(), [""; 0], "it stands still");
    lab.agent.thaw();
    lab.agent.manager().hears("WATCHDOG=1", &[]);
    // Also while it finishes what it has accepted.
    let _ = lab.agent.stop();
}

#[test]
fn nobody_hears_of_a_watchdog_that_is_not_wanted() {
    let lab = Lab::builder().supervised().start();
    std::thread::sleep(Duration::from_secs(2));
    let heard = lab.agent.manager().heard();
    assert!(
        !heard.iter().any(|said| said.starts_with("WATCHDOG")),
        "{heard:?}"
    );
}

#[test]
fn bad_settings_are_told_all_at_once_and_end_nothing() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    spoil(&mut lab);
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab.agent.manager().hears("READY=1", &[]);
    lab.agent.manager().hears("STATUS=not ready", &BAD);
    lab.assert_refused(&lab.options(), &BAD);
    assert_eq!(lab.agent.call("GET", "/readyz", "").status, 503);
    let status = lab.agent.get("/v1/status");
    assert_eq!(status["ready"], false);
    let reasons = status["reasons"].to_string();
    assert!(BAD.iter().all(|name| reasons.contains(name)), "{status}");
    assert!(lab.agent.process().ended().is_none());
}

#[test]
fn by_hand_bad_settings_end_the_agent_and_are_told_all_at_once() {
    let mut lab = Lab::builder().without_agent().start();
    spoil(&mut lab);
    lab.agent.start();
    let ended = eventually("its end", || lab.agent.process().ended());
    assert_eq!(ended.code(), Some(64));
    let log = lab.agent.log();
    assert!(BAD.iter().all(|name| log.contains(name)), "{log}");
}

#[test]
fn what_kept_it_from_serving_is_looked_at_again_when_a_call_comes() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    let (path, aside) = (lab.node.path("etc/ca.crt"), lab.node.path("etc/aside"));
    fs::rename(&path, &aside).unwrap();
    lab.agent.start();
    lab.assert_refused(&lab.options(), &["VAULT_CACERT", path.to_str().unwrap()]);
    assert!(lab.agent.process().ended().is_none());
    fs::rename(&aside, &path).unwrap();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    let _ = lab.kubelet.mount(&volume, &lab.options());
    let ended = eventually("its end", || lab.agent.process().ended());
    assert!(ended.success(), "{ended:?}");
    lab.agent.start();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn what_kept_it_from_serving_is_looked_at_again_without_a_call() {
    let mut lab = Lab::builder().supervised().start();
    let _ = lab.mounted(&lab.options());
    let (path, aside) = (lab.node.path("etc/ca.crt"), lab.node.path("etc/aside"));
    fs::rename(&path, &aside).unwrap();
    assert!(lab.agent.stop().success());
    lab.agent.start();
    lab.agent
        .manager()
        .hears("STATUS=not ready", &["VAULT_CACERT"]);
    fs::rename(&aside, &path).unwrap();
    let ended = eventually("its end", || lab.agent.process().ended());
    assert!(ended.success(), "{ended:?}");
    lab.agent.start();
    lab.agent.manager().hears("STATUS=ready", &[]);
}

#[test]
fn a_state_directory_that_is_anothers_is_waited_for() {
    let mut first = Lab::start();
    let mut settings = first.agent.settings.clone();
    settings.remove("VAULTTMPFS_SOCKET");
    let _ = first.mounted(&first.options());
    let node = &first.node;
    fs::rename(node.socket(), node.path("run/first.sock")).unwrap();
    let mut second = vaulttmpfs_tests::Agent::new(node, settings);
    second.run_by(vaulttmpfs_tests::Manager::new(node));
    second.start();
    let id = first.agent.id().to_string();
    second.manager().hears("STATUS=not ready", &[&id]);
    let _ = first.agent.stop();
    let volume = first.kubelet.volume(&Pod::new("web-1"), "vault");
    first
        .kubelet
        .mount(&volume, &first.options())
        .assert_failure(&[&id]);
    let ended = eventually_within(Duration::from_secs(30), "its end", || {
        second.process().ended()
    });
    assert!(ended.success());
    second.start();
    let mounted = first.kubelet.mount(&volume, &first.options());
    mounted.assert_success();
}

/// `vaulttmpfs reload` as the unit's `ExecReload=` runs it, with these settings in its environment.
fn systemctl_reload(lab: &Lab, settings: &Settings) -> Said {
    lab.command_with(&["reload", "--settings-from-environment"], settings)
}

/// A lab whose agent gets its generator token as systemd hands it over, and cannot read root's file.
fn with_credential(content: &str) -> Lab {
    let mut lab = Lab::builder().supervised().without_agent().start();
    let token = fs::read_to_string(lab.node.path("etc/token")).unwrap();
    fs::remove_file(lab.node.path("etc/token")).unwrap();
    fs::write(lab.node.path("etc/token"), &token).unwrap();
    fs::set_permissions(
        lab.node.path("etc/token"),
        fs::Permissions::from_mode(0o400),
    )
    .unwrap();
    let content = if content == "the token" {
        &token
    } else {
        content
    };
    let _ = lab.node.write_for_agent("run/generator-token", content);
    let directory = lab.node.path("run").to_str().unwrap().to_owned();
    set(&mut lab, "CREDENTIALS_DIRECTORY", &directory);
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab
}

fn policies(lab: &Lab) -> String {
    lab.agent.get("/v1/status")["vault"]["generator_policies"].to_string()
}

/// Root's file gets a token that can be told from the first.
fn second_token(lab: &Lab) -> String {
    let root = lab.vault.root();
    root.make_policy(
        "second",
        r#"path "secret/none" { capabilities = ["deny"] }"#,
    );
    let wish =
        json!({"policies": [GENERATOR_POLICY, "second"], "no_parent": true, "period": "24h"});
    text(&root.write("auth/token/create", &wish)["auth"]["client_token"])
}

fn write_token(lab: &Lab, token: &str) {
    fs::write(lab.node.path("etc/token"), token).unwrap();
}

#[test]
fn a_token_comes_as_a_credential() {
    let mut lab = with_credential("the token");
    lab.agent.wait_until_ready();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_credential_that_is_none_is_waited_for_and_reload_hands_a_token_over() {
    let lab = with_credential("none");
    let path = lab.node.path("etc/token");
    lab.agent
        .manager()
        .hears("STATUS=not ready", &["none yet", path.to_str().unwrap()]);
    lab.assert_refused(&lab.options(), &["no generator token"]);
    let settings = lab.agent.settings.clone();
    let said = systemctl_reload(&lab, &settings);
    assert_eq!(said.status, 0, "{said:?}");
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_token_that_was_handed_over_stays_the_newest() {
    let mut lab = with_credential("the token");
    lab.agent.wait_until_ready();
    let settings = lab.agent.settings.clone();
    write_token(&lab, &second_token(&lab));
    assert_eq!(systemctl_reload(&lab, &settings).status, 0);
    assert!(policies(&lab).contains("second"));
    // A session made anew, and files that are no good or gone, change nothing.
    lab.vault.seal();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    let outcome = lab.kubelet.mount(&volume, &lab.options());
    outcome.assert_failure(&["sealed"]);
    lab.vault.unseal();
    lab.agent.wait_until_ready();
    assert!(policies(&lab).contains("second"));
    for (bad, words) in [
        ("", "empty"),
        ("s.abc", "token in use stays"),
        ("two words", "not a token"),
    ] {
        write_token(&lab, bad);
        let said = systemctl_reload(&lab, &settings);
        assert_eq!(said.status, 1, "{said:?}");
        assert!(said.errors.contains(words), "{said:?}");
        assert!(policies(&lab).contains("second"));
    }
    fs::remove_file(lab.node.path("etc/token")).unwrap();
    let said = systemctl_reload(&lab, &settings);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.errors.contains("the token in use stays"), "{said:?}");
    assert!(policies(&lab).contains("second"));
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_token_that_vault_could_not_be_asked_about_is_tried_later() {
    let mut lab = with_credential("none");
    lab.vault.seal();
    let settings = lab.agent.settings.clone();
    let said = systemctl_reload(&lab, &settings);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("sealed"), "{said:?}");
    lab.vault.unseal();
    lab.agent.wait_until_ready();
}

#[test]
fn other_settings_are_judged_before_the_agent_starts_anew() {
    let mut lab = Lab::builder().supervised().start();
    let good = lab.agent.settings.clone();
    let same = systemctl_reload(&lab, &good);
    assert_eq!(same.status, 0, "{same:?}");
    let id = lab.agent.id();
    let bad = spoil(&mut lab);
    let bad = std::mem::replace(&mut lab.agent.settings, bad);
    let said = systemctl_reload(&lab, &bad);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        BAD.iter().all(|name| said.errors.contains(name)),
        "{said:?}"
    );
    assert!(said.errors.contains("goes on as it is"), "{said:?}");
    // A shell's empty environment is nobody's wish.
    assert_eq!(lab.command(&["reload"]).status, 0);
    let volume = lab.mounted(&lab.options());
    assert_eq!(lab.agent.id(), id);
    assert!(lab.agent.process().ended().is_none());
    set(&mut lab, "VAULT_WRAP_TTL", "2m");
    let settings = lab.agent.settings.clone();
    let said = systemctl_reload(&lab, &settings);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.output.contains("starts anew"), "{said:?}");
    let ended = eventually("its end", || lab.agent.process().ended());
    assert!(ended.success(), "{ended:?}");
    lab.agent.start();
    lab.kubelet.unmount(&volume).assert_success();
    let volume = lab.mounted(&lab.options());
    let described: serde_json::Value =
        serde_json::from_str(&volume.read("vault-token.json")).unwrap();
    assert_eq!(described["ttl"], 120, "the new setting counts");
}

#[test]
fn mended_settings_mend_an_agent_with_bad_ones() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    let good = spoil(&mut lab);
    lab.agent.start();
    lab.agent.wait_until_serving();
    let bad = lab.agent.settings.clone();
    let said = systemctl_reload(&lab, &bad);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(lab.agent.process().ended().is_none());
    let said = systemctl_reload(&lab, &good);
    assert_eq!(said.status, 0, "{said:?}");
    let ended = eventually("its end", || lab.agent.process().ended());
    assert!(ended.success(), "{ended:?}");
    lab.agent.settings = good;
    lab.agent.start();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn settings_are_for_an_agent_that_somebody_starts_anew() {
    let lab = Lab::start();
    let said = systemctl_reload(&lab, &lab.agent.settings);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("no systemd"), "{said:?}");
}
