//! Settings that change, and are bad for a while: the agent that runs is not harmed by them.

use super::{AGENT, SETTINGS, SOON, Site};
use vaulttmpfs_tests::eventually_within;

#[test]
fn bad_settings_replace_no_running_agent_and_mended_ones_do() {
    let site = Site::installed();
    let (since, first) = (site.socket_since(), site.main_pid());

    // A bad one is tried, named and not taken.
    site.write_settings(SETTINGS, &["VAULT_MAX_RETRIES=many"]);
    site.wait_for_journal("VAULT_MAX_RETRIES");
    assert_eq!(site.main_pid(), first, "the running agent goes on");
    let volume = site.mount("web-0");

    // An agent that has nothing better serves, and names it.
    site.machine.sh(&format!("systemctl restart {AGENT}"));
    site.assert_active(AGENT, true);
    site.assert_no_mount(&["VAULT_MAX_RETRIES", "many"]);
    site.wait_for_status("not ready");
    assert!(site.says().contains("VAULT_MAX_RETRIES"), "{}", site.says());
    // A pod ends all the same.
    site.unmount(&volume);

    // A good one is taken.
    site.write_settings(SETTINGS, &["VAULTTMPFS_TOKEN_FILENAME=token"]);
    site.wait_until_ready();
    let volume = site.mount("web-1");
    assert!(
        site.machine
            .inside(|| volume.files())
            .contains(&"token".to_owned())
    );

    // And by hand, without a change: nothing is started anew.
    let running = site.main_pid();
    site.machine.sh(&format!("systemctl reload {AGENT}"));
    assert_eq!(site.main_pid(), running);

    // A good change under a good agent.
    site.write_settings(SETTINGS, &["VAULTTMPFS_TOKEN_FILENAME=other"]);
    eventually_within(SOON, "an agent with the new settings", || {
        let pid = site.main_pid();
        (pid != 0 && pid != running).then_some(())
    });
    site.wait_until_ready();
    let other = site.mount("web-2");
    assert!(
        site.machine
            .inside(|| other.files())
            .contains(&"other".to_owned())
    );
    site.unmount(&volume);
    site.unmount(&other);
    // The first one ended unheard: the agent has found out by itself, and waited a minute.
    site.wait_for_living(0);
    assert_eq!(site.socket_since(), since, "the socket was made anew");
}
