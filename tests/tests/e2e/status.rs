//! `vaulttmpfs status`: right in each state, to people, to programs and by its exit status.

use super::generator::second_token;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;
use vaulttmpfs_tests::{GENERATOR_POLICY, Lab, Pod, Terminal, eventually, eventually_within};

const READY: i32 = 0;
const DEGRADED: i32 = 1;
const NOT_RUNNING: i32 = 2;

/// The agent may need some tries to reach Vault, with pauses between them.
const SOON: Duration = Duration::from_secs(60);

/// Waits until it exits so, says these words to people and these facts to programs.
#[track_caller]
fn eventually_says(lab: &Lab, exit: i32, words: &[&str], facts: &[(&str, Value)]) {
    let mut last = String::new();
    let what = format!("exit status {exit}, {words:?} and {facts:?}");
    eventually_within(SOON, &what, || {
        let (text, json) = (lab.command(&["status"]), lab.command(&["status", "--json"]));
        let status: Value = serde_json::from_str(&json.output).expect("JSON");
        let shown = format!("{} {text:?} {status}", json.status);
        if shown != last {
            println!("{shown}");
            last = shown;
        }
        let said = [text.output, text.errors].concat();
        let right = (text.status, json.status) == (exit, exit)
            && words.iter().all(|word| said.contains(word))
            && facts
                .iter()
                .all(|(fact, value)| status.pointer(fact).unwrap_or(&Value::Null) == value);
        right.then_some(())
    });
}

#[test]
fn of_vault() {
    let mut lab = Lab::start();
    let address = lab.vault.address().to_owned();
    let well = format!("{address}, unsealed, version 2.");
    let good = [
        ("/ready", json!(true)),
        ("/degraded", json!(false)),
        ("/vault/answering", json!(true)),
        ("/vault/sealed", json!(false)),
        ("/vault/address", json!(address)),
    ];
    let words = [
        "agent            ready (version ",
        well.as_str(),
        "calls took",
        "generator token  ends in 23h5",
        ", period 1d",
        "policies: applications_token_creator, default",
        "volumes          0 live",
        "0 renewals late; 0 revocations owed",
        "failures         none in the last 1h",
    ];
    eventually_says(&lab, READY, &words, &good);

    // Nothing but the command itself asks Vault here: no mount comes, and no renewal is due.
    lab.vault.seal();
    let sealed = [
        ("/ready", json!(false)),
        ("/degraded", json!(true)),
        ("/vault/answering", json!(true)),
        ("/vault/sealed", json!(true)),
        ("/generator", Value::Null),
    ];
    let words = [
        "agent            not ready",
        "not ready        Vault at ",
        "unseal it",
        ", sealed, version 2.",
    ];
    eventually_says(&lab, DEGRADED, &words, &sealed);
    lab.vault.unseal();
    eventually_says(&lab, READY, &[&well], &good);

    lab.vault.freeze();
    let words = [
        "ready, but degraded",
        "has not answered within 3 s",
        "overloaded",
    ];
    eventually_says(&lab, DEGRADED, &words, &[("/ready", json!(true))]);
    lab.vault.thaw();
    eventually_says(&lab, READY, &[&well], &good);

    lab.vault.stop();
    let gone = [
        ("/ready", json!(false)),
        ("/vault/answering", json!(false)),
        ("/vault/sealed", Value::Null),
        ("/vault/version", Value::Null),
    ];
    let words = [
        "not ready",
        "cannot be reached",
        "is Vault running?",
        ", no answer",
    ];
    eventually_says(&lab, DEGRADED, &words, &gone);
}

#[test]
fn of_the_generator_token_and_its_rights() {
    let lab = Lab::start();
    let token = fs::read_to_string(lab.node.path("etc/token")).unwrap();
    let root = lab.vault.root();
    root.write("auth/token/revoke", &json!({ "token": token }));
    let words = [
        "not ready",
        "does not take the generator token",
        "vaulttmpfs bootstrap",
        "unsealed",
    ];
    let facts = [("/ready", json!(false)), ("/vault/sealed", json!(false))];
    eventually_says(&lab, DEGRADED, &words, &facts);

    lab.write_generator_token(&second_token(&lab));
    let policies = json!([GENERATOR_POLICY, "default", "second"]);
    let words = ["policies: applications_token_creator, default, second"];
    let facts = [("/vault/generator_policies", policies)];
    eventually_says(&lab, READY, &words, &facts);

    let policy = root.read(&format!("sys/policies/acl/{GENERATOR_POLICY}"));
    let policy = policy.body["data"]["policy"].as_str().unwrap().to_owned();
    let fewer: Vec<&str> = policy
        .lines()
        .filter(|line| !line.contains("renew-accessor"))
        .collect();
    root.make_policy(GENERATOR_POLICY, &fewer.join("\n"));
    let right = r#"path "auth/token/renew-accessor" { capabilities = ["update"] }"#;
    let words = ["ready, but degraded", "concern  ", right];
    let facts = [("/ready", json!(true)), ("/degraded", json!(true))];
    eventually_says(&lab, DEGRADED, &words, &facts);
    root.make_policy(GENERATOR_POLICY, &policy);
    eventually_says(&lab, READY, &[], &[("/concerns", json!([]))]);
}

#[test]
fn of_volumes_that_vanish_in_a_mass() {
    let mut lab = Lab::start();
    let volumes: Vec<_> = (0..12)
        .map(|number| {
            let volume = lab
                .kubelet
                .volume(&Pod::new(&format!("web-{number}")), "vault");
            lab.kubelet.mount(&volume, &lab.options()).assert_success();
            volume
        })
        .collect();
    let live = [
        ("/volumes/live", json!(12)),
        ("/volumes/by_state", json!({"attached": 12})),
    ];
    eventually_says(&lab, READY, &["12 live: 12 attached"], &live);
    eventually_within(SOON, "all to be seen", || {
        let all = lab.agent.volumes();
        all.iter().all(|one| one["seen"] == true).then_some(())
    });
    // One look of the agent's shows that all of them are gone.
    lab.agent.freeze();
    for volume in &volumes {
        umount2(&volume.directory, MntFlags::empty()).unwrap();
    }
    lab.agent.thaw();
    let words = [
        "ready, but degraded",
        "all revocations are held",
        "`vaulttmpfs revocations release`",
        ", all held",
    ];
    let facts = [("/volumes/held", json!(true)), ("/volumes/live", json!(12))];
    eventually_says(&lab, DEGRADED, &words, &facts);
}

#[test]
fn of_no_agent_and_of_one_that_hangs() {
    let mut lab = Lab::start();
    lab.agent.freeze();
    let said = lab.command(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.output).unwrap();
    assert_eq!(
        (said.status, &status["running"]),
        (NOT_RUNNING, &json!(false))
    );
    assert!(said.output.contains("does it hang?"), "{said:?}");
    lab.agent.thaw();
    eventually_says(&lab, READY, &[], &[]);
    let _ = lab.agent.stop();
    let facts = [
        ("/ready", json!(false)),
        ("/degraded", json!(true)),
        ("/running", json!(false)),
    ];
    let words = ["vaulttmpfs: no agent serves ", "agent.sock: is it running"];
    eventually_says(&lab, NOT_RUNNING, &words, &facts);
}

#[test]
fn of_bad_settings() {
    let lab = Lab::builder()
        .supervised()
        .set("VAULT_WRAP_TTL", "soon")
        .set("VAULTTMPFS_REVOKE", "perhaps")
        .not_ready()
        .start();
    let words = [
        "not ready",
        "VAULT_WRAP_TTL=\"soon\"",
        "VAULTTMPFS_REVOKE=\"perhaps\"",
    ];
    eventually_says(&lab, DEGRADED, &words, &[("/vault", Value::Null)]);
}

#[test]
fn what_failed_lately_and_what_is_owed() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let refused = lab.options().with("vault/role", "nosuch");
    for pod in ["web-1", "web-2"] {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        lab.kubelet
            .mount(&volume, &refused)
            .assert_failure(&["nosuch"]);
    }
    let failing = lab.kubelet.volume(&Pod::new("web-3"), "vault");
    let options = lab.options().with("vault/wrapTTL", "soon");
    lab.kubelet
        .mount(&failing, &options)
        .assert_failure(&["wrapTTL"]);
    let words = [
        "failures         3 in the last 1h: 1 bad-options, 2 ",
        " ago, bad-options: ",
    ];
    let facts = [
        ("/failures/within_s", json!(3600)),
        ("/failures/by_reason/bad-options", json!(1)),
        ("/failures/newest/reason", json!("bad-options")),
    ];
    eventually_says(&lab, READY, &words, &facts);

    assert_eq!(lab.command(&["revocations", "hold"]).status, 0);
    lab.kubelet.unmount(&volume).assert_success();
    let words = [
        "0 renewals late; 1 revocations owed, the oldest for ",
        ", all held",
    ];
    let facts = [
        ("/volumes/owed", json!(1)),
        ("/volumes/by_state/ended", json!(1)),
        ("/volumes/held", json!(true)),
    ];
    eventually_says(&lab, DEGRADED, &words, &facts);
    assert_eq!(lab.command(&["revocations", "release"]).status, 0);
    eventually_says(
        &lab,
        READY,
        &["0 revocations owed"],
        &[("/volumes/held", json!(false))],
    );
}

#[test]
fn watched_on_a_terminal_an_agent_goes_and_comes_back() {
    let mut lab = Lab::start();
    let mut command = lab
        .node
        .command(&["status", "--watch", "--interval", "200ms"]);
    command.env("TERM", "xterm");
    let mut terminal = Terminal::run_sized(&command, 60, 8);
    terminal.shows("\u{1b}[2J\u{1b}[H");
    terminal.shows("\u{1b}[32mready (version ");
    assert!(lab.agent.stop().success());
    terminal.shows("\u{1b}[31mnot running: no agent serves");
    lab.agent.start();
    terminal.shows("ready (version ");
    terminal.shows("\u{1b}[J");
    let (end, screen) = interrupt(terminal);
    assert_eq!(end, READY);
    lab.vault.secrets().assert_absent("the screen", &screen);
    let last = screen.rsplit("\u{1b}[H").next().unwrap();
    let (frame, _) = last.split_once("\u{1b}[J").expect("a whole frame");
    assert_eq!(frame.matches('\n').count(), 7, "nothing scrolls: {frame:?}");
    let widths = frame.lines().map(|line| plain(line).chars().count());
    assert!(widths.max() <= Some(60), "{frame}");
}

/// Ctrl-C.
#[track_caller]
fn interrupt(terminal: Terminal) -> (i32, String) {
    terminal.press("\u{3}");
    terminal.end()
}

/// A line without its colours and its wipes.
fn plain(line: &str) -> String {
    let mut parts = line.trim_end_matches('\r').split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once(|one: char| one.is_ascii_alphabetic()));
    first
        + &rest
            .map(|part| part.map_or("", |(_, text)| text))
            .collect::<String>()
}

#[test]
fn watched_in_a_pipe_it_ends_with_its_reader() {
    let lab = Lab::start();
    let mut command = lab
        .node
        .command(&["status", "--watch", "--json", "--interval", "200ms"]);
    let mut watching = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(watching.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(status["ready"], true);
    }
    drop(reader);
    let ended = eventually("its end", || watching.try_wait().unwrap());
    assert_eq!(ended.code(), Some(READY));
    for bad in ["0", "100ms", "2h", "soon"] {
        let said = lab.command(&["status", "--watch", "--interval", bad]);
        assert_eq!(said.status, 64, "{said:?}");
    }
    assert_eq!(lab.command(&["status", "--interval", "2s"]).status, 64);
}
