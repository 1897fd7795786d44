//! `vaulttmpfs check`: it names each fault that is planted on a node or in Vault, and finds none where
//! there is none.
//!
//! Each test has namespaces of its own, so that it sees no other's kubelet. The kubelet is a process of
//! that name which sleeps: its name, arguments, environment and mounts are all that is looked at.

mod mint;
mod network;
mod node;
mod vault;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, LabBuilder, Proxy, Said, Settings, eventually};

const FAILURE: &str = "failure";
const WARNING: &str = "warning";

/// What does not answer costs no more than this, on a busy machine: its own bound is a minute.
const BOUND: Duration = Duration::from_secs(90);

/// How often the check is run where a busy machine was too slow for one of its bounds.
const TRIES: usize = 3;

/// Words of findings to which such a bound leads.
const TOO_SLOW: [&str; 6] = [
    "within 4 s",
    "within 5 s",
    "within 8 s",
    "not done in",
    "no answer within",
    "took too long",
];

/// A level, and words that are in the finding.
type Expected<'a> = (&'a str, &'a [&'a str]);

/// A node on which all is well, until something is planted.
struct Bed {
    lab: Lab,
    /// What the check is told, as the agent was.
    settings: Settings,
    kubelet: Sleeper,
}

/// A process that passes for a kubelet. It ends with this value, or with the test.
struct Sleeper(std::process::Child);

impl Bed {
    fn new() -> Self {
        Self::of(builder())
    }

    fn of(builder: LabBuilder) -> Self {
        let _ = fs::remove_file("/etc/default/vaulttmpfs");
        let lab = builder.start();
        let driver = lab.node.built_driver();
        let plugins = lab.node.path("plugins");
        let listed = lab.command(&[
            "install-driver",
            "--from",
            driver.to_str().unwrap(),
            "--plugin-dir",
            plugins.to_str().unwrap(),
        ]);
        assert_eq!(listed.status, 0, "{listed:?}");
        let program = kubelet_program(&lab);
        let settings = lab.agent.settings.clone();
        let kubelet = Sleeper::start(&[], &program, &arguments(&lab), &settings_of_kubelet(&lab));
        Self {
            lab,
            settings,
            kubelet,
        }
    }

    /// Another kubelet in place of the one that runs.
    fn kubelet(&mut self, prefix: &[&str], arguments: &[&str], environment: &Settings) {
        let program = kubelet_program(&self.lab);
        self.kubelet.0.kill().unwrap();
        self.kubelet.0.wait().unwrap();
        self.kubelet = Sleeper::start(prefix, &program, arguments, environment);
    }

    /// The kubelet that runs at first.
    fn usual_kubelet(&mut self) {
        let (arguments, environment) = (arguments(&self.lab), settings_of_kubelet(&self.lab));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.kubelet(&[], &arguments, &environment);
    }

    fn run(&self, settings: &Settings, arguments: &[&str]) -> (Said, Vec<Value>) {
        let arguments = [&["check", "--json"], arguments].concat();
        let begun = Instant::now();
        let said = self.lab.command_with(&arguments, settings);
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        let report: Value =
            serde_json::from_str(&said.output).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let findings = report["findings"].as_array().unwrap().clone();
        let failed = findings.iter().any(|one| one["level"] == FAILURE);
        assert_eq!(said.status, i32::from(failed), "{said:?}");
        (said, findings)
    }

    /// These are all the failures and warnings that there are with these settings and arguments. Returns
    /// all that was found.
    #[track_caller]
    fn finds_by(
        &self,
        settings: &Settings,
        arguments: &[&str],
        expected: &[Expected<'_>],
    ) -> Vec<Value> {
        let mut findings = self.run(settings, arguments).1;
        for _ in 1..TRIES {
            if !was_too_slow(&findings, expected) {
                break;
            }
            findings = self.run(settings, arguments).1;
        }
        assert_found(&findings, expected);
        findings
    }

    /// These are all the failures and warnings that there are, with other settings.
    #[track_caller]
    fn finds_with(&self, changes: &[(&str, &str)], expected: &[Expected<'_>]) {
        let mut settings = self.settings.clone();
        for (name, value) in changes {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        let _ = self.finds_by(&settings, &[], expected);
    }

    /// These are all the failures and warnings that there are.
    #[track_caller]
    fn finds(&self, expected: &[Expected<'_>]) {
        self.finds_with(&[], expected);
    }

    /// This is found by way of the proxy.
    #[track_caller]
    fn finds_behind(&self, proxy: &Proxy, expected: &[Expected<'_>]) {
        self.finds_with(&[("VAULT_ADDR", &by_name(proxy))], expected);
    }

    /// The same where the proxy does only once what it was told to.
    #[track_caller]
    fn finds_once_behind(&self, proxy: &Proxy, expected: &[Expected<'_>]) {
        let mut settings = self.settings.clone();
        settings.insert("VAULT_ADDR".into(), by_name(proxy));
        let (_, findings) = self.run(&settings, &[]);
        assert_found(&findings, expected);
    }

    /// Nothing is wrong.
    #[track_caller]
    fn is_well(&self) {
        self.finds(&[]);
    }
}

/// These are all the failures and warnings that there are.
#[track_caller]
fn assert_found(findings: &[Value], expected: &[Expected<'_>]) {
    let bad: Vec<&Value> = findings
        .iter()
        .filter(|one| one["level"] == FAILURE || one["level"] == WARNING)
        .collect();
    let all = serde_json::to_string_pretty(findings).unwrap();
    assert_eq!(bad.len(), expected.len(), "expected {expected:?}: {all}");
    for expected in expected {
        let found = bad.iter().any(|one| fits(one, expected));
        assert!(found, "{expected:?}: {all}");
    }
}

fn fits(finding: &Value, (level, words): &Expected<'_>) -> bool {
    let text = finding["text"].as_str().unwrap();
    finding["level"] == *level && words.iter().all(|word| text.contains(word))
}

/// Whether something that is not expected was found because a bound of the check's passed.
fn was_too_slow(findings: &[Value], expected: &[Expected<'_>]) -> bool {
    let is_expected = |one: &Value| expected.iter().any(|expected| fits(one, expected));
    let tells_of_a_bound = |one: &Value| {
        let text = one["text"].as_str().unwrap();
        one["level"] != "ok" && TOO_SLOW.iter().any(|words| text.contains(words))
    };
    findings
        .iter()
        .any(|one| tells_of_a_bound(one) && !is_expected(one))
}

/// What is said not to be checked.
fn not_checked(findings: &[Value]) -> Vec<(&str, &str)> {
    let texts = findings
        .iter()
        .filter(|one| one["level"] == "not-checked")
        .map(|one| {
            (
                one["group"].as_str().unwrap(),
                one["text"].as_str().unwrap(),
            )
        });
    texts.collect()
}

/// What the README recommends, and Vault by a name as pods reach it.
fn builder() -> LabBuilder {
    Lab::builder()
        .vault_by_name()
        .applications(&json!({ "period": "24h" }))
}

/// The proxy by the name that is in its certificate.
fn by_name(proxy: &Proxy) -> String {
    proxy.address().replace("127.0.0.1", "vault.test")
}

fn kubelet_program(lab: &Lab) -> PathBuf {
    let program = lab.node.path("kubelet-program/kubelet");
    if !program.exists() {
        fs::create_dir(program.parent().unwrap()).unwrap();
        // Until its standard input ends.
        fs::write(&program, "#!/bin/sh\nread -r _\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    program
}

fn arguments(lab: &Lab) -> [String; 2] {
    let option = |name, path: &str| format!("--{name}={}", lab.node.path(path).display());
    [
        option("volume-plugin-dir", "plugins"),
        option("root-dir", "kubelet"),
    ]
}

/// The driver is executed with the kubelet's environment, and asks at this socket.
fn settings_of_kubelet(lab: &Lab) -> Settings {
    let socket = lab.node.socket().to_str().unwrap().to_owned();
    [("VAULTTMPFS_SOCKET".to_owned(), socket)].into()
}

impl Sleeper {
    fn start(
        prefix: &[&str],
        program: &Path,
        arguments: &[impl AsRef<str>],
        environment: &Settings,
    ) -> Self {
        let mut command = match prefix.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let child = command
            .args(arguments.iter().map(AsRef::as_ref))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(environment)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a kubelet's process");
        let comm = format!("/proc/{}/comm", child.id());
        eventually("the kubelet's name", || {
            (fs::read_to_string(&comm).ok()? == "kubelet\n").then_some(())
        });
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
