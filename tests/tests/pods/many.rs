//! Many pods at once: what our volumes add to the time until all run.

use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Cluster, PodManifest, RealPod, in_own_namespaces};

const PODS: usize = 60;

/// More than this would be a mount that waits for another. The figures themselves are printed: two
/// runs on a busy machine differ by more than our share.
const BOUND: f64 = 2.0;

#[test]
fn sixty_pods_start_at_once() {
    in_own_namespaces(|| {
        let cluster = Cluster::start();
        // Whatever is done once is done before.
        let first =
            cluster.run(&PodManifest::new("first").volume("data", &[("vault/policies", "app")]));
        let (plain, pods) = started(&cluster, |number| {
            PodManifest::new(&format!("plain-{number}")).empty_dir("data")
        });
        cluster.end(&Vec::from_iter(&pods));
        let (ours, pods) = started(&cluster, |number| {
            PodManifest::new(&format!("web-{number}")).volume("data", &[("vault/policies", "app")])
        });
        cluster.wait_for_volumes(&pods.iter().chain([&first]).collect::<Vec<_>>());
        let (plain, ours) = (plain.as_secs_f64(), ours.as_secs_f64());
        println!(
            "{PODS} pods at once: {ours:.1} s, with an emptyDir {plain:.1} s: {:.2} times as long",
            ours / plain
        );
        assert!(ours / plain < BOUND);
    });
}

/// Starts them, and says how long it took from the first pod's creation until all ran.
fn started(cluster: &Cluster, manifest: impl Fn(usize) -> PodManifest) -> (Duration, Vec<RealPod>) {
    let begun = Instant::now();
    let pods: Vec<RealPod> = (0..PODS)
        .map(|number| cluster.create(&manifest(number)))
        .collect();
    for pod in &pods {
        cluster.wait_until_running(pod);
    }
    (begun.elapsed(), pods)
}
