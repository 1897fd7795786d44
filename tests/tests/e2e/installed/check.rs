//! `vaulttmpfs check` where systemd runs the agent: it finds the unit's settings, and looks into its
//! sandbox.

use super::{AGENT, CA, SETTINGS, Site};
use serde_json::{Value, json};

/// The settings beside those that each node needs: pods reach Vault by another name.
const MORE: [&str; 1] = ["VAULTTMPFS_POD_VAULT_ADDR=https://vault.test:8200"];

/// What passes for a kubelet: a process of that name.
const KUBELET: &str = "#!/bin/sh\nwhile :; do sleep 1000; done\n";

/// All failures and warnings.
fn found(site: &Site) -> Vec<String> {
    let said = site.machine.sh("vaulttmpfs check --json || true");
    let report: Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let findings = report["findings"].as_array().expect("findings");
    let bad = findings
        .iter()
        .filter(|one| one["level"] == "failure" || one["level"] == "warning");
    bad.map(|one| format!("{}: {}", one["level"], one["text"]))
        .collect()
}

/// One thing is wrong, in these words.
#[track_caller]
fn finds(site: &Site, words: &[&str]) {
    let found = found(site);
    assert_eq!(found.len(), 1, "{words:?}: {found:#?}");
    for word in words {
        assert!(found[0].contains(word), "{word}: {found:#?}");
    }
}

fn start_kubelet(site: &Site, arguments: &str) {
    let unit = format!("[Service]\nType=exec\nExecStart=/usr/local/bin/kubelet {arguments}\n");
    let machine = &site.machine;
    machine.write("/usr/local/bin/kubelet", KUBELET);
    machine.write("/etc/systemd/system/kubelet.service", &unit);
    machine.sh(
        "chmod 0755 /usr/local/bin/kubelet && systemctl daemon-reload && systemctl restart kubelet",
    );
}

/// Starts the agent with this in its unit; with nothing, as it was.
fn drop_in(site: &Site, text: &str) {
    let directory = format!("/etc/systemd/system/{AGENT}.d");
    site.machine.sh(&format!("mkdir -p {directory}"));
    site.machine.write(
        &format!("{directory}/test.conf"),
        &format!("[Service]\n{text}\n"),
    );
    site.machine.sh(&format!(
        "systemctl daemon-reload && systemctl restart {AGENT}"
    ));
    site.wait_until_ready();
}

#[test]
fn a_node_as_it_is_installed_is_looked_at() {
    let site = Site::installed();
    let root = site.vault.root();
    let role = "auth/token/roles/applications";
    root.write(role, &json!({ "period": "24h" }));
    site.write_settings(SETTINGS, &MORE);
    start_kubelet(&site, "--v=2");
    drop_in(&site, "");
    let volume = site.mount("web-0");
    assert_eq!(found(&site), [""; 0]);
    let text = site.machine.sh("vaulttmpfs check --mint");
    for part in [
        "the settings of vaulttmpfs-agent.service and its files are good",
        "the agent's mount namespace follows the node's at /var/lib/kubelet",
        "the agent sees every volume that is mounted (1)",
        "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/cloudwatt~vaulttmpfs/vaulttmpfs is version",
        "a token was made after",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    site.wait_for_living(1);
    let secrets = site.vault.secrets();
    secrets.assert_absent("the check's output", &text);

    // A drop-in is the unit's, too.
    drop_in(&site, "Environment=VAULT_WRAP_TTL=20m");
    let found_now = found(&site);
    assert!(
        found_now
            .iter()
            .any(|one| one.contains("the default is 20m")),
        "{found_now:#?}"
    );

    drop_in(&site, "MountFlags=private");
    let found_now = found(&site);
    let cut_off = "do not reach the agent's mount namespace";
    assert!(
        found_now.iter().any(|one| one.contains(cut_off)),
        "{found_now:#?}"
    );
    drop_in(&site, "");

    site.machine.sh(&format!("chmod 0640 {CA}"));
    finds(
        &site,
        &[
            "VAULT_CACERT: the agent runs as vaulttmpfs, who cannot read",
            "chmod o+rX",
        ],
    );
    site.machine.sh(&format!("chmod 0644 {CA}"));

    start_kubelet(&site, "--root-dir=/root/kubelet");
    site.machine.sh("mkdir -p /root/kubelet");
    finds(
        &site,
        &[
            "does not see the kubelet's directory /root/kubelet",
            "ProtectHome=read-only",
        ],
    );
    start_kubelet(&site, "");
    assert_eq!(found(&site), [""; 0]);
    site.unmount(&volume);
}
