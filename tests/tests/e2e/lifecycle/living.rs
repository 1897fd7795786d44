//! The worst that this software can do is to revoke a living pod's token: what must never do it.

use super::{
    AFTER_GRACE, Accessors, LOOK_UP, RENEW, REVOKE, SOON, concerns, give_time, mount_by_hand,
    mounted, owed, shown, source_of, unmount_by_hand, wait_for_log, wait_for_state,
    wait_until_seen,
};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as ProcessId;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use vaulttmpfs_tests::{
    Kubelet, Lab, Moment, OpenBao, Pod, Role, Volume, eventually, eventually_within, kill_at,
};

/// Long enough for some reads of the mount table and what they lead to.
const A_WHILE: Duration = Duration::from_secs(8);

/// A mount namespace of its own, copied from the node's, whose mounts nobody else sees.
struct Elsewhere {
    holder: std::process::Child,
}

impl Elsewhere {
    fn new() -> Self {
        Self::with_propagation("private")
    }

    /// One that sees, and shows, what is mounted on the node.
    fn sharing(lab: &Lab) -> Self {
        spread(lab, MsFlags::MS_SHARED);
        Self::with_propagation("unchanged")
    }

    fn with_propagation(propagation: &str) -> Self {
        let own = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", propagation, "sleep", "1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("a mount namespace", || {
            let theirs = own(&holder.id().to_string())?;
            // `sleep` runs only once everything is private.
            let name = fs::read_to_string(format!("/proc/{}/comm", holder.id())).ok()?;
            (Some(theirs) != own("thread-self") && name.trim() == "sleep").then_some(())
        });
        Self { holder }
    }

    fn kubelet(&self, lab: &Lab) -> Kubelet {
        lab.kubelet.living_with(self.holder.id())
    }

    /// Whether the volume is mounted there.
    fn has(&self, volume: &Volume) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.holder.id())).unwrap();
        table.contains(volume.directory.to_str().unwrap())
    }

    fn mount(&self, lab: &Lab, pod: &str) -> Volume {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        self.kubelet(lab)
            .mount(&volume, &lab.options())
            .assert_success();
        assert!(self.has(&volume));
        volume
    }

    fn mounted(&self, lab: &Lab, pod: &str) -> Volume {
        let volume = self.mount(lab, pod);
        assert_eq!(
            lab.node.volumes(),
            [],
            "the agent's side sees nothing of it"
        );
        volume
    }

    fn mount_and_die_behind_it(&self, lab: &Lab, pod: &str) -> Volume {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        fs::create_dir_all(&volume.directory).unwrap();
        let kubelet = self.kubelet(lab);
        let arguments = kubelet.mount_arguments(&volume, &lab.options());
        kill_at(&kubelet.command(&arguments), Moment::AfterAttach);
        assert!(self.has(&volume));
        volume
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // It may have ended; there is nobody to tell.
        let _ = kill(
            ProcessId::from_raw(self.holder.id().cast_signed()),
            Signal::SIGKILL,
        );
        let _ = self.holder.wait();
    }
}

/// Whether mounts spread from the node to mount namespaces that are made of it.
fn spread(lab: &Lab, how: MsFlags) {
    let (root, none) = (lab.node.path(""), None::<&str>);
    mount(none, &root, none, how, none).unwrap();
}

#[track_caller]
fn assert_all_live(lab: &Lab, volumes: &[&Volume]) {
    for volume in volumes {
        assert_eq!(
            shown(lab, volume).expect("a known volume")["state"],
            "attached"
        );
        Accessors::of(lab, volume).assert_alive(lab);
    }
}

#[track_caller]
fn assert_none_ended(lab: &Lab, volumes: &[&Volume]) {
    for volume in volumes {
        let state = &shown(lab, volume).expect("a known volume")["state"];
        assert_ne!(state, "ended", "{}", volume.pod.name);
        Accessors::of(lab, volume).assert_alive(lab);
    }
}

#[test]
fn a_kubelet_root_that_is_a_link_or_mounted_elsewhere_too() {
    let mut lab = Lab::start();
    let link = lab.node.path("linked");
    std::os::unix::fs::symlink(lab.node.path("kubelet"), &link).unwrap();
    let bound = lab.node.path("bound");
    fs::create_dir(&bound).unwrap();
    let kubelet_root = lab.node.path("kubelet");
    mount(
        Some(&kubelet_root),
        &bound,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let volumes = [&link, &bound].map(|root| {
        let kubelet = lab.kubelet.with_root(root);
        let volume = kubelet.volume(&Pod::new("web-0"), "vault");
        kubelet.mount(&volume, &lab.options()).assert_success();
        wait_until_seen(&lab, &volume);
        volume
    });
    for restart in [false, true] {
        if restart {
            lab.agent.stop();
            lab.agent.start();
            lab.agent.wait_until_ready();
        }
        // Something changes in the mount table, so that it is read anew.
        let other = mounted(&lab, "other-0", &lab.options());
        wait_until_seen(&lab, &other);
        lab.kubelet.unmount(&other).assert_success();
        give_time(A_WHILE);
        assert_all_live(&lab, &volumes.each_ref());
    }
    assert_eq!(concerns(&lab), "[]");
    // And their end is found, too.
    for (root, volume) in [link, bound].iter().zip(&volumes) {
        let accessors = Accessors::of(&lab, volume);
        lab.kubelet.with_root(root).unmount(volume).assert_success();
        accessors.wait_until_revoked(&lab, SOON);
    }
}

#[test]
fn a_kubelet_in_a_mount_namespace_of_its_own() {
    let mut lab = Lab::start();
    let elsewhere = Elsewhere::new();
    let [first, second] = ["first-0", "second-0"].map(|pod| elsewhere.mounted(&lab, pod));
    let killed = elsewhere.mount_and_die_behind_it(&lab, "killed-0");
    eventually_within(SOON, "the agent to say that it cannot see", || {
        concerns(&lab)
            .contains("volumes are mounted where this agent cannot see them")
            .then_some(())
    });
    assert_none_ended(&lab, &[&first, &second, &killed]);

    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    let after = elsewhere.mount_and_die_behind_it(&lab, "after-0");
    give_time(2 * A_WHILE);
    assert_none_ended(&lab, &[&first, &second, &killed, &after]);
    // The kubelet, which has had no answer, comes again: what is mounted is confirmed.
    for volume in [&killed, &after] {
        let kubelet = elsewhere.kubelet(&lab);
        kubelet.mount(volume, &lab.options()).assert_success();
        let own = lab.vault.root().accessors_of_pod(&volume.pod.uid);
        assert_eq!(own.len(), 1, "not made anew");
    }
    assert_all_live(&lab, &[&first, &second, &killed, &after]);

    // Only unmount calls end such volumes, and they do.
    let ended = Accessors::of(&lab, &first);
    elsewhere.kubelet(&lab).unmount(&first).assert_success();
    ended.wait_until_revoked(&lab, SOON);
    assert_all_live(&lab, &[&second, &killed, &after]);
}

/// The very first volume of a node whose kubelet is elsewhere: nothing tells the agent so yet. The
/// kubelet, which has had no answer, calls again before it starts the pod.
#[test]
fn the_first_volume_of_a_kubelet_elsewhere_whose_driver_died() {
    let lab = Lab::start();
    let elsewhere = Elsewhere::new();
    let volume = elsewhere.mount_and_die_behind_it(&lab, "first-0");
    give_time(A_WHILE);
    elsewhere
        .kubelet(&lab)
        .mount(&volume, &lab.options())
        .assert_success();
    give_time(A_WHILE);
    assert_eq!(
        shown(&lab, &volume).expect("a known volume")["state"],
        "attached"
    );
    let alive = lab.vault.root().accessors_of_pod(&volume.pod.uid);
    assert_eq!(alive.len(), 1);
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", elsewhere.holder.id())).unwrap();
    let id = shown(&lab, &volume).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        table.contains(&id),
        "the volume that is mounted is the one that lives"
    );
}

/// An agent is started anew where the kubelet's mounts do not reach it, as with other sandboxing in
/// its unit. What its predecessor saw there says nothing of what it would see itself.
#[test]
fn a_new_agent_that_sees_nothing_any_more() {
    let mut lab = Lab::start();
    let elsewhere = Elsewhere::sharing(&lab);
    let volumes = ["web-0", "web-1"].map(|pod| {
        let volume = elsewhere.mount(&lab, pod);
        wait_until_seen(&lab, &volume);
        volume
    });
    lab.agent.kill();
    spread(&lab, MsFlags::MS_PRIVATE);
    for volume in &volumes {
        unmount_by_hand(volume);
        assert!(elsewhere.has(volume));
    }
    lab.agent.start();
    lab.agent.wait_until_ready();
    eventually_within(SOON, "the agent to say that it cannot see", || {
        let said = concerns(&lab).contains("2 volumes that an earlier agent saw");
        said.then_some(())
    });
    give_time(A_WHILE);
    assert_all_live(&lab, &volumes.each_ref());
    // An unmount call ends them all the same.
    let ended = Accessors::of(&lab, &volumes[0]);
    let kubelet = elsewhere.kubelet(&lab);
    kubelet.unmount(&volumes[0]).assert_success();
    ended.wait_until_revoked(&lab, SOON);
    assert_all_live(&lab, &[&volumes[1]]);
}

/// Cut off from the kubelet's mounts, an agent has copies of those from before in its table. They say
/// nothing of those that come after.
#[test]
fn a_new_agent_that_sees_only_copies() {
    let mut lab = Lab::start();
    let elsewhere = Elsewhere::sharing(&lab);
    let old = elsewhere.mount(&lab, "old-0");
    wait_until_seen(&lab, &old);
    lab.agent.kill();
    spread(&lab, MsFlags::MS_PRIVATE);
    lab.agent.start();
    lab.agent.wait_until_ready();
    let new = elsewhere.mount(&lab, "new-0");
    // Something changes in the agent's mount table, so that it is read anew.
    let other = mounted(&lab, "other-0", &lab.options());
    wait_until_seen(&lab, &other);
    eventually_within(SOON, "the agent to say that it cannot see", || {
        concerns(&lab)
            .contains("1 volumes are mounted where this agent cannot see them")
            .then_some(())
    });
    give_time(A_WHILE);
    assert!(elsewhere.has(&new));
    assert_all_live(&lab, &[&old, &new]);
    assert_none_ended(&lab, &[&old, &new]);
}

#[test]
fn a_state_directory_that_was_cloned_to_another_machine() {
    let mut lab = Lab::builder().proxied().start();
    let owed_for = mounted(&lab, "owed-0", &lab.options());
    let living = mounted(&lab, "living-0", &lab.options());
    let accessors = [&owed_for, &living].map(|volume| Accessors::of(&lab, volume));
    let _ = lab.agent.call("POST", "/v1/revocations/hold", "");
    lab.kubelet.unmount(&owed_for).assert_success();
    lab.agent.kill();
    unmount_by_hand(&living);
    fs::remove_file(lab.node.path("state/hold")).unwrap();
    lab.node.change_records(|record| {
        record["origin"]["machine_id"] = "0123456789abcdef0123456789abcdef".into();
        record["origin"]["boot_id"] = "11111111-2222-3333-4444-555555555555".into();
    });
    lab.agent.start();
    lab.agent.wait_until_ready();
    give_time(A_WHILE);
    for both in &accessors {
        both.assert_alive(&lab);
    }
    assert_eq!(lab.agent.volumes(), [json!(null); 0]);
    assert_eq!(lab.proxy().count(REVOKE), 0);
    assert_eq!(
        fs::read_dir(lab.node.path("state/set-aside"))
            .unwrap()
            .count(),
        2
    );
    wait_for_log(&lab, "another machine's");
}

#[test]
fn an_address_that_is_another_vaults() {
    let mut lab = Lab::start();
    let ended = mounted(&lab, "ended-0", &lab.options());
    let living = mounted(&lab, "living-0", &lab.options());
    let of_the_ended = Accessors::of(&lab, &ended);
    let of_the_living = Accessors::of(&lab, &living);
    lab.vault.seal();
    lab.kubelet.unmount(&ended).assert_success();
    wait_for_state(&lab, &ended, "ended");
    lab.vault.unseal();
    lab.agent.kill();
    // The living one's renewal is due as soon as an agent looks.
    lab.node
        .change_records(|record| record["ttl_ms"] = json!(3000));

    let other = OpenBao::start();
    other.root().make_secrets();
    other.root().make_roles(&[Role::applications()]);
    let (own, own_token) = (
        lab.agent.settings.clone(),
        lab.vault.root().make_generator_token(),
    );
    let authority = other.authority().certificate();
    let path = lab.node.write_for_agent("etc/other.crt", &authority);
    let settings = &mut lab.agent.settings;
    settings.insert("VAULT_ADDR".into(), other.address().into());
    settings.insert("VAULT_CACERT".into(), path.to_str().unwrap().into());
    lab.write_generator_token(&other.root().make_generator_token());
    lab.agent.start();
    lab.agent.wait_until_ready();
    give_time(A_WHILE);
    let log = serde_json::to_string(&other.audit_log()).unwrap();
    for accessor in of_the_ended.0.iter().chain(&of_the_living.0) {
        assert!(!log.contains(accessor), "another Vault was asked about it");
    }
    assert_eq!(owed(&lab), 1, "what is owed is shown");
    assert_eq!(shown(&lab, &living).unwrap()["lost"], false);
    // Meanwhile the other one serves.
    let new = mounted(&lab, "new-0", &lab.options());
    assert_eq!(other.root().accessors_of_pod(&new.pod.uid).len(), 1);
    lab.kubelet.unmount(&new).assert_success();
    eventually_within(SOON, "the other Vault's own revocation", || {
        other.root().pod_tokens().is_empty().then_some(())
    });

    // Back again, everything is as it was.
    lab.agent.stop();
    lab.agent.settings = own;
    lab.write_generator_token(&own_token);
    lab.agent.start();
    lab.agent.wait_until_ready();
    of_the_ended.wait_until_revoked(&lab, SOON);
    of_the_living.assert_alive(&lab);
    assert_eq!(shown(&lab, &living).unwrap()["lost"], false);
}

/// The same address, but another cluster answers there, or the settings name another namespace:
/// nothing is said to it about what is not its own.
#[test]
fn records_of_another_cluster_or_namespace() {
    let mut lab = Lab::builder().proxied().start();
    let pods = [
        "cluster-ended",
        "cluster-living",
        "team-ended",
        "team-living",
    ];
    let volumes = pods.map(|pod| mounted(&lab, pod, &lab.options()));
    for volume in &volumes {
        wait_until_seen(&lab, volume);
    }
    let accessors = volumes.each_ref().map(|volume| Accessors::of(&lab, volume));
    let _ = lab.agent.call("POST", "/v1/revocations/hold", "");
    for ended in [&volumes[0], &volumes[2]] {
        lab.kubelet.unmount(ended).assert_success();
    }
    lab.agent.kill();
    fs::remove_file(lab.node.path("state/hold")).unwrap();
    let mut own = json!(null);
    lab.node.change_records(|record| {
        own = record["origin"].clone();
        // Renewals are due as soon as an agent looks.
        record["ttl_ms"] = json!(3000);
        let cluster = record["pod"]["name"]
            .as_str()
            .unwrap()
            .starts_with("cluster");
        let (field, other) = if cluster {
            ("cluster_id", "11111111-2222-3333-4444-555555555555")
        } else {
            ("namespace", "team")
        };
        record["origin"][field] = other.into();
    });
    lab.agent.start();
    lab.agent.wait_until_ready();
    wait_for_log(&lab, "its token is of another Vault");
    eventually("all of them to be a concern", || {
        concerns(&lab)
            .contains("4 volumes have tokens of another Vault")
            .then_some(())
    });
    give_time(A_WHILE);
    for call in [RENEW, REVOKE, LOOK_UP] {
        assert_eq!(lab.proxy().count(call), 0, "{call}");
    }
    for both in &accessors {
        both.assert_alive(&lab);
    }
    assert_eq!(owed(&lab), 2, "what is owed is shown");

    lab.agent.kill();
    lab.node
        .change_records(|record| record["origin"] = own.clone());
    lab.agent.start();
    lab.agent.wait_until_ready();
    for ended in [0, 2] {
        accessors[ended].wait_until_revoked(&lab, SOON);
    }
    assert_all_live(&lab, &[&volumes[1], &volumes[3]]);
}

/// A driver that is slow, or whose connection broke: as long as it lives and its time to attach is
/// not over, nothing is ended.
#[test]
fn a_driver_that_is_slow_to_attach() {
    let lab = Lab::start();
    let other = mounted(&lab, "other-0", &lab.options());
    wait_until_seen(&lab, &other);
    let ask = |pod: &str| {
        let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
        fs::create_dir_all(&volume.directory).unwrap();
        let [_, directory, options] = lab.kubelet.mount_arguments(&volume, &lab.options());
        let options: serde_json::Value = serde_json::from_str(&options).unwrap();
        let namespace = fs::metadata("/proc/thread-self/ns/mnt").unwrap().ino();
        let request = json!({
            "mount_dir": directory,
            "options": options,
            "left_ms": 2 * A_WHILE.as_millis(),
            "mount_namespace": namespace,
        });
        (volume, request.to_string())
    };
    // This process is the driver: it lives on.
    let hung_up = |pod: &str| {
        let (volume, request) = ask(pod);
        assert!(lab.agent.call("POST", "/v1/volumes", &request).is_success());
        volume
    };
    let [attaches, never] = ["attaches-0", "never-0"].map(hung_up);
    let (waits, request) = ask("waits-0");
    let mut connection = UnixStream::connect(lab.agent.socket()).unwrap();
    let head = format!(
        "POST /v1/volumes HTTP/1.1\r\nHost: agent\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    connection.write_all((head + &request).as_bytes()).unwrap();
    wait_for_state(&lab, &waits, "delivered");

    give_time(A_WHILE);
    for volume in [&attaches, &waits, &never] {
        let state = &shown(&lab, volume).expect("a known volume")["state"];
        assert_eq!(state, "delivered", "{}", volume.pod.name);
    }
    let of_the_never = Accessors::of(&lab, &never);
    for volume in [&attaches, &waits] {
        mount_by_hand(volume, &source_of(&lab, volume));
        wait_for_state(&lab, volume, "attached");
    }
    of_the_never.wait_until_revoked(&lab, SOON);
    assert_all_live(&lab, &[&attaches, &waits, &other]);
    for volume in [&attaches, &waits] {
        unmount_by_hand(volume);
    }
}

#[test]
fn a_mass_of_vanished_mounts() {
    let mut lab = Lab::builder().proxied().start();
    let volumes: Vec<Volume> = (0..13)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    let (stays, vanish) = volumes.split_first().unwrap();
    for volume in &volumes {
        wait_until_seen(&lab, volume);
    }
    let accessors: Vec<_> = vanish
        .iter()
        .map(|volume| Accessors::of(&lab, volume))
        .collect();
    // One look of the agent's shows that all of them are gone.
    lab.agent.freeze();
    for volume in vanish {
        unmount_by_hand(volume);
    }
    lab.agent.thaw();
    eventually_within(SOON, "the hold", || {
        concerns(&lab)
            .contains("all revocations are held")
            .then_some(())
    });
    give_time(Duration::from_secs(35));
    // Over a restart, too.
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    give_time(Duration::from_secs(35));
    assert!(
        concerns(&lab).contains("all revocations are held"),
        "{}",
        concerns(&lab)
    );
    for both in &accessors {
        both.assert_alive(&lab);
    }
    assert_eq!(lab.proxy().count(REVOKE), 0);

    let released = lab.command(&["revocations", "release"]);
    assert_eq!(released.status, 0, "{released:?}");
    assert!(released.output.contains("12 volumes"), "{released:?}");
    for both in &accessors {
        both.wait_until_revoked(&lab, AFTER_GRACE);
    }
    assert_all_live(&lab, &[stays]);
    assert_eq!(concerns(&lab), "[]");
}

#[test]
fn a_hold_by_an_admin() {
    let mut lab = Lab::builder().proxied().start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessors = Accessors::of(&lab, &volume);
    assert!(
        lab.agent
            .call("POST", "/v1/revocations/hold", "")
            .is_success()
    );
    lab.kubelet.unmount(&volume).assert_success();
    give_time(A_WHILE);
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    give_time(A_WHILE);
    accessors.assert_alive(&lab);
    assert_eq!(lab.proxy().count(REVOKE), 0);
    assert!(concerns(&lab).contains("held"), "{}", concerns(&lab));
    assert!(
        lab.agent
            .call("POST", "/v1/revocations/release", "")
            .is_success()
    );
    accessors.wait_until_revoked(&lab, SOON);
    // And it stays released.
    lab.agent.kill();
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_eq!(concerns(&lab), "[]");
}

/// Two records of one directory, as an agent that died between two writes may leave them: the later
/// one, which is mounted, lives, also when the clock was set by a day in between.
#[test]
fn two_records_of_one_directory() {
    for clock_set_back in [false, true] {
        let mut lab = Lab::start();
        let volume = mounted(&lab, "web-0", &lab.options());
        wait_until_seen(&lab, &volume);
        let accessors = Accessors::of(&lab, &volume);
        lab.agent.kill();
        let (path, record) = lab.node.records().remove(0);
        for number in 0..4_u64 {
            let mut twin = record.clone();
            let id = format!("{number:032x}");
            twin["id"] = json!(id);
            twin["accessor"] = json!("notanaccessor00000000000");
            twin["wrapping"] = json!(null);
            let boottime = record["created"]["boottime"].as_u64().unwrap();
            twin["created"]["boottime"] = json!(boottime - 1000 - number);
            let wall = record["created"]["wall"].as_u64().unwrap();
            let day = 24 * 3600 * 1000;
            let stepped = if clock_set_back {
                wall + day
            } else {
                wall - day
            };
            twin["created"]["wall"] = json!(stepped);
            let copy = path.with_file_name(id);
            fs::copy(&path, &copy).unwrap();
            fs::write(&copy, twin.to_string()).unwrap();
            let owner = fs::metadata(&path).unwrap();
            std::os::unix::fs::chown(&copy, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        lab.agent.start();
        lab.agent.wait_until_ready();
        give_time(A_WHILE);
        accessors.assert_alive(&lab);
        assert_all_live(&lab, &[&volume]);
    }
}
