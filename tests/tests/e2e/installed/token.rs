//! The generator token's file: replaced, truncated, deleted, encrypted.

use super::{AGENT, Site, TOKEN};
use serde_json::json;

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
fn a_token_may_be_encrypted_on_the_disk() {
    let site = Site::installed();
    let example = "/usr/share/doc/vaulttmpfs/examples/encrypted-token.conf";
    let key = "/etc/credstore.encrypted/generator-token";
    site.machine.sh(&format!(
        "mkdir -p -m 0700 /etc/credstore.encrypted /etc/systemd/system/{AGENT}.d
         systemd-creds encrypt --name=generator-token --with-key=host {TOKEN} {key}
         rm {TOKEN}
         cp {example} /etc/systemd/system/{AGENT}.d/
         systemctl daemon-reload
         systemctl restart {AGENT}"
    ));
    site.wait_until_ready();
    site.unmount(&site.mount("web-0"));
    let secrets = site.vault.secrets();
    secrets.assert_absent("the encrypted credential", &site.machine.read(key));
}

fn revoke(site: &Site, token: &str) {
    let body = json!({ "token": token });
    site.vault.root().write("auth/token/revoke", &body);
}
