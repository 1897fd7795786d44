//! An agent that hangs is started anew; one that systemd cannot start takes no socket with it.

use super::{AGENT, AGENTS_SOCKET, SOON, Site};
use vaulttmpfs_tests::eventually_within;

#[test]
fn an_agent_that_hangs_is_started_anew() {
    let site = Site::installed();
    let volume = site.mount("web-0");
    let hung = site.main_pid();
    site.machine.sh(&format!("kill -STOP {hung}"));
    // A call that comes meanwhile waits for the next agent, half a minute.
    let other = site.mount("web-1");
    eventually_within(SOON, "another agent", || {
        (![0, hung].contains(&site.main_pid())).then_some(())
    });
    assert_eq!(site.machine.property(AGENT, "NRestarts"), "1");
    for volume in [volume, other] {
        assert!(site.shown(&volume).is_some(), "the volume was forgotten");
        site.unmount(&volume);
    }
    site.wait_for_living(0);
}

#[test]
fn any_number_of_crashes_leaves_the_socket_there() {
    let site = Site::installed();
    let since = site.socket_since();
    for _ in 0..8 {
        let pid = site.main_pid();
        site.machine.sh(&format!("kill -KILL {pid}"));
        eventually_within(SOON, "another agent", || {
            (![0, pid].contains(&site.main_pid())).then_some(())
        });
    }
    site.unmount(&site.mount("web-0"));
    site.assert_active(AGENTS_SOCKET, true);
    assert_eq!(site.socket_since(), since, "the socket was made anew");
}
