//! Vault or the agent is away while pods start: the kubelet comes again by itself.

use crate::timed;
use serde_json::json;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;
use vaulttmpfs_tests::{
    Cluster, Lab, Numbers, PodManifest, RealPod, eventually_within, in_own_namespaces,
};

/// Pods that start while the agent is killed again and again.
const PODS: usize = 30;

/// How often it is.
const KILLS: usize = 8;

/// Long enough to be renewed in time on a busy machine.
const PERIOD: &str = "45s";

fn manifest(name: &str) -> PodManifest {
    PodManifest::new(name).volume("secret", &[("vault/policies", "app")])
}

#[test]
fn pods_start_when_the_outage_is_over() {
    in_own_namespaces(|| {
        let mut cluster = Cluster::start_with(Lab::builder().vault_on_disk());
        let without_vault = timed("Vault is down", || vault_is_down(&mut cluster));
        let without_agent = timed("the agent is down", || agent_is_down(&mut cluster));
        timed("both are gone", || {
            cluster.end(&[&without_vault, &without_agent]);
        });
        assert_eq!(cluster.lab.living(), 0);
    });
}

#[test]
fn pods_start_though_the_agent_is_killed() {
    in_own_namespaces(|| {
        // Of a token that Vault was making when the agent was killed nobody knows: it ends with its
        // period.
        let period = json!({ "period": PERIOD });
        let lab = Lab::builder().vault_on_disk().applications(&period);
        let mut cluster = Cluster::start_with(lab);
        timed("the agent is killed", || {
            agent_is_killed_while_pods_start(&mut cluster);
        });
    });
}

fn vault_is_down(cluster: &mut Cluster) -> RealPod {
    cluster.lab.vault.stop();
    let pod = cluster.create(&manifest("without-vault"));
    cluster.wait_for_event(&pod, "cannot be reached");
    assert!(!cluster.is_running(&pod));
    cluster.lab.vault.start_again();
    cluster.wait_until_running(&pod);
    cluster.wait_for_volumes(&[&pod]);
    pod
}

fn agent_is_down(cluster: &mut Cluster) -> RealPod {
    cluster.lab.agent.stop();
    let pod = cluster.create(&manifest("without-agent"));
    cluster.wait_for_event(&pod, "no agent listens");
    assert!(!cluster.is_running(&pod));
    cluster.lab.agent.start();
    cluster.wait_until_running(&pod);
    cluster.wait_for_volumes(&[&pod]);
    pod
}

fn agent_is_killed_while_pods_start(cluster: &mut Cluster) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut numbers = Numbers::from_seed(seed);
    let names = (0..PODS).map(|number| format!("web-{number}"));
    let mut known = BTreeSet::new();
    let pods: Vec<RealPod> = names.map(|name| cluster.create(&manifest(&name))).collect();
    for kill in 0..KILLS {
        // Evenly over the pods' progress, so that there is always something in flight.
        let progress = PODS * kill / KILLS;
        eventually_within(Duration::from_secs(100), "pods to start", || {
            let mounted = pods.iter().filter(|pod| !cluster.mounts_of(pod).is_empty());
            (mounted.count() >= progress).then_some(())
        });
        thread::sleep(Duration::from_millis(numbers.below(50)));
        if kill % 3 == 2 {
            cluster.lab.agent.stop();
        } else {
            cluster.lab.agent.kill();
        }
        known.extend(journaled(cluster));
        thread::sleep(Duration::from_millis(numbers.below(300)));
        cluster.lab.agent.start();
    }
    for pod in &pods {
        cluster.wait_until_running(pod);
    }
    let live = cluster.wait_for_volumes(&Vec::from_iter(&pods));
    assert_eq!(cluster.lab.living(), PODS, "tokens left over");
    // None of those that an agent knew of was left to its period.
    let revoked = accessors_in(
        cluster,
        "request",
        "/request/data/accessor",
        "revoke-accessor",
    );
    let left: Vec<_> = known.iter().filter(|it| !live.contains(*it)).collect();
    println!("{} tokens of killed agents' attempts", left.len());
    assert!(left.iter().all(|accessor| revoked.contains(*accessor)));
}

/// The tokens made so far that are in the journal: whatever becomes of the agent, the next one knows.
fn journaled(cluster: &Cluster) -> BTreeSet<String> {
    let journal = cluster.lab.node.journal();
    let wrapped = "/response/wrap_info/wrapped_accessor";
    let mut made = accessors_in(cluster, "response", wrapped, "token/create/");
    made.retain(|accessor| journal.contains(accessor));
    made
}

/// What the audit log has at this place, in entries of this kind for paths with these words.
fn accessors_in(cluster: &Cluster, kind: &str, pointer: &str, path: &str) -> BTreeSet<String> {
    let mut log = cluster.lab.vault.audit_log();
    log.retain(|entry| {
        let of_path = entry["request"]["path"].as_str().unwrap_or_default();
        entry["type"] == kind && of_path.contains(path)
    });
    let accessors = log
        .iter()
        .filter_map(|entry| entry.pointer(pointer)?.as_str());
    accessors.map(str::to_owned).collect()
}
