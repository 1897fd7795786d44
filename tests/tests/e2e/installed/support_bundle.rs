//! `vaulttmpfs support-bundle` beside systemd and journald.

use super::{AGENT, Site};
use crate::support_bundle::{PLANTED, unpack};

/// A drop-in as an administrator may write it who knows no better: the unit's environment and the
/// commands of its start have a token, and so has the log.
fn drop_in() -> String {
    format!(
        "[Service]\nEnvironment=VAULT_TOKEN={PLANTED} DB_PASSWORD=hunter2\n\
         ExecStartPre=/bin/echo token {PLANTED} in the log\n"
    )
}

#[test]
fn it_has_the_units_and_their_log_and_no_secret() {
    let site = Site::installed();
    let machine = &site.machine;
    machine.sh(&format!("mkdir -p /etc/systemd/system/{AGENT}.d"));
    machine.write(
        &format!("/etc/systemd/system/{AGENT}.d/own.conf"),
        &drop_in(),
    );
    machine.sh(&format!(
        "systemctl daemon-reload && systemctl restart {AGENT}"
    ));
    site.wait_until_ready();
    let volume = site.mount("web-0");
    let said = machine.sh("cd /root && vaulttmpfs support-bundle --output bundle.tar.gz 2>&1");
    assert_eq!(
        said, "written: /root/bundle.tar.gz\n",
        "no part is left out"
    );
    assert!(
        machine.journal().contains(PLANTED),
        "it is in the log itself"
    );

    let files = unpack(&site.vault, &machine.path("/root/bundle.tar.gz"));
    let directory = volume.directory.to_str().unwrap();
    for (part, words) in [
        (
            "units.txt",
            &[
                "vaulttmpfs-agent.service",
                "vaulttmpfs-reload.path",
                "active (running)",
            ][..],
        ),
        (
            "properties.txt",
            &[
                "Id=vaulttmpfs-agent.socket\n",
                "ActiveState=active\n",
                "StatusText=ready",
            ],
        ),
        (
            "log.txt",
            &[
                "ready: Vault knows the generator token",
                "token (a token was here) in the log",
            ],
        ),
        ("mounts.txt", &[" - tmpfs vaulttmpfs:"]),
        (
            "settings.txt",
            &[
                "VAULT_ADDR=https://",
                "generator token in /etc/kubernetes/vaulttoken: set\n",
            ],
        ),
        ("status.json", &["\"ready\":true"]),
        ("volumes.json", &[directory]),
        ("check.txt", &["ok: ", "\nfailures: "]),
        ("metrics.txt", &["vaulttmpfs_mounts_total 1"]),
    ] {
        for word in words {
            assert!(
                files[part].contains(word),
                "{word:?} in {part}: {}",
                files[part]
            );
        }
    }
    site.unmount(&volume);
}

#[test]
fn of_a_long_log_it_has_the_end() {
    const LINES: usize = 1000;
    let site = Site::installed();
    let machine = &site.machine;
    machine.write(
        &format!("/etc/systemd/system/{AGENT}.d/own.conf"),
        "[Service]\nExecStartPre=/usr/bin/seq --format=line-%%.0f 1200\n",
    );
    machine.sh(&format!(
        "systemctl daemon-reload && systemctl restart {AGENT}"
    ));
    site.wait_until_ready();
    machine.sh("journalctl --sync && cd /root && vaulttmpfs support-bundle --output long.tar.gz");

    let files = unpack(&site.vault, &machine.path("/root/long.tar.gz"));
    let log: Vec<&str> = files["log.txt"].lines().collect();
    assert_eq!(log.len(), LINES, "{:?}", log.first());
    let has = |words: &str| log.iter().any(|line| line.ends_with(words));
    assert!(has(" line-1200"), "{:?}", log.last());
    assert!(!has(" line-1"), "{:?}", log.first());
}
