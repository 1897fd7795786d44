//! The first plugin's settings, which the kubelet's unit carries, become the agent's.

use super::{AGENT, CA, SETTINGS, Site};

const UNIT: &str = "\
[Service]
ExecStart=/usr/bin/sleep infinity
Environment=VAULT_ADDR=https://unit.example.com:8200 HOME=/root
EnvironmentFile=-/etc/default/kubelet
EnvironmentFile=/etc/default/kubelet.d/*.conf
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
    for name in ["10-first", "20-last"] {
        let file = format!("/etc/default/kubelet.d/{name}.conf");
        machine.write(&file, &format!("VAULTTMPFS_TOKEN_FILENAME={name}\n"));
    }
    machine.sh("systemctl daemon-reload");
    let said = machine.sh("vaulttmpfs migrate --write 2>&1 || true");
    let settings = machine.read(SETTINGS);
    for setting in [
        "VAULT_ADDR=https://unit.example.com:8200",
        "VAULTTMPFS_ROLE_NAME=from-drop-in",
        "VAULT_WRAP_TTL=90s",
        "VAULTTMPFS_TOKEN_FILENAME=20-last",
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

/// What `migrate` says of a token elsewhere is all that is to be done for it.
#[test]
fn a_token_elsewhere_is_taken_and_watched_as_migrate_advises() {
    let site = Site::bare();
    site.install();
    let (machine, token) = (&site.machine, "/etc/kubernetes/tokens/node");
    let kubelet = format!(
        "[Service]\nExecStart=/usr/bin/sleep infinity\nEnvironment=VAULT_ADDR={} VAULT_CACERT={CA} VAULTTMPFS_GENERATOR_TOKEN_PATH={token}\n",
        site.vault.address()
    );
    machine.write("/etc/systemd/system/kubelet.service", &kubelet);
    machine.sh("systemctl daemon-reload; vaulttmpfs migrate --write");
    let first = site.vault.root().make_generator_token();
    machine.write(token, &first);
    let settings = machine.read(SETTINGS);
    let advice = advised(&settings);
    assert_eq!(advice.len(), 2, "{advice:?}");
    for (unit, section, line) in advice {
        let drop_in = format!("/etc/systemd/system/{unit}.d/override.conf");
        let line = line.replace("FILE", token);
        machine.write(&drop_in, &format!("{section}\n{line}\n"));
    }
    machine.sh(&format!(
        "chmod 0400 {token}; systemctl daemon-reload; systemctl restart vaulttmpfs-reload.path {AGENT}"
    ));
    site.wait_until_ready();
    site.unmount(&site.mount("web-0"));
    let second = site.vault.root().make_generator_token();
    machine.write(token, &second);
    site.wait_until_used(&second);
    machine.sh(&format!("rm {token}"));
}

/// The units to edit, each with a section and a line of it, in the words of a file of settings.
fn advised(settings: &str) -> Vec<(&str, &str, &str)> {
    let edits = settings.split("`systemctl edit ").skip(1);
    edits
        .map(|edit| {
            let (unit, rest) = edit.split_once("`: ").expect("a unit");
            let (section, rest) = rest.split_once(", ").expect("a section");
            let line = rest.split([';', '\n']).next().expect("a line");
            (unit, section, line)
        })
        .collect()
}
