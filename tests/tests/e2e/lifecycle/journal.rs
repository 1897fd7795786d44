//! A journal with bad sectors, and a disk without room.

use super::{Accessors, SOON, age, concerns, mounted, shown, wait_for_log, wait_until_seen};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use vaulttmpfs_tests::{Fault, Lab, Pod, eventually, eventually_within};

#[test]
fn a_damaged_record_harms_no_other() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "30s" }))
        .start();
    let [damaged, ended, living] =
        ["damaged-0", "ended-0", "living-0"].map(|pod| mounted(&lab, pod, &lab.options()));
    for volume in [&damaged, &ended, &living] {
        wait_until_seen(&lab, volume);
    }
    let of_the_ended = Accessors::of(&lab, &ended);
    let of_the_living = Accessors::of(&lab, &living);
    lab.vault.seal();
    lab.kubelet.unmount(&ended).assert_success();
    lab.agent.kill();
    lab.vault.unseal();
    let (path, record) = lab
        .node
        .records()
        .into_iter()
        .find(|(_, record)| record["mount_dir"].as_str() == damaged.directory.to_str())
        .unwrap();
    let text = record.to_string();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    lab.agent.start();
    lab.agent.wait_until_ready();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(lab.node.path("state/set-aside").join(name).is_file());
    eventually_within(SOON, "a word about the damaged record", || {
        let log = lab.agent.log();
        let said = |line: &str| line.contains(name) && line.contains("is set aside");
        log.lines().any(said).then_some(())
    });
    of_the_ended.wait_until_revoked(&lab, SOON);
    assert_eq!(shown(&lab, &living).unwrap()["state"], "attached");
    // What is mounted and not known is said.
    eventually_within(SOON, "a word about the stranger", || {
        concerns(&lab).contains("1 mounted volume").then_some(())
    });
    eventually_within(Duration::from_secs(90), "one and a half periods", || {
        (age(&lab, &of_the_living.0[0]).expect("renewed all the same") >= 45).then_some(())
    });
}

#[test]
fn a_record_that_cannot_be_read_harms_no_other() {
    let mut lab = Lab::start();
    let [hidden, living] = ["hidden-0", "living-0"].map(|pod| mounted(&lab, pod, &lab.options()));
    wait_until_seen(&lab, &living);
    lab.agent.kill();
    let (path, _) = lab
        .node
        .records()
        .into_iter()
        .find(|(_, record)| record["mount_dir"].as_str() == hidden.directory.to_str())
        .unwrap();
    let owner = fs::metadata(&path).unwrap().uid();
    chown(&path, Some(0), Some(0)).unwrap();
    lab.agent.start();
    lab.agent.wait_until_ready();
    wait_for_log(&lab, path.file_name().unwrap().to_str().unwrap());
    assert_eq!(shown(&lab, &living).unwrap()["state"], "attached");
    assert!(shown(&lab, &hidden).is_none());
    // It is still there for the next agent.
    chown(&path, Some(owner), Some(owner)).unwrap();
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_eq!(shown(&lab, &hidden).unwrap()["state"], "attached");
}

/// Puts the state directory on a tmpfs of its own, so small that it can be filled.
fn small_disk(lab: &Lab) -> PathBuf {
    let state = lab.node.path("state");
    let owner = fs::metadata(&state).unwrap();
    let size = Some("size=256k,mode=0700");
    mount(Some("disk"), &state, Some("tmpfs"), MsFlags::empty(), size).unwrap();
    chown(&state, Some(owner.uid()), Some(owner.gid())).unwrap();
    state
}

/// Leaves no room at all, not even what the agent has taken ahead for one mount.
fn fill(state: &Path) {
    fs::remove_file(state.join("volumes/.spare")).unwrap();
    // The last byte: what is left of a page, too.
    let _ = fs::write(state.join("big"), vec![0; 1024 * 1024]);
    for number in 0..64 {
        let _ = fs::write(state.join(format!("small-{number}")), [0; 1]);
    }
}

fn make_room(state: &Path) {
    for entry in fs::read_dir(state).unwrap().flatten() {
        let name = entry.file_name();
        if name == "big" || name.to_string_lossy().starts_with("small-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// A node whose agent keeps its journal on a disk that is soon full.
fn with_small_disk() -> (Lab, PathBuf) {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "30s" }))
        .without_agent()
        .start();
    let state = small_disk(&lab);
    lab.agent.start();
    lab.agent.wait_until_ready();
    (lab, state)
}

#[test]
fn a_full_disk_costs_new_mounts_only() {
    let (mut lab, state) = with_small_disk();
    let [living, ends] = ["living-0", "ends-0"].map(|pod| mounted(&lab, pod, &lab.options()));
    for volume in [&living, &ends] {
        wait_until_seen(&lab, volume);
    }
    let of_the_living = Accessors::of(&lab, &living);
    let of_the_ended = Accessors::of(&lab, &ends);
    fill(&state);

    let pods = [0, 1, 2].map(|number| Pod::new(&format!("late-{number}")));
    for pod in &pods {
        let volume = lab.kubelet.volume(pod, "vault");
        let outcome = lab.kubelet.mount(&volume, &lab.options());
        outcome.assert_failure(&["journal", "disk"]);
    }
    assert_eq!(lab.node.volumes().len(), 2);
    // No token is left over that nobody has, now or as soon as there is room.
    lab.kubelet.unmount(&ends).assert_success();
    eventually_within(SOON, "a word about the disk", || {
        concerns(&lab).contains("disk").then_some(())
    });
    eventually_within(Duration::from_secs(120), "two periods", || {
        (age(&lab, &of_the_living.0[0]).expect("renewed all the same") >= 60).then_some(())
    });
    assert_eq!(lab.agent.call("GET", "/healthz", "").status, 200);

    make_room(&state);
    of_the_ended.wait_until_revoked(&lab, SOON);
    eventually_within(SOON, "the end of tokens that nobody got", || {
        (lab.living() == 1).then_some(())
    });
    eventually_within(SOON, "no concern", || {
        (concerns(&lab) == "[]").then_some(())
    });
    let volume = lab.kubelet.volume(&pods[0], "vault");
    lab.kubelet.mount(&volume, &lab.options()).assert_success();

    // And the journal has it all, for the next agent.
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_eq!(lab.agent.volumes().len(), 2);
    of_the_living.assert_alive(&lab);
    lab.assert_all_accounted_for();
}

/// Killed while the disk is full: what was written before is all there, and the tokens of failed
/// mounts were ended at Vault, or are unreachable and expire.
#[test]
fn an_agent_killed_on_a_full_disk() {
    let (mut lab, state) = with_small_disk();
    let [living, ends] = ["living-0", "ends-0"].map(|pod| mounted(&lab, pod, &lab.options()));
    for volume in [&living, &ends] {
        wait_until_seen(&lab, volume);
    }
    let of_the_living = Accessors::of(&lab, &living);
    let of_the_ended = Accessors::of(&lab, &ends);
    fill(&state);
    let late = lab.kubelet.volume(&Pod::new("late-0"), "vault");
    lab.kubelet
        .mount(&late, &lab.options())
        .assert_failure(&["journal"]);
    lab.kubelet.unmount(&ends).assert_success();
    lab.agent.kill();
    make_room(&state);
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_eq!(shown(&lab, &living).unwrap()["state"], "attached");
    of_the_ended.wait_until_revoked(&lab, super::AFTER_GRACE);
    eventually_within(SOON, "the end of the token that nobody got", || {
        (lab.living() == 1).then_some(())
    });
    of_the_living.assert_alive(&lab);
}

/// There was room when the mount began, and the journal is gone when Vault has answered: the token
/// that nobody will get is ended at once.
#[test]
fn a_record_that_cannot_be_written_once_vault_has_answered() {
    let mut lab = Lab::builder()
        .proxied()
        .set("VAULT_CLIENT_TIMEOUT", "90s")
        .start();
    let living = mounted(&lab, "living-0", &lab.options());
    wait_until_seen(&lab, &living);
    let of_the_living = Accessors::of(&lab, &living);
    let directory = lab.node.path("state/volumes");
    let owner = fs::metadata(&directory).unwrap();
    let create = "POST /v1/auth/token/create";
    lab.proxy().order(1, create, Fault::held());
    let late = lab.kubelet.volume(&Pod::new("late-0"), "vault");
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    thread::scope(|scope| {
        let mount = scope.spawn(|| kubelet.mount(&late, &options));
        eventually("the token", || (lab.living() == 2).then_some(()));
        chown(&directory, Some(0), Some(0)).unwrap();
        lab.proxy().release();
        mount.join().unwrap().assert_failure(&["journal"]);
    });
    assert_eq!(lab.node.volumes().len(), 1);
    eventually_within(SOON, "the end of the token that nobody got", || {
        (lab.living() == 1).then_some(())
    });
    chown(&directory, Some(owner.uid()), Some(owner.gid())).unwrap();
    eventually_within(SOON, "no concern", || {
        (concerns(&lab) == "[]").then_some(())
    });
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_eq!(lab.agent.volumes().len(), 1);
    of_the_living.assert_alive(&lab);
}
