//! What the agent tells Prometheus.

mod pki;
mod tcp;

use crate::lifecycle::clock::{Clock, MONOTONIC};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use vaulttmpfs_tests::{
    AFTER_UNMOUNT, Fault, GENERATOR_POLICY, Lab, Pod, Role, Said, eventually, eventually_within,
    promtool, source_tree, text,
};

/// A scrape of the socket.
fn scrape(lab: &Lab) -> BTreeMap<String, f64> {
    let answer = lab.agent.call("GET", "/metrics", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    samples(&answer.body)
}

/// Each sample's value by its name with labels, as Prometheus' text format has it.
fn samples(scrape: &str) -> BTreeMap<String, f64> {
    scrape
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// The names of a scrape's metrics, without what a histogram adds to its own.
fn family_names(scrape: &str) -> BTreeSet<String> {
    let types = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// The names of metrics in a text, each as it is `known` where it is what a histogram adds to one.
fn names_in(text: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names =
        words.filter(|word| word.starts_with("vaulttmpfs_") || word.starts_with("process_"));
    names
        .map(|name| {
            let parts = ["_bucket", "_count", "_sum"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part));
            family
                .filter(|family| known.contains(*family))
                .unwrap_or(name)
                .to_owned()
        })
        .collect()
}

/// The shipped alert rules.
fn rules() -> PathBuf {
    source_tree().join("packaging/prometheus/alerts.yml")
}

/// promtool finds nothing that is against the format or the conventions.
#[track_caller]
fn promtool_is_content(scrape: &str) {
    let said = promtool(&["check", "metrics"], scrape);
    assert_eq!(
        (said.status, said.errors.as_str(), said.output.as_str()),
        (0, "", "")
    );
}

#[track_caller]
fn assert_sample(samples: &BTreeMap<String, f64>, name: &str, expected: f64) {
    let found = samples.get(name).copied();
    assert_eq!(found, Some(expected), "{name} in {samples:#?}");
}

#[test]
fn a_mount_its_failure_and_its_end_are_counted() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "9s" }))
        .start();
    let before = scrape(&lab);
    assert_sample(&before, "vaulttmpfs_mounts_total", 0.0);
    assert_sample(
        &before,
        r#"vaulttmpfs_mount_failures_total{reason="bad-options"}"#,
        0.0,
    );
    assert_sample(&before, "vaulttmpfs_ready", 1.0);

    let volume = lab.mounted(&lab.options());
    let refused = lab.kubelet.volume(&Pod::new("bad-0"), "vault");
    let options = lab.options().with("vault/wrapTTL", "soon");
    lab.kubelet
        .mount(&refused, &options)
        .assert_failure(&["vault/wrapTTL"]);

    let mounted = eventually("the volume to be attached", || {
        let samples = scrape(&lab);
        let attached = samples.get(r#"vaulttmpfs_volumes{state="attached"}"#);
        (attached == Some(&1.0)).then_some(samples)
    });
    let version = env!("CARGO_PKG_VERSION");
    for (name, expected) in [
        ("vaulttmpfs_mounts_total".to_owned(), 2.0),
        (
            r#"vaulttmpfs_mount_failures_total{reason="bad-options"}"#.to_owned(),
            1.0,
        ),
        (
            r#"vaulttmpfs_mount_duration_seconds_count{stage="queue"}"#.to_owned(),
            1.0,
        ),
        (
            r#"vaulttmpfs_mount_duration_seconds_count{stage="vault"}"#.to_owned(),
            1.0,
        ),
        (
            r#"vaulttmpfs_mount_duration_seconds_count{stage="reply"}"#.to_owned(),
            1.0,
        ),
        (
            r#"vaulttmpfs_vault_requests_total{path="auth/token/create/{role}",status="200"}"#
                .to_owned(),
            1.0,
        ),
        (
            format!(r#"vaulttmpfs_driver_requests_total{{version="{version}"}}"#),
            2.0,
        ),
        (
            format!(r#"vaulttmpfs_build_info{{version="{version}"}}"#),
            1.0,
        ),
        ("vaulttmpfs_revocations_owed".to_owned(), 0.0),
        ("vaulttmpfs_revocations_held".to_owned(), 0.0),
    ] {
        assert_sample(&mounted, &name, expected);
    }
    for name in [
        "vaulttmpfs_generator_token_ttl_seconds",
        "vaulttmpfs_generator_token_period_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(mounted[name] > 0.0, "{name} in {mounted:#?}");
    }

    eventually("a renewal to be counted", || {
        let renewed = scrape(&lab)[r#"vaulttmpfs_renewals_total{outcome="done"}"#];
        (renewed >= 1.0).then_some(())
    });
    lab.kubelet.unmount(&volume).assert_success();
    eventually_within(AFTER_UNMOUNT, "the revocation to be counted", || {
        let samples = scrape(&lab);
        let once = |name: &str| samples.get(name) == Some(&1.0);
        let revoked = once(r#"vaulttmpfs_revocations_total{outcome="done"}"#);
        // The wrapping token's, and the token's.
        let call =
            r#"vaulttmpfs_vault_requests_total{path="auth/token/revoke-accessor",status="204"}"#;
        let called = samples.get(call) == Some(&2.0);
        (revoked && called && once("vaulttmpfs_unmounts_total")).then_some(())
    });
    // It is forgotten with its revocation.
    eventually("nothing to be owed", || {
        let samples = scrape(&lab);
        (samples[r#"vaulttmpfs_volumes{state="ended"}"#] == 0.0).then_some(())
    });
}

/// The alert for versions that differ goes by it.
#[test]
fn a_driver_of_another_version_is_counted_as_such() {
    let lab = Lab::start();
    let _ = lab.mounted(&lab.options());
    let mut other = Command::new("curl");
    other
        .args([
            "--silent",
            "--user-agent",
            "vaulttmpfs-shim/99.0.1",
            "--data",
            "{}",
        ])
        .arg("--unix-socket")
        .arg(lab.agent.socket())
        .arg("http://agent/v1/volumes");
    let said = Said::by(&mut other);
    assert!(said.output.contains("bad-request"), "{said:?}");
    let samples = scrape(&lab);
    for version in [env!("CARGO_PKG_VERSION"), "99.0.1"] {
        let name = format!(r#"vaulttmpfs_driver_requests_total{{version="{version}"}}"#);
        assert_sample(&samples, &name, 1.0);
    }
}

/// What the alerts on volumes go by.
#[test]
fn lost_owed_held_and_late_are_told_apart() {
    let lab = Lab::builder()
        .applications(&json!({ "period": "12s" }))
        .start();
    let mount = |pod: &str| {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        lab.kubelet.mount(&volume, &lab.options()).assert_success();
        volume
    };
    let (lost, ended, _kept) = (mount("lost-0"), mount("ended-0"), mount("kept-0"));
    let record = lab.node.record_of(&lost.directory).unwrap();
    let accessor = json!({ "accessor": record["accessor"] });
    let root = lab.vault.root();
    root.write("auth/token/revoke-accessor", &accessor);
    assert_eq!(lab.command(&["revocations", "hold"]).status, 0);
    lab.kubelet.unmount(&ended).assert_success();
    let are = |expected: &[(&str, f64)]| {
        let samples = scrape(&lab);
        let right = expected
            .iter()
            .all(|(name, value)| samples.get(*name) == Some(value));
        right.then_some(samples)
    };
    eventually("the loss to be known", || {
        let samples = are(&[
            (r#"vaulttmpfs_volumes{state="attached"}"#, 1.0),
            (r#"vaulttmpfs_volumes{state="lost"}"#, 1.0),
            (r#"vaulttmpfs_volumes{state="ended"}"#, 1.0),
            ("vaulttmpfs_revocations_owed", 1.0),
            ("vaulttmpfs_revocations_held", 1.0),
            ("vaulttmpfs_degraded", 1.0),
        ])?;
        let ages = [
            "vaulttmpfs_volume_oldest_age_seconds",
            "vaulttmpfs_revocation_oldest_owed_seconds",
        ];
        ages.iter().all(|age| samples[*age] >= 1.0).then_some(())
    });
    assert_eq!(lab.command(&["revocations", "release"]).status, 0);
    eventually("the debt to be paid", || {
        are(&[
            ("vaulttmpfs_revocations_owed", 0.0),
            ("vaulttmpfs_revocations_held", 0.0),
            ("vaulttmpfs_revocation_oldest_owed_seconds", 0.0),
        ])
    });
    lab.vault.freeze();
    eventually("a renewal to be late", || {
        are(&[("vaulttmpfs_renewals_overdue", 1.0)])
    });
    lab.vault.thaw();
}

#[test]
fn volumes_are_counted_by_the_state_that_the_command_shows() {
    let batch = json!({"token_type": "batch", "renewable": false, "period": "0"});
    let mut lab = Lab::builder().role(Role::new("batch", &batch)).start();
    let mount = |lab: &Lab, pod: &str, option: &str, value: &str| {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        let options = lab.options().with(option, value);
        lab.kubelet.mount(&volume, &options).assert_success();
    };
    mount(&lab, "elsewhere-0", "vault/wrapTTL", "10m");
    lab.agent.kill();
    let elsewhere = json!("https://elsewhere.test:8200");
    lab.node
        .change_records(|record| record["origin"]["vault_addr"] = elsewhere.clone());
    lab.agent.start();
    lab.agent.wait_until_ready();
    mount(&lab, "web-0", "vault/wrapTTL", "10m");
    mount(&lab, "batch-0", "vault/role", "batch");
    mount(&lab, "forgetful-0", "vault/wrapTTL", "60s");

    let samples = eventually_within(Duration::from_secs(120), "the look at the wrapping", || {
        let samples = scrape(&lab);
        (samples["vaulttmpfs_never_unwrapped_total"] >= 1.0).then_some(samples)
    });
    let counted: BTreeMap<&str, f64> = samples
        .iter()
        .filter_map(|(name, count)| {
            let state = name.strip_prefix(r#"vaulttmpfs_volumes{state=""#)?;
            Some((state.strip_suffix(r#""}"#)?, *count))
        })
        .collect();
    for (state, count) in &counted {
        // Any other word would be refused.
        let said = lab.command(&["volumes", "--json", "--state", state]);
        assert_eq!(said.status, 0, "{said:?}");
        let shown: serde_json::Value = serde_json::from_str(&said.output).unwrap();
        let shown = shown["volumes"].as_array().unwrap().len();
        assert_eq!(shown.to_string(), count.to_string(), "{state}");
    }
    for state in ["attached", "not-unwrapped", "other-vault", "unmanaged"] {
        assert_eq!(counted.get(state), Some(&1.0), "{state}: {counted:?}");
    }
}

/// The labels that have values of somebody else's are few.
#[test]
fn no_label_holds_what_a_pod_or_a_caller_says() {
    const HOSTILE: usize = 20;
    let lab = Lab::start();
    let series = || scrape(&lab).len();
    let _ = lab.mounted(&lab.options());
    eventually("the role to be read behind the mount", || {
        let name =
            r#"vaulttmpfs_vault_requests_total{path="auth/token/roles/{role}",status="200"}"#;
        scrape(&lab).contains_key(name).then_some(())
    });
    let before = series();
    for number in 0..HOSTILE {
        let name = format!("hostile-{number}\"}} 1\nvaulttmpfs_ready 7");
        let volume = lab.kubelet.volume(&Pod::new(&name), "vault");
        let options = lab.options().with("vault/role", &format!("role{number}"));
        let _ = lab.kubelet.mount(&volume, &options);
        let _ = lab
            .agent
            .call("GET", &format!("/no/such/path/{number}"), "");
        let _ = lab
            .agent
            .call("DELETE", &format!("/v1/volumes?mount_dir={number}"), "");
    }
    let answer = lab.agent.call("GET", "/metrics", "");
    promtool_is_content(&answer.body);
    assert!(!answer.body.contains("hostile"), "{}", answer.body);
    // A few come with what happens for the first time, as a path's status when a role is not there.
    let after = series();
    assert!(
        after < before + HOSTILE,
        "{before} series, and then {after}: {}",
        answer.body
    );
    lab.vault
        .secrets()
        .assert_absent("the metrics", &answer.body);
}

#[test]
fn promtool_takes_the_rules_and_they_fire_for_what_they_are_for() {
    let folder = source_tree().join("packaging/prometheus");
    for (check, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let path = folder.join(file);
        let said = promtool(&[check, "rules", path.to_str().unwrap()], "");
        assert_eq!(said.status, 0, "{said:?}");
    }
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let (_, example) = readme.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let said = promtool(&["check", "config", "--syntax-only", "/dev/stdin"], example);
    assert_eq!(said.status, 0, "{said:?}");
    let rules = std::fs::read_to_string(rules()).unwrap();
    let tests = std::fs::read_to_string(folder.join("alerts.test.yml")).unwrap();
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in &alerts {
        assert!(
            tests.contains(&format!("alertname: {alert}\n")),
            "{alert} is not tried"
        );
    }
    assert_eq!(rules.matches("runbook: ").count(), alerts.len());
}

#[test]
fn without_a_session_there_is_still_a_scrape() {
    let lab = Lab::builder()
        .set("VAULT_ADDR", "https://127.0.0.1:1")
        .not_ready()
        .start();
    eventually("a failed call to be counted", || {
        let samples = scrape(&lab);
        assert_sample(&samples, "vaulttmpfs_ready", 0.0);
        assert_sample(&samples, "vaulttmpfs_degraded", 1.0);
        assert!(!samples.contains_key("vaulttmpfs_generator_token_ttl_seconds"));
        let name = r#"vaulttmpfs_vault_requests_total{path="sys/health",status="no-connection"}"#;
        (*samples.get(name)? >= 1.0).then_some(())
    });
}

#[test]
fn the_generator_tokens_end_comes_nearer_while_vault_is_sealed() {
    let lab = Lab::start();
    let ttl = || scrape(&lab)["vaulttmpfs_generator_token_ttl_seconds"];
    let period = scrape(&lab)["vaulttmpfs_generator_token_period_seconds"];
    let before = ttl();
    lab.vault.seal();
    // The keeper hears of it from a mount that fails.
    let volume = lab.kubelet.volume(&Pod::new("pod"), "vault");
    let _ = lab.kubelet.mount(&volume, &lab.options());
    eventually("the agent to be degraded", || {
        (scrape(&lab)["vaulttmpfs_ready"] == 0.0).then_some(())
    });
    eventually("the token's end to come nearer", || {
        (ttl() < before).then_some(())
    });
    let samples = scrape(&lab);
    assert_sample(&samples, "vaulttmpfs_ready", 0.0);
    assert_sample(
        &samples,
        "vaulttmpfs_generator_token_period_seconds",
        period,
    );
}

/// Nobody mounts, and the token's renewal is hours away.
#[test]
fn a_dead_generator_token_shows_on_an_idle_node() {
    const LOOKS: &str =
        r#"vaulttmpfs_vault_requests_total{path="auth/token/lookup-self",status="200"}"#;
    const HEALTH: &str = r#"vaulttmpfs_vault_requests_total{path="sys/health",status="200"}"#;
    const ROLE: &str =
        r#"vaulttmpfs_vault_requests_total{path="auth/token/roles/{role}",status="200"}"#;
    /// The longest time that an idle agent leaves its connection alone, in seconds.
    const IDLE: i64 = 240;
    let mut lab = Lab::builder().proxied().without_agent().start();
    let token = json!({"policies": [GENERATOR_POLICY], "no_parent": true, "period": "12h"});
    let token = lab.vault.root().write("auth/token/create", &token)["auth"].clone();
    lab.write_generator_token(&text(&token["client_token"]));
    let clock = Clock::of(MONOTONIC, &lab.node, &mut lab.agent.settings);
    lab.agent.start();
    lab.agent.wait_until_ready();
    let counts = |one: &str, least: f64| {
        let samples = scrape(&lab);
        let count = samples.get(one).copied();
        count.is_some_and(|count| count >= least).then_some(samples)
    };
    // The agent is idle once it has told what it found at its start.
    eventually("the agent to warn of the short period", || {
        let status = lab.agent.get("/v1/status");
        let warned = status["warnings"].to_string().contains("period is 12h");
        warned.then_some(())
    });
    let before = scrape(&lab);

    clock.step_to(IDLE);
    let after = eventually("a look", || counts(LOOKS, before[LOOKS] + 1.0));
    assert_sample(&after, "vaulttmpfs_ready", 1.0);
    assert_sample(&after, HEALTH, before[HEALTH]);

    // A look that fails in another way says nothing of the token, nor does one that a token is denied which
    // may do the rest.
    let look = "GET /v1/auth/token/lookup-self";
    for (step, status, instead) in [(2, 500, HEALTH), (3, 403, ROLE)] {
        let asked = scrape(&lab)[instead];
        lab.proxy()
            .order(1, look, Fault::error(status, "some error"));
        clock.step_to(step * IDLE);
        eventually("Vault to be asked", || counts(instead, asked + 1.0));
        assert!(!lab.agent.log().contains("not ready"));
    }
    // Nor where whoever asks how the agent is has it look.
    let looks = lab.proxy().count(look);
    lab.proxy().order(1, look, Fault::error(403, "some error"));
    eventually("a look", || {
        assert_eq!(lab.command(&["status"]).status, 0);
        (lab.proxy().count(look) > looks).then_some(())
    });
    assert!(!lab.agent.log().contains("not ready"));

    let accessor = json!({"accessor": token["accessor"]});
    let root = lab.vault.root();
    root.write("auth/token/revoke-accessor", &accessor);
    clock.step_to(4 * IDLE);
    let samples = eventually("the agent to notice", || {
        let samples = scrape(&lab);
        (samples["vaulttmpfs_ready"] == 0.0).then_some(samples)
    });
    assert_sample(&samples, "vaulttmpfs_degraded", 1.0);
    let answer = lab.agent.call("GET", "/readyz", "");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("generator token"), "{answer:?}");
}

#[test]
fn bad_settings_do_not_silence_it() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    let nonsense = ("VAULT_ADDR".to_owned(), "nonsense".to_owned());
    lab.agent.settings.extend([nonsense]);
    lab.agent.start();
    lab.agent.wait_until_serving();
    assert_sample(&scrape(&lab), "vaulttmpfs_ready", 0.0);
}
