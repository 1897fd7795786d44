//! An agent that is stopped, or dies, and starts again loses nothing.

use super::{Accessors, RENEW, REVOKE, SOON, age, give_time, mounted, shown, wait_until_seen};
use serde_json::json;
use std::thread;
use std::time::Duration;
use vaulttmpfs_tests::{
    Fault, Lab, Pod, Volume, eventually, eventually_within, kill_at_call, text,
};

const CREATE: &str = "POST /v1/auth/token/create";

#[test]
fn mounts_in_flight_are_finished_and_volumes_taken_up_again() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "60s" }))
        .proxied()
        .start();
    let before: Vec<Volume> = (0..5)
        .map(|number| mounted(&lab, &format!("before-{number}"), &lab.options()))
        .collect();
    // Longer than an idle connection is given when the agent stops.
    lab.proxy()
        .always(CREATE, Fault::Late(Duration::from_secs(4)));
    let flight: Vec<Volume> = (0..8)
        .map(|number| {
            lab.kubelet
                .volume(&Pod::new(&format!("flight-{number}")), "vault")
        })
        .collect();
    let created = lab.proxy().count(CREATE);
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    thread::scope(|scope| {
        let mounts: Vec<_> = flight
            .iter()
            .map(|volume| {
                let (kubelet, options) = (&kubelet, &options);
                scope.spawn(move || kubelet.mount(volume, options))
            })
            .collect();
        eventually("all creates", || {
            (lab.proxy().count(CREATE) == created + 8).then_some(())
        });
        let status = lab.agent.stop();
        assert!(status.success(), "{status}");
        lab.agent.start();
        for mount in mounts {
            mount.join().unwrap().assert_success();
        }
    });
    assert_eq!(
        lab.proxy().count(CREATE),
        created + 8,
        "each was asked for once"
    );
    lab.agent.wait_until_ready();
    let all: Vec<&Volume> = before.iter().chain(&flight).collect();
    for volume in &all {
        wait_until_seen(&lab, volume);
        Accessors::of(&lab, volume).assert_alive(&lab);
    }
    assert_eq!(lab.living(), all.len());
    eventually_within(Duration::from_secs(150), "one and a half periods", || {
        let age = |volume: &&Volume| {
            let inner = Accessors::of(&lab, volume).0.remove(0);
            age(&lab, &inner).expect("renewed by the agent that took it up")
        };
        (all.iter().map(age).min()? >= 90).then_some(())
    });
}

#[test]
fn a_start_costs_vault_no_call_a_volume() {
    let mut lab = Lab::builder().proxied().start();
    let volumes: Vec<Volume> = (0..40)
        .map(|number| mounted(&lab, &format!("web-{number}"), &lab.options()))
        .collect();
    wait_until_seen(&lab, &volumes[39]);
    for how in ["stop", "kill"] {
        if how == "stop" {
            lab.agent.stop();
        } else {
            lab.agent.kill();
        }
        let before = lab.proxy().requests().len();
        lab.agent.start();
        lab.agent.wait_until_ready();
        give_time(Duration::from_secs(5));
        let requests = lab.proxy().requests().split_off(before);
        assert!(requests.len() <= 8, "{how}: {requests:#?}");
        assert!(
            !requests.iter().any(|one| one.contains("accessor")),
            "{requests:#?}"
        );
        assert_eq!(lab.agent.volumes().len(), 40);
    }
}

/// The one window in which an accessor cannot be known: the agent dies while Vault makes the token.
/// It stays wrapped, nobody has it, and nobody renews it.
#[test]
fn a_token_whose_answer_found_no_agent_expires_by_itself() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "30s" }))
        .proxied()
        .start();
    lab.proxy().order(1, CREATE, Fault::held());
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "vault");
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    thread::scope(|scope| {
        let mount = scope.spawn(|| kubelet.mount(&volume, &options));
        eventually("the token", || (lab.living() == 1).then_some(()));
        lab.agent.kill();
        lab.proxy().release();
        lab.agent.start();
        mount.join().unwrap().assert_success();
    });
    assert_eq!(lab.living(), 2, "one of them is known to nobody");
    eventually_within(SOON, "the other's expiry", || {
        (lab.living() == 1).then_some(())
    });
    Accessors::of(&lab, &volume).assert_alive(&lab);
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
    assert_eq!(lab.proxy().count(REVOKE), 0);
}

/// The pod's living tokens that are not in the journal.
fn strays(lab: &Lab, volume: &Volume) -> Vec<String> {
    let root = lab.vault.root();
    let mut tokens = root.accessors_of_pod(&volume.pod.uid);
    let journal = lab.node.journal();
    // One that was revoked meanwhile is in the journal no more, either.
    tokens.retain(|one| !journal.contains(one) && root.lookup_accessor(one).is_some());
    tokens
}

/// Kills the agent at every so-many-th system call of a mount, from the caller's connection to its
/// end. Whatever has reached the driver is in the journal; the only token that nobody knows of is one
/// whose answer the agent had not yet written down: nobody has it, and it expires unused.
fn kill_at_every_step(stride: usize) {
    const PERIOD: u64 = 30;
    let mut lab = Lab::builder()
        .applications(&json!({ "period": format!("{PERIOD}s") }))
        .start();
    // So that an absence means something.
    let other = mounted(&lab, "other-0", &lab.options());
    wait_until_seen(&lab, &other);
    let mut unknown = Vec::new();
    for step in 1.. {
        let volume = lab
            .kubelet
            .volume(&Pod::new(&format!("web-{step}")), "vault");
        let (kubelet, options) = (lab.kubelet.clone(), lab.options());
        let killed = thread::scope(|scope| {
            let mount = scope.spawn(|| kubelet.mount(&volume, &options));
            let killed = kill_at_call(lab.agent.id(), step * stride, || mount.is_finished());
            lab.agent.kill();
            let reached_the_driver = lab
                .node
                .volumes()
                .iter()
                .any(|mount| mount.point == volume.directory);
            assert!(
                strays(&lab, &volume).is_empty() || !reached_the_driver,
                "step {step}: a token was handed out and not written down"
            );
            lab.agent.start();
            lab.agent.wait_until_ready();
            mount.join().unwrap().assert_success();
            killed
        });
        // By now Vault has done what it was asked for by the agent that died.
        let nobodys = strays(&lab, &volume);
        assert!(nobodys.len() <= 1, "step {step}: made more than once");
        unknown.extend(nobodys);
        let own = text(&volume.read_json("vault-token.json")["wrapped_accessor"]);
        let others = |lab: &Lab| {
            let mut living = lab.vault.root().accessors_of_pod(&volume.pod.uid);
            living.retain(|accessor| !unknown.contains(accessor));
            living
        };
        eventually_within(SOON, &format!("step {step}: its one token"), || {
            (others(&lab) == [own.as_str()]).then_some(())
        });
        lab.kubelet.unmount(&volume).assert_success();
        eventually_within(SOON, &format!("step {step}: no token"), || {
            others(&lab).is_empty().then_some(())
        });
        if !killed {
            println!("{step} steps, {} tokens that nobody knew", unknown.len());
            break;
        }
    }
    assert!(
        stride > 1 || !unknown.is_empty(),
        "the one window was not met"
    );
    eventually_within(Duration::from_secs(2 * PERIOD), "their expiry", || {
        (lab.living() == 1).then_some(())
    });
    Accessors::of(&lab, &other).assert_alive(&lab);
}

#[test]
fn an_agent_killed_at_many_steps_of_a_mount() {
    kill_at_every_step(11);
}

#[test]
#[ignore = "long"]
fn an_agent_killed_at_every_step_of_a_mount() {
    kill_at_every_step(1);
}

/// Killed at random while mounts go on one after the other: whatever Vault answered and the agent
/// heard is accounted for.
#[test]
fn killed_between_mounts_the_agent_knows_every_volume_again() {
    let mut lab = Lab::start();
    for round in 0..6 {
        let volume = mounted(&lab, &format!("web-{round}"), &lab.options());
        lab.agent.kill();
        lab.agent.start();
        lab.agent.wait_until_ready();
        assert_eq!(
            shown(&lab, &volume).expect("a known volume")["state"],
            "attached"
        );
    }
    assert_eq!(lab.living(), 6);
    lab.assert_all_accounted_for();
}

#[test]
fn renewals_go_on_in_a_row_of_killed_agents() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": "20s" }))
        .proxied()
        .start();
    let volume = mounted(&lab, "web-0", &lab.options());
    let accessor = Accessors::of(&lab, &volume).0.remove(0);
    // Each lives shorter than the time between two renewals.
    while age(&lab, &accessor).expect("renewed by one or another") < 50 {
        lab.agent.kill();
        lab.agent.start();
        lab.agent.wait_until_ready();
        give_time(Duration::from_secs(3));
    }
    assert!(lab.proxy().count(RENEW) >= 2);
}
