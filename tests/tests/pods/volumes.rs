//! What pods get: files that they may read, a token for their policies, and an end of both with the
//! pod.

use crate::together;
use std::fs;
use vaulttmpfs_tests::{Cluster, PodManifest, in_own_namespaces, readme_block, text};

const APP: [(&str, &str); 1] = [("vault/policies", "app")];

#[test]
fn pods_read_their_volumes() {
    in_own_namespaces(|| {
        let cluster = Cluster::start();
        together(
            &cluster,
            &[
                ("unwrapped in the pod", unwrapped_in_the_pod),
                ("not root", a_group_reads),
                ("read-only", read_only),
                ("two volumes", two_volumes),
                ("static pod", a_static_pod),
                ("refused and corrected", refused_and_corrected),
                ("no value logged", a_failure_logs_no_value),
            ],
        );
    });
}

/// The commands in README.md, in a container that has nothing but a shell, the client and the volume.
fn unwrapped_in_the_pod(cluster: &Cluster) {
    let unwrap = readme_block("unwrap")
        .replace("/var/run/secrets/vault", &Cluster::inside("secret"))
        .replace("secret/web", "secret/app");
    let pod = cluster.run(
        &PodManifest::new("unwrap")
            .volume("secret", &APP)
            .host_file("vault", Cluster::vault_program().to_str().unwrap())
            .script(&format!(
                "PATH=$PATH:$PWD\n{unwrap}\ncd /; df {0} | tail -n 1; ls -1 {0}",
                Cluster::inside("secret")
            )),
    );
    let secret = cluster.wait_for_output(&pod, "password");
    assert_eq!(secret, "the secret of app");
    cluster.wait_for_output(&pod, "vault-token.json");
    let [accessor] = Vec::from_iter(cluster.wait_for_volumes(&[&pod]))
        .try_into()
        .unwrap();
    let accessor: String = accessor;
    let token = cluster.lab.vault.root().lookup_accessor(&accessor).unwrap();
    assert_eq!(text(&token["meta"]["service_account"]), "web", "{token}");
    cluster.end(&[&pod]);
}

/// The group that the pod's volumes are for may read what nobody else may.
fn a_group_reads(cluster: &Cluster) {
    let script = "stat -c 'mode %u %g %a' secret/vault-token
        cat secret/vault-token >/dev/null && echo read yes || echo read no";
    let options = [APP[0], ("vault/filePermissions", "0400")];
    let manifest = |name| {
        PodManifest::new(name)
            .volume("secret", &options)
            .script(script)
    };
    let member = cluster.run(&manifest("member").user(1000, Some(2000)));
    let stranger = cluster.run(&manifest("stranger").user(1000, None));
    assert_eq!(cluster.wait_for_output(&member, "mode"), "0 2000 440");
    assert_eq!(cluster.wait_for_output(&member, "read"), "yes");
    assert_eq!(cluster.wait_for_output(&stranger, "mode"), "0 0 400");
    assert_eq!(cluster.wait_for_output(&stranger, "read"), "no");
    cluster.end(&[&member, &stranger]);
}

fn read_only(cluster: &Cluster) {
    let script = "touch secret/mark 2>/dev/null && echo write yes || echo write no
        cat secret/vault-token >/dev/null && echo read yes || echo read no";
    let manifest = |name| PodManifest::new(name).volume("secret", &APP).script(script);
    let reader = cluster.run(&manifest("reader").read_only());
    let writer = cluster.run(&manifest("writer"));
    assert_eq!(cluster.wait_for_output(&reader, "write"), "no");
    assert_eq!(cluster.wait_for_output(&reader, "read"), "yes");
    assert_eq!(cluster.wait_for_output(&writer, "write"), "yes");
    cluster.end(&[&reader, &writer]);
}

/// Each has a token of its own, with its own policies.
fn two_volumes(cluster: &Cluster) {
    let pod = cluster.run(
        &PodManifest::new("two")
            .volume("one", &APP)
            .volume("other", &[("vault/policies", "other")])
            .script("cat one/vault-token other/vault-token >/dev/null && echo read yes"),
    );
    assert_eq!(cluster.wait_for_output(&pod, "read"), "yes");
    let root = cluster.lab.vault.root();
    for (volume, policy) in [("one", "app"), ("other", "other")] {
        let token = fs::read_to_string(cluster.volumes_of(&pod).join(volume).join("vault-token"));
        let auth = root.unwrap(&token.unwrap()).body["auth"].take();
        let mut policies: Vec<String> = auth["policies"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        policies.retain(|one| one != "default");
        assert_eq!(policies, [policy]);
    }
    assert_eq!(cluster.mounts_of(&pod).len(), 2);
    assert_eq!(cluster.tokens_of(&[&pod]).len(), 2);
    cluster.end(&[&pod]);
}

/// Its uid has no dashes, and it has no service account.
fn a_static_pod(cluster: &Cluster) {
    let manifest = PodManifest::new("static")
        .volume("secret", &APP)
        .script("cat secret/vault-token >/dev/null && echo read yes");
    cluster.write_static_pod(&manifest);
    let pod = cluster.static_pod(&manifest);
    assert!(pod.uid.len() == 32 && !pod.uid.contains('-'), "{}", pod.uid);
    assert_eq!(cluster.wait_for_output(&pod, "read"), "yes");
    cluster.wait_for_volumes(&[&pod]);
    cluster.remove_static_pod(&manifest);
    cluster.wait_until_gone(&[&pod]);
}

/// Whoever wrote the manifest sees what is wrong with it where one looks first.
fn refused_and_corrected(cluster: &Cluster) {
    let wrong = PodManifest::new("wrong").volume("secret", &[("vault/polices", "app")]);
    cluster.write_static_pod(&wrong);
    let pod = cluster.static_pod(&wrong);
    let message = cluster.wait_for_event(&pod, "vault/polices");
    assert!(message.contains("MountVolume.SetUp failed"), "{message}");
    cluster.wait(&pod, "to be told of in the kubelet's log", || {
        let log = cluster.kubelet.log();
        log.contains("vault/polices").then_some(())
    });
    assert_eq!(cluster.mounts_of(&pod), []);
    assert!(cluster.tokens_of(&[&pod]).is_empty());
    let right = PodManifest::new("wrong").volume("secret", &APP);
    cluster.write_static_pod(&right);
    let corrected = cluster.wait(&pod, "to be replaced", || {
        let now = cluster.static_pod(&right);
        (now.uid != pod.uid).then_some(now)
    });
    cluster.wait_until_running(&corrected);
    cluster.wait_for_volumes(&[&corrected]);
    cluster.remove_static_pod(&right);
    cluster.wait_until_gone(&[&corrected]);
}

/// The kubelet would log all arguments of a driver that fails in the wrong way.
fn a_failure_logs_no_value(cluster: &Cluster) {
    const NAME: &str = "a-name-of-a-file-like-no-other";
    const SECRET: &str = "YSBzZWNyZXQgbGlrZSBubyBvdGhlcg==";
    cluster.create_secret("credentials", SECRET);
    let options = [
        ("vault/role", "no-such-role"),
        ("vault/tokenFilename", NAME),
    ];
    let manifest = PodManifest::new("refused")
        .volume("secret", &options)
        .secret("credentials");
    let pod = cluster.create(&manifest);
    let message = cluster.wait_for_event(&pod, "no-such-role");
    assert!(message.contains("MountVolume.SetUp failed"), "{message}");
    let told = cluster.kubelet.log() + &cluster.events_of(&pod).concat() + &cluster.lab.agent.log();
    assert!(told.contains("no-such-role"));
    for value in [NAME, SECRET] {
        assert!(!told.contains(value), "{value} is told");
    }
    cluster.end(&[&pod]);
}
