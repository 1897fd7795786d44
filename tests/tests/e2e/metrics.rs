//! What the agent tells Prometheus.

use serde_json::json;
use std::collections::BTreeMap;
use vaulttmpfs_tests::{Lab, Pod, eventually};

/// A scrape: each sample's value by its name with labels, as Prometheus' text format has it.
fn scrape(lab: &Lab) -> BTreeMap<String, f64> {
    let answer = lab.agent.call("GET", "/metrics", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
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

    let mounted = scrape(&lab);
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
        (r#"vaulttmpfs_volumes{state="kept"}"#.to_owned(), 1.0),
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
    eventually("the revocation to be counted", || {
        let samples = scrape(&lab);
        let revoked = samples[r#"vaulttmpfs_revocations_total{outcome="done"}"#];
        (revoked == 1.0 && samples["vaulttmpfs_unmounts_total"] == 1.0).then_some(())
    });
    // It is forgotten with its revocation.
    eventually("nothing to be owed", || {
        let samples = scrape(&lab);
        (samples[r#"vaulttmpfs_volumes{state="ended"}"#] == 0.0).then_some(())
    });
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
fn bad_settings_do_not_silence_it() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    let nonsense = ("VAULT_ADDR".to_owned(), "nonsense".to_owned());
    lab.agent.settings.extend([nonsense]);
    lab.agent.start();
    lab.agent.wait_until_serving();
    assert_sample(&scrape(&lab), "vaulttmpfs_ready", 0.0);
}
