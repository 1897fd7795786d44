//! The first plugin's settings, which the kubelet's unit carries, become the agent's.

use super::{SETTINGS, Site};

const UNIT: &str = "\
[Service]
ExecStart=/usr/bin/sleep infinity
Environment=VAULT_ADDR=https://unit.example.com:8200 HOME=/root
EnvironmentFile=-/etc/default/kubelet
";

const DROP_IN: &str = "\
[Service]
Environment=\"VAULTTMPFS_ROLE_NAME=from-drop-in\" VAULT_TOKEN=hvs.never-shown
";

#[test]
fn the_settings_of_the_kubelets_unit_are_taken_over() {
    let site = Site::bare();
    site.install();
    let machine = &site.machine;
    machine.sh("mkdir -p /etc/systemd/system/kubelet.service.d");
    machine.write("/etc/systemd/system/kubelet.service", UNIT);
    machine.write("/etc/systemd/system/kubelet.service.d/vault.conf", DROP_IN);
    machine.write("/etc/default/kubelet", "VAULT_WRAP_TTL='90s'\n");
    machine.sh("systemctl daemon-reload");
    let said = machine.sh("vaulttmpfs migrate --write 2>&1 || true");
    let settings = machine.read(SETTINGS);
    for setting in [
        "VAULT_ADDR=https://unit.example.com:8200",
        "VAULTTMPFS_ROLE_NAME=from-drop-in",
        "VAULT_WRAP_TTL=90s",
    ] {
        let there = settings
            .lines()
            .any(|line| line.replace(['"', '\''], "") == setting);
        assert!(there, "{setting} in:\n{settings}\n{said}");
    }
    assert!(!settings.contains("HOME="), "{settings}");
    for text in [&settings, &said] {
        assert!(!text.contains("never-shown"), "{text}");
    }
}
