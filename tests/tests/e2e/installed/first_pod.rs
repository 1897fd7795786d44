//! From `apt-get install` to a pod's volume, and who may see what of it.

use super::{AGENT, AGENTS_SOCKET, DRIVER, PLACE, SETTINGS, SOON, Site, assert_same, repacked};
use vaulttmpfs_tests::eventually_within;

#[test]
fn an_installed_agent_waits_for_its_settings_and_its_token_and_takes_both_up() {
    let site = Site::bare();
    site.install();
    site.assert_active(AGENTS_SOCKET, true);
    site.assert_active(AGENT, false);
    let since = site.socket_since();
    assert_same(&site.machine, PLACE, DRIVER);

    // The first call starts it.
    site.assert_no_mount(&["no generator token"]);
    site.assert_active(AGENT, true);
    site.wait_for_status("not ready: no generator token");

    // Each is noticed by itself.
    site.write_token(&site.vault.root().make_generator_token());
    site.wait_for_status("not ready: Vault at https://127.0.0.1:8200 cannot be reached");
    site.write_settings(SETTINGS, &[]);
    site.wait_until_ready();

    let volume = site.mount("web-0");
    let token = site.machine.inside(|| volume.read("vault-token"));
    assert_eq!(site.vault.root().unwrap(&token).status, 200);
    site.unmount(&volume);
    site.wait_for_living(0);

    // An agent that is not there is started by the next call, too.
    site.machine.sh(&format!("systemctl stop {AGENT}"));
    site.assert_active(AGENT, false);
    let volume = site.mount("web-1");
    site.assert_active(AGENT, true);
    site.unmount(&volume);
    assert_eq!(site.socket_since(), since, "the socket was made anew");
    assert_eq!(site.machine.property(AGENT, "NRestarts"), "0");
}

#[test]
fn an_install_replaces_no_driver_of_another() {
    let site = Site::bare();
    let foreign = "#!/bin/sh\necho '{\"status\": \"Success\"}'\n";
    site.machine.write(PLACE, foreign);
    site.machine.sh(&format!("chmod 0755 '{PLACE}'"));
    let said = site.install();
    assert!(said.contains("vaulttmpfs install-driver --force"), "{said}");
    assert_eq!(site.machine.read(PLACE), foreign);
    // Nor by an upgrade.
    site.apt(&repacked(&site.machine, "99.0.0"));
    assert_eq!(site.machine.read(PLACE), foreign);

    site.machine.sh("vaulttmpfs install-driver --force");
    assert_same(&site.machine, PLACE, DRIVER);
    site.machine.sh("vaulttmpfs install-driver --rollback");
    assert_eq!(site.machine.read(PLACE), foreign);
    // Nor is it taken away.
    site.machine.sh("apt-get purge --yes vaulttmpfs");
    assert_eq!(site.machine.read(PLACE), foreign);
}

#[test]
fn the_sandboxed_agent_sees_volumes_and_tells_who_may_know() {
    let site = Site::installed();
    let volume = site.mount("web-0");

    // Mounted by root outside the service, whose process has nothing to mount with.
    let pid = site.main_pid();
    let status = site.machine.sh(&format!("cat /proc/{pid}/status"));
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    let source = &site.machine.volumes()[0].source;
    let its_mounts = site.machine.sh(&format!("cat /proc/{pid}/mountinfo"));
    assert!(its_mounts.contains(source), "{its_mounts}");
    eventually_within(SOON, "the agent to see the volume", || {
        (site.shown(&volume)?["seen"] == true).then_some(())
    });

    // Its end is seen without a call of the driver.
    let other = site.mount("web-1");
    eventually_within(SOON, "the agent to see the other volume", || {
        (site.shown(&other)?["seen"] == true).then_some(())
    });
    let directory = other.directory.to_str().unwrap();
    site.machine.sh(&format!("umount '{directory}'"));
    site.wait_for_living(1);

    assert_who_may_ask(&site);
    site.unmount(&volume);
}

/// Members of the group may look, and change nothing; others may not even connect.
fn assert_who_may_ask(site: &Site) {
    let machine = &site.machine;
    machine.sh("useradd --groups vaulttmpfs-status member; useradd stranger");
    let ask = |user: &str, call: &str| {
        let curl = "curl --silent --output /dev/null --write-out '%{http_code}'";
        let said = machine.run(&[
            "runuser",
            "--user",
            user,
            "--",
            "sh",
            "-c",
            &format!("{curl} --unix-socket /run/vaulttmpfs/agent.sock {call}"),
        ]);
        said.output
    };
    for path in ["status", "volumes"] {
        assert_eq!(ask("member", &format!("http://agent/v1/{path}")), "200");
    }
    let body = r#"'{"mount_dir":"/x","options":{},"left_ms":1000}'"#;
    for call in [
        &format!("--data {body} http://agent/v1/volumes"),
        "--request DELETE 'http://agent/v1/volumes?mount_dir=/x'",
        "--data '{}' http://agent/v1/reload",
    ] {
        assert_eq!(ask("member", call), "403", "{call}");
    }
    let shown = machine.run(&["runuser", "--user", "member", "--", "vaulttmpfs", "status"]);
    assert_eq!(shown.status, 0, "{shown:?}");
    assert_eq!(ask("stranger", "http://agent/v1/status"), "000");
    // Nor may the agent's own user reach it by that way.
    let groups = machine.sh("id --name --groups vaulttmpfs");
    assert_eq!(groups.trim_end(), "vaulttmpfs");
}
