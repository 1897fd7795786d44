//! A node loses its power with pods on it, and comes back.

use std::collections::BTreeSet;
use vaulttmpfs_tests::{Cluster, PodManifest, RealPod, in_own_namespaces};

#[test]
fn pods_come_back_with_new_tokens() {
    in_own_namespaces(|| {
        let mut cluster = Cluster::start();
        let manifest = |name: &str| {
            PodManifest::new(name)
                .volume("secret", &[("vault/policies", "app")])
                .script("cat secret/vault-token >/dev/null && echo up")
        };
        let mut pods: Vec<RealPod> = (0..3)
            .map(|number| cluster.create(&manifest(&format!("web-{number}"))))
            .collect();
        // This one keeps even its volume's directory.
        let fixed = manifest("static");
        cluster.write_static_pod(&fixed);
        pods.push(cluster.static_pod(&fixed));
        let tokens = |cluster: &Cluster, starts: usize| -> BTreeSet<String> {
            for pod in &pods {
                cluster.wait(pod, &format!("to have started {starts} times"), || {
                    (cluster.output_of(pod).matches("up").count() == starts).then_some(())
                });
            }
            cluster.wait_for_volumes(&Vec::from_iter(&pods))
        };
        let old = tokens(&cluster, 1);
        cluster.cut_power();
        assert_eq!(cluster.lab.node.volumes(), []);
        assert_eq!(
            cluster.lab.living(),
            old.len(),
            "nobody is there to revoke them"
        );
        cluster.boot();
        let new = tokens(&cluster, 2);
        assert!(new.is_disjoint(&old), "an old token in a new volume");
        assert_eq!(cluster.lab.living(), new.len(), "the old ones are revoked");
    });
}
