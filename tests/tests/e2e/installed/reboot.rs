//! A node that is booted with volumes mounted: they are gone with its memory, and so are their
//! tokens, without anyone doing anything.

use super::{AGENT, AGENTS_SOCKET, Site};
use vaulttmpfs_tests::Machine;

/// A service that protects the kernel's tunables sees those of the real machine, which has not been
/// booted: a copy of the container's own boot id is put over that one.
const COPY: &str = "C /run/boot-id 0444 - - - /proc/sys/kernel/random/boot_id\n";
const SHOW_COPY: &str =
    "[Service]\nBindReadOnlyPaths=/run/boot-id:/proc/sys/kernel/random/boot_id\n";

#[test]
fn a_booted_node_revokes_the_tokens_of_the_last_boot_and_serves() {
    let mut site = Site::installed();
    let drop_in = format!("/etc/systemd/system/{AGENT}.d/boot-id.conf");
    site.machine.write("/etc/tmpfiles.d/boot-id.conf", COPY);
    site.machine.write(&drop_in, SHOW_COPY);
    site.machine.sh(&format!(
        "systemd-tmpfiles --create boot-id.conf; systemctl daemon-reload; systemctl restart {AGENT}"
    ));
    site.wait_until_ready();
    for boot in [Machine::reboot, Machine::lose_power] {
        for pod in ["web-0", "web-1"] {
            let _ = site.mount(pod);
        }
        site.wait_for_living(2);
        boot(&mut site.machine);
        // Not by a call: it comes up by itself.
        site.wait_until_ready();
        site.assert_active(AGENTS_SOCKET, true);
        site.wait_for_living(0);
        assert!(site.machine.volumes().is_empty());
    }
    let volume = site.mount("web-2");
    site.unmount(&volume);
    site.wait_for_living(0);
}
