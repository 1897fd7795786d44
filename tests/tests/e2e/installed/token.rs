//! The generator token's file: replaced, truncated, deleted, encrypted.

use super::{AGENT, SETTINGS, Site, TOKEN};
use serde_json::json;

const EXAMPLES: &str = "/usr/share/doc/vaulttmpfs/examples";
const CERTIFICATE: &str = "/etc/vaulttmpfs/client.crt";

#[test]
fn a_token_is_taken_when_it_is_good_and_kept_when_its_file_is_not() {
    let site = Site::installed();
    let (since, agent) = (site.socket_since(), site.main_pid());
    let first = site.machine.read(TOKEN);

    // Replaced: the running agent takes it, and needs the old one no more.
    let second = site.vault.root().make_generator_token();
    site.write_token(&second);
    site.wait_until_used(&second);
    revoke(&site, &first);
    site.unmount(&site.mount("web-0"));

    // One that Vault does not know: it is tried and not taken, until a good one comes.
    site.write_token("s.nobodyHasEverMadeThisToken");
    site.wait_for_journal("the token in use stays");
    site.unmount(&site.mount("web-3"));
    let third = site.vault.root().make_generator_token();
    site.write_token(&third);
    site.wait_until_used(&third);

    // Truncated, and deleted: what it has is kept.
    for change in ["truncate --size 0", "rm"] {
        site.machine.sh(&format!(
            "{change} {TOKEN}; systemctl reload {AGENT} || true"
        ));
        site.unmount(&site.mount("web-1"));
        assert_eq!(site.main_pid(), agent, "no agent was started anew");
    }

    // An agent that starts without one waits for it: without a file, and with an empty one.
    for change in ["true", "touch"] {
        site.machine
            .sh(&format!("{change} {TOKEN}; systemctl restart {AGENT}"));
        site.wait_for_status("not ready: no generator token");
        site.assert_no_mount(&["no generator token"]);
        site.write_token(&third);
        site.wait_until_ready();
        site.unmount(&site.mount("web-2"));
        site.machine.sh(&format!("rm {TOKEN}"));
    }
    site.wait_for_living(0);
    assert_eq!(site.socket_since(), since, "the socket was made anew");
}

#[test]
fn a_token_and_a_client_key_may_be_encrypted_on_the_disk() {
    let site = Site::installed();
    let client = site.vault.authority().client();
    site.machine.write(CERTIFICATE, &client.certificate);
    site.machine.write("/root/client.key", &client.key);
    site.write_settings(SETTINGS, &[&format!("VAULT_CLIENT_CERT={CERTIFICATE}")]);
    let store = "/etc/credstore.encrypted";
    site.machine.sh(&format!(
        "mkdir -p -m 0700 {store}
         systemd-creds encrypt --name=generator-token --with-key=host {TOKEN} {store}/generator-token
         systemd-creds encrypt --name=client-key --with-key=host /root/client.key {store}/client-key
         install -D -m 0400 /root/client.key /etc/vaulttmpfs/client.key
         rm {TOKEN} /root/client.key"
    ));
    // Whatever the drop-in of the key is called, it counts beside that of the token.
    for key in ["client-key.conf", "encrypted-client-key.conf"] {
        site.machine.sh(&format!(
            "rm -rf /etc/systemd/system/{AGENT}.d
             mkdir /etc/systemd/system/{AGENT}.d
             cp {EXAMPLES}/encrypted-token.conf {EXAMPLES}/{key} /etc/systemd/system/{AGENT}.d/
             systemctl daemon-reload
             systemctl restart {AGENT}"
        ));
        site.wait_until_ready();
        site.unmount(&site.mount("web-0"));
        site.machine.sh("rm -f /etc/vaulttmpfs/client.key");
    }
    let secrets = site.vault.secrets();
    let encrypted = site.machine.read(&format!("{store}/generator-token"));
    secrets.assert_absent("the encrypted credential", &encrypted);
}

fn revoke(site: &Site, token: &str) {
    let body = json!({ "token": token });
    site.vault.root().write("auth/token/revoke", &body);
}
