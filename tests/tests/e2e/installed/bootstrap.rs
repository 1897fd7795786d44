//! The generator token is made on the node: settings from the service's file, and the agent takes it.

use super::{AGENT, SETTINGS, SOON, Site, TOKEN};
use serde_json::json;
use vaulttmpfs_tests::{eventually_within, text};

#[test]
fn a_node_gets_its_token_by_bootstrap_as_a_file_or_encrypted() {
    let site = Site::bare();
    site.install();
    site.write_settings(SETTINGS, &[]);
    site.machine.sh(&format!("systemctl start {AGENT}"));
    site.wait_for_status("not ready: no generator token");

    // An administrator's own token, in the environment of this one command.
    let root = json!({"policies": ["root"], "no_parent": true});
    let root = site.vault.root().write("auth/token/create", &root);
    let token = text(&root["auth"]["client_token"]);
    site.machine.write(super::LOGIN, &token);
    let as_admin = &format!("export VAULT_TOKEN=$(cat {})", super::LOGIN);
    let said = site
        .machine
        .sh(&format!("{as_admin}; vaulttmpfs bootstrap"));
    let node = site.machine.sh("cat /proc/sys/kernel/hostname");
    let written = format!("written: {TOKEN}: token-vaulttmpfs-{}", node.trim_end());
    assert!(said.contains(&written), "{said}");
    assert_eq!(
        site.machine.sh(&format!("stat -c '%a %U %G' {TOKEN}")),
        "600 root root\n"
    );
    site.wait_until_ready();
    site.unmount(&site.mount("web-0"));
    let said = site.machine.sh("vaulttmpfs renew-token");
    assert_eq!(said, "renewed: the generator token has 768h to live\n");
    let said = site.machine.sh("vaulttmpfs bootstrap");
    assert!(said.contains("kept: "), "{said}");

    // Encrypted, as the drop-in's own lines say.
    let example = "/usr/share/doc/vaulttmpfs/examples/encrypted-token.conf";
    let since = site.socket_since();
    site.machine.sh(&format!(
        "{as_admin}
         vaulttmpfs bootstrap --systemd-creds
         mkdir -p /etc/systemd/system/{AGENT}.d
         cp {example} /etc/systemd/system/{AGENT}.d/
         rm {TOKEN}
         systemctl daemon-reload
         systemctl restart {AGENT}"
    ));
    site.wait_until_ready();
    site.unmount(&site.mount("web-1"));
    assert_eq!(site.socket_since(), since, "the socket was made anew");
    let key = "/etc/credstore.encrypted/generator-token";
    assert_eq!(
        site.machine.sh(&format!("stat -c '%a %U' {key}")),
        "600 root\n"
    );
    site.vault
        .secrets()
        .assert_absent("the encrypted credential", &site.machine.read(key));
    eventually_within(SOON, "the volumes' tokens to be revoked", || {
        site.vault.root().pod_tokens().is_empty().then_some(())
    });
}
