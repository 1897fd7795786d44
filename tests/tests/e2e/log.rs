//! The agent's log: its forms, its fields, and what it says of failures that go on.

use serde_json::Value;
use vaulttmpfs_tests::{Entry, Journald, Lab, Pod, eventually, text};

/// Mounts a volume, unmounts it, and fails to mount another. Returns the volume's id.
fn mount_unmount_and_fail(lab: &Lab) -> String {
    let volume = lab.mounted(&lab.options());
    let id = text(&lab.agent.volumes()[0]["id"]);
    lab.kubelet.unmount(&volume).assert_success();
    eventually("the agent to know of the unmount", || {
        let known = lab.agent.volumes();
        known
            .iter()
            .all(|one| one["state"] == "ended")
            .then_some(())
    });
    let failing = lab.kubelet.volume(&Pod::new("web-1"), "vault");
    lab.kubelet
        .mount(&failing, &lab.options().with("vault/role", "no\nsuch"))
        .assert_failure(&["no role's name"]);
    id
}

/// The fields of each of the three, as they are named everywhere, but the time that each took.
fn expected(id: &str) -> [Vec<(&'static str, String)>; 3] {
    let pod = |name: &str| vec![("pod", name.to_owned()), ("namespace", "shop".to_owned())];
    let whole = [
        ("role", "applications".to_owned()),
        ("volume", id.to_owned()),
    ];
    let failed = [
        ("role", "no such".to_owned()),
        ("reason", "bad-options".to_owned()),
    ];
    [
        [pod("web-0"), whole.to_vec()].concat(),
        [pod("web-0"), whole.to_vec()].concat(),
        [pod("web-1"), failed.to_vec()].concat(),
    ]
}

const MESSAGES: [&str; 3] = ["a volume for /", "ended: unmounted", "no volume for /"];

/// The lines of a log of JSON, each of which must be an object.
#[track_caller]
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| match serde_json::from_str(line) {
        Ok(object @ Value::Object(_)) => object,
        other => panic!("{line:?} is no object: {other:?}"),
    };
    log.lines().map(object).collect()
}

#[test]
fn json_is_an_object_a_line_with_the_fields_of_each_mount_and_unmount() {
    let mut lab = Lab::builder()
        .set("VAULTTMPFS_LOG_FORMAT", "json")
        .set("VAULTTMPFS_LOG_LEVEL", "debug")
        .start();
    let id = mount_unmount_and_fail(&lab);
    assert!(lab.agent.stop().success());
    let said = objects(&lab.agent.log());
    for line in &said {
        for name in ["time", "level", "message"] {
            assert!(line[name].is_string(), "{line}");
        }
        assert!(text(&line["time"]).ends_with('Z'), "{line}");
    }
    let levels = ["info", "info", "warn"];
    for ((message, level), fields) in MESSAGES.iter().zip(levels).zip(expected(&id)) {
        let is_it = |line: &&Value| text(&line["message"]).starts_with(message);
        let line = said.iter().find(is_it);
        let line = line.unwrap_or_else(|| panic!("{message}: {said:?}"));
        assert_eq!(line["level"], level, "{line}");
        for (name, value) in fields {
            assert_eq!(line[name], value, "{line}");
        }
        assert!(line["duration_ms"].is_u64(), "{line}");
    }
}

#[test]
fn where_standard_error_is_journalds_it_gets_the_fields_itself() {
    let mut lab = Lab::builder().without_agent().start();
    let journald = Journald::start(&lab.node);
    let stream = lab.agent.journal_stream();
    lab.agent
        .settings
        .insert("JOURNAL_STREAM".to_owned(), stream);
    lab.agent.start();
    lab.agent.wait_until_ready();
    let id = mount_unmount_and_fail(&lab);
    let mut all = Vec::new();
    let priorities = ["6", "6", "4"];
    for ((message, priority), fields) in MESSAGES.iter().zip(priorities).zip(expected(&id)) {
        let entry = journald.hears(message);
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "vaulttmpfs");
        assert_eq!(entry["PRIORITY"], priority);
        for (name, value) in fields {
            let name = format!("VAULTTMPFS_{}", name.to_uppercase());
            assert_eq!(entry[&name], value, "{entry:?}");
        }
        let duration = entry["VAULTTMPFS_DURATION_MS"].parse::<u64>();
        assert!(duration.is_ok(), "{entry:?}");
        all.push(entry);
    }
    assert!(lab.agent.stop().success());
    let rest: Vec<Entry> = journald.heard();
    assert!(!rest.is_empty(), "it says that it stops");
    all.extend(rest);
    let all = format!("{all:?}");
    lab.vault.secrets().assert_absent("the journal", &all);
    assert_eq!(lab.agent.log(), "", "nothing is said twice");
}

#[test]
fn a_variable_that_a_parent_left_behind_leads_nothing_astray() {
    let mut lab = Lab::builder().without_agent().start();
    let journald = Journald::start(&lab.node);
    let stream = format!("{}1", lab.agent.journal_stream());
    lab.agent
        .settings
        .insert("JOURNAL_STREAM".to_owned(), stream);
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert!(lab.agent.log().contains(" INFO serving"));
    assert_eq!(journald.heard(), []);
}

#[test]
fn nothing_is_lost_where_no_journald_listens() {
    let mut lab = Lab::builder().without_agent().start();
    let settings = &mut lab.agent.settings;
    settings.insert("VAULTTMPFS_LOG_FORMAT".to_owned(), "journal".to_owned());
    drop(Journald::start(&lab.node));
    std::fs::remove_file("/run/systemd/journal/socket").unwrap();
    lab.agent.start();
    lab.agent.wait_until_ready();
    let log = lab.agent.log();
    assert!(log.contains(" WARN journald does not listen here"), "{log}");
    assert!(log.contains(" INFO serving"), "{log}");
}

#[test]
fn a_bad_setting_of_the_log_is_one_like_any_other() {
    let mut lab = Lab::builder().without_agent().start();
    for name in ["VAULTTMPFS_LOG_FORMAT", "VAULTTMPFS_LOG_LEVEL"] {
        lab.agent
            .settings
            .insert(name.to_owned(), "loud".to_owned());
    }
    lab.agent.start();
    let ended = eventually("its end", || lab.agent.process().ended());
    assert_eq!(ended.code(), Some(64));
    let log = lab.agent.log();
    for words in [
        r#"VAULTTMPFS_LOG_FORMAT="loud": expected auto, text, json or journal"#,
        r#"VAULTTMPFS_LOG_LEVEL="loud": expected error, warn, info or debug"#,
    ] {
        assert!(log.contains(words), "{log}");
    }
}

#[test]
fn a_failure_that_goes_on_is_said_once_a_pod_and_counted_at_the_end() {
    let mut lab = Lab::start();
    lab.vault.seal();
    let volume = lab.kubelet.volume(&Pod::new("first"), "vault");
    let _ = lab.kubelet.mount(&volume, &lab.options());
    eventually("the agent to see that Vault is sealed", || {
        (lab.agent.call("GET", "/readyz", "").status == 503).then_some(())
    });
    for pod in ["web-0", "web-1"] {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        for _ in 0..3 {
            let outcome = lab.kubelet.mount(&volume, &lab.options());
            outcome.assert_failure(&["sealed"]);
        }
    }
    let said = |log: &str, pod: &str| log.matches(&format!("pod={pod} ")).count();
    let log = lab.agent.log();
    assert_eq!((said(&log, "web-0"), said(&log, "web-1")), (1, 1), "{log}");
    assert!(lab.agent.stop().success());
    let log = lab.agent.log();
    assert!(log.contains(" (4 times more in the last "), "{log}");
    lab.vault.unseal();
}
