//! A node's bad days: each failure has a message of its own, comes within its bound, leaves nothing
//! mounted and no token that nobody accounts for; and when the trouble is over, mounts work.

use serde_json::json;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use vaulttmpfs_tests::{Authority, Fault, Lab, Options, Pod, Proxy, Role, eventually};

const CREATE: &str = "POST /v1/auth/token/create";

/// What one mount may take at most, by the driver's own bound.
const BOUND: Duration = Duration::from_secs(112);

#[test]
fn no_agent() {
    let lab = Lab::builder().without_agent().start();
    lab.assert_refused(&lab.options(), &["agent", "agent.sock"]);
}

#[test]
fn an_agent_that_was_killed_comes_back() {
    let mut lab = Lab::start();
    lab.agent.kill();
    lab.assert_refused(&lab.options(), &["agent"]);
    lab.agent.start();
    lab.agent.wait_until_ready();
    let _ = lab.mounted(&lab.options());
}

#[test]
#[ignore = "long"]
fn an_agent_that_hangs_is_waited_for_no_longer_than_the_bound() {
    let mut lab = Lab::start();
    lab.agent.freeze();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let outcome = lab.kubelet.mount(&volume, &lab.options());
    lab.agent.thaw();
    outcome.assert_failure(&["agent"]);
    assert!(outcome.took < BOUND, "{:?}", outcome.took);
    lab.assert_nothing_left();
}

#[test]
fn an_agent_that_talks_nonsense() {
    let lab = Lab::builder().without_agent().start();
    let listener = UnixListener::bind(lab.node.socket()).unwrap();
    let nonsense = [
        "",
        "no http\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{",
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    ];
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for (peer, answer) in listener.incoming().zip(nonsense.iter().cycle()) {
            let Ok(mut peer) = peer else { return };
            let mut request = [0; 4096];
            let _ = peer.read(&mut request);
            let _ = peer.write_all(answer.as_bytes());
        }
    });
    for _ in nonsense {
        lab.assert_refused(&lab.options(), &["agent"]);
    }
}

#[test]
fn vault_is_down() {
    let mut lab = Lab::start();
    lab.vault.process().kill();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let outcome = lab.kubelet.mount(&volume, &lab.options());
    outcome.assert_failure(&["Vault", lab.vault.address()]);
    assert!(outcome.took < BOUND, "{:?}", outcome.took);
    assert_eq!(lab.node.volumes(), []);
    eventually("the agent to say that it is not ready", || {
        (lab.agent.call("GET", "/readyz", "").status == 503).then_some(())
    });
}

#[test]
fn vault_hangs() {
    let lab = Lab::builder().set("VAULT_CLIENT_TIMEOUT", "3s").start();
    lab.vault.freeze();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let outcome = lab.kubelet.mount(&volume, &lab.options());
    lab.vault.thaw();
    // On a connection that is kept: no answer within 3s. On a new one: it cannot be reached.
    outcome.assert_failure(&["Vault", lab.vault.address()]);
    assert!(outcome.took < BOUND, "{:?}", outcome.took);
    assert_eq!(lab.node.volumes(), []);
    // The create may yet be carried out: it was sent. One at most.
    assert!(lab.vault.root().accessors_of_pod(&volume.pod.uid).len() <= 1);
    eventually("mounts to work again", || {
        let outcome = lab.kubelet.mount(&volume, &lab.options());
        (outcome.status == "Success").then_some(())
    });
}

#[test]
fn vault_is_sealed() {
    let mut lab = Lab::start();
    lab.vault.seal();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let outcome = lab.kubelet.mount(&volume, &lab.options());
    outcome.assert_failure(&["sealed"]);
    assert_eq!(lab.node.volumes(), []);
    lab.vault.unseal();
    lab.assert_nothing_left();
    assert_eq!(lab.living(), 0);
    eventually("mounts to work again", || {
        let outcome = lab.kubelet.mount(&volume, &lab.options());
        (outcome.status == "Success").then_some(())
    });
}

#[test]
fn vault_was_sealed_when_the_agent_began() {
    let mut lab = Lab::builder().without_agent().start();
    lab.vault.seal();
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab.kubelet
        .mount(&lab.kubelet.volume(&Pod::new("web-0"), "v"), &lab.options())
        .assert_failure(&["sealed"]);
    lab.vault.unseal();
    lab.agent.wait_until_ready();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn what_passes_is_waited_for() {
    let lab = Lab::builder().proxied().start();
    for (times, fault) in [
        (
            1,
            Fault::error_with(429, "rate limit", &[("Retry-After", "1")]),
        ),
        (1, Fault::error(412, "not yet")),
        (1, Fault::error(472, "standby")),
        (1, Fault::error(473, "standby")),
        (1, Fault::error(503, "Vault is sealed")),
        (2, Fault::error(429, "rate limit")),
    ] {
        let before = lab.proxy().count(CREATE);
        lab.proxy().order(times, CREATE, fault.clone());
        let volume = lab.mounted(&lab.options());
        assert_eq!(lab.proxy().count(CREATE), before + times + 1, "{fault:?}");
        assert_eq!(lab.vault.root().accessors_of_pod(&volume.pod.uid).len(), 1);
        lab.kubelet.unmount(&volume).assert_success();
    }
}

#[test]
fn what_may_have_made_a_token_is_not_repeated() {
    let lab = Lab::builder().proxied().start();
    for (fault, words) in [
        (
            Fault::error(500, "internal error"),
            &["500", "internal error"][..],
        ),
        (Fault::page(502), &["502"]),
        (Fault::page(503), &["503"]),
        (Fault::page(504), &["504"]),
        (Fault::HangUp, &["Vault"]),
    ] {
        let before = lab.proxy().count(CREATE);
        lab.proxy().always(CREATE, fault.clone());
        lab.assert_refused(&lab.options(), words);
        assert_eq!(lab.proxy().count(CREATE), before + 1, "{fault:?}");
        lab.proxy().heal();
    }
    assert_eq!(lab.living(), 0);
}

#[test]
fn what_only_reads_is_repeated_after_any_failure() {
    let lab = Lab::builder()
        .proxied()
        .role(Role::new("jobs", &json!({})))
        .start();
    let options = Options::new(&[("vault/role", "jobs")]);
    for fault in [
        Fault::error(500, "internal error"),
        Fault::page(502),
        Fault::HangUp,
    ] {
        lab.proxy().order(1, "GET /v1/auth/token/roles/jobs", fault);
    }
    // Without policies the role must be read before the create; it is, at the third mount at last.
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    eventually("the role to be read", || {
        let outcome = lab.kubelet.mount(&volume, &options);
        (outcome.status == "Success").then_some(())
    });
    assert_eq!(lab.proxy().count(CREATE), 1);
    let reads = lab.proxy().count("GET /v1/auth/token/roles/jobs");
    assert!(reads >= 4, "three failed, then one went well: {reads}");
}

#[test]
fn a_standbys_redirect_is_followed_once() {
    let lab = Lab::builder()
        .proxied()
        .set("VAULTTMPFS_REDIRECT_HOSTS", "localhost")
        .start();
    let path = "/v1/auth/token/create/applications";
    let here = format!("{}{path}", lab.vault.address());
    for location in [here.clone(), here.replace("127.0.0.1", "localhost")] {
        lab.proxy().order(1, CREATE, Fault::redirect(&location));
        let volume = lab.mounted(&lab.options());
        assert_eq!(lab.vault.root().accessors_of_pod(&volume.pod.uid).len(), 1);
        lab.kubelet.unmount(&volume).assert_success();
    }
    let before = lab.proxy().count(CREATE);
    let round = format!("{}{path}", lab.proxy().address());
    for location in [round, here.replace("https", "http")] {
        lab.proxy().always(CREATE, Fault::redirect(&location));
        lab.assert_refused(&lab.options(), &["redirect"]);
        lab.proxy().heal();
    }
    assert!(
        lab.proxy().count(CREATE) <= before + 3,
        "once, not round and round"
    );
}

#[test]
fn the_name_in_the_certificate_counts() {
    let mut lab = Lab::builder().without_agent().start();
    for (name, serves) in [("other.test", false), ("vault.test", true)] {
        let settings = &mut lab.agent.settings;
        settings.insert("VAULT_TLS_SERVER_NAME".to_owned(), name.to_owned());
        lab.agent.start();
        lab.agent.wait_until_serving();
        if serves {
            lab.agent.wait_until_ready();
            let _ = lab.mounted(&lab.options());
        } else {
            lab.assert_refused(&lab.options(), &["certificate", "other.test"]);
        }
        lab.agent.kill();
    }
}

#[test]
fn verification_can_be_turned_off_by_saying_so_only() {
    let mut lab = Lab::builder().supervised().without_agent().start();
    let stranger = Proxy::start_as(&lab.vault, &Authority::new());
    for (value, serves) in [("", false), ("false", false), ("no", false), ("true", true)] {
        let settings = &mut lab.agent.settings;
        settings.insert("VAULT_ADDR".to_owned(), stranger.address());
        settings.insert("VAULT_SKIP_VERIFY".to_owned(), value.to_owned());
        lab.agent.start();
        lab.agent.wait_until_serving();
        let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
        if serves {
            lab.agent.wait_until_ready();
            lab.kubelet.mount(&volume, &lab.options()).assert_success();
        } else {
            lab.kubelet
                .mount(&volume, &lab.options())
                .assert_failure(&[]);
            assert_eq!(
                stranger.requests(),
                [""; 0],
                "nothing was said to a stranger: {value:?}"
            );
        }
        lab.agent.kill();
    }
}

#[test]
fn a_journal_that_cannot_be_written_means_no_volume() {
    let lab = Lab::start();
    let set_mode = |bits| {
        let script = format!(
            "find {} -type d -exec chmod {bits} {{}} +",
            lab.node.path("state").display()
        );
        let status = std::process::Command::new("sh")
            .args(["-c", &script])
            .status();
        assert!(status.unwrap().success());
    };
    set_mode("500");
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    lab.kubelet
        .mount(&volume, &lab.options())
        .assert_failure(&["journal"]);
    assert_eq!(lab.node.volumes(), []);
    // Room in the journal is taken before Vault is asked: no token was made.
    assert_eq!(lab.living(), 0);
    assert_eq!(lab.agent.get("/v1/status")["volumes"]["owed"], 0);
    set_mode("700");
    lab.assert_nothing_left();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn what_does_not_pass_is_a_failure_after_some_tries() {
    let lab = Lab::builder().proxied().start();
    for (fault, words) in [
        (Fault::error(429, "rate limit"), &["429"][..]),
        (Fault::error(503, "Vault is sealed"), &["sealed"]),
        (Fault::error(412, "not yet"), &["412"]),
    ] {
        let before = lab.proxy().count(CREATE);
        lab.proxy().always(CREATE, fault.clone());
        lab.assert_refused(&lab.options(), words);
        let tries = lab.proxy().count(CREATE) - before;
        assert_eq!(tries, 3, "VAULT_MAX_RETRIES is 2: {fault:?}");
        lab.proxy().heal();
    }
}

#[test]
fn connections_that_end_unseen_cost_no_mount() {
    let lab = Lab::builder().proxied().start();
    for _ in 0..5 {
        let volume = lab.mounted(&lab.options());
        lab.kubelet.unmount(&volume).assert_success();
        lab.proxy().hang_up();
    }
}

#[test]
fn another_authority() {
    let mut lab = Lab::builder().without_agent().start();
    let stranger = Proxy::start_as(&lab.vault, &Authority::new());
    lab.agent
        .settings
        .insert("VAULT_ADDR".to_owned(), stranger.address());
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab.assert_refused(&lab.options(), &["certificate", &stranger.address()]);
    assert_eq!(
        stranger.requests(),
        [""; 0],
        "nothing was said to a stranger"
    );
}

#[test]
fn another_token() {
    let lab = Lab::builder().without_agent().start();
    lab.write_generator_token("s.notatoken00000000000000");
    let mut lab = lab;
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab.assert_refused(&lab.options(), &["generator token"]);
}

#[test]
fn no_token_yet() {
    let mut lab = Lab::builder().without_agent().start();
    let path = lab.node.path("etc/token");
    let token = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    lab.agent.start();
    lab.agent.wait_until_serving();
    lab.assert_refused(&lab.options(), &["generator token", path.to_str().unwrap()]);
    lab.write_generator_token("");
    lab.assert_refused(&lab.options(), &["generator token"]);
    lab.write_generator_token(&token);
    eventually("mounts to work", || {
        let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
        let outcome = lab.kubelet.mount(&volume, &lab.options());
        (outcome.status == "Success").then_some(())
    });
}

#[test]
fn a_token_that_dies_is_told_from_other_troubles() {
    let lab = Lab::start();
    let token = std::fs::read_to_string(lab.node.path("etc/token")).unwrap();
    lab.vault
        .root()
        .write("auth/token/revoke", &json!({ "token": token }));
    lab.assert_refused(&lab.options(), &["generator token"]);
}

#[test]
fn a_role_that_is_not_there() {
    let lab = Lab::builder().role(Role::new("gone", &json!({}))).start();
    lab.vault.root().delete("auth/token/roles/gone");
    lab.assert_refused(&lab.options().with("vault/role", "gone"), &["role", "gone"]);
    // One that the generator's policy says nothing of.
    let unknown = lab.options().with("vault/role", "unknown");
    lab.assert_refused(&unknown, &["auth/token/create/unknown"]);
}

#[test]
fn a_policy_that_the_role_does_not_allow() {
    let lab = Lab::start();
    let options = lab.options().with("vault/policies", "app,admin");
    lab.assert_refused(&options, &["admin", "applications"]);
}

#[test]
fn a_wrapped_only_role_asked_for_a_plain_token() {
    let lab = Lab::start();
    let options = lab.options().with("vault/unwrap", "true");
    lab.assert_refused(&options, &["403", "auth/token/create/applications"]);
    let long = lab.options().with("vault/wrapTTL", "1h");
    lab.assert_refused(&long, &["403", "auth/token/create/applications"]);
}

#[test]
fn an_agent_killed_in_the_middle_of_a_mount_is_called_again() {
    let mut lab = Lab::builder().proxied().start();
    lab.proxy()
        .order(1, CREATE, Fault::Late(Duration::from_secs(2)));
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let (kubelet, options) = (lab.kubelet.clone(), lab.options());
    let mount = std::thread::scope(|scope| {
        let mount = scope.spawn(|| kubelet.mount(&volume, &options));
        eventually("the create", || lab.proxy().count(CREATE).checked_sub(1));
        lab.agent.kill();
        lab.agent.start();
        mount.join().unwrap()
    });
    mount.assert_success();
    assert_eq!(lab.node.volumes().len(), 1);
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
}

#[test]
fn an_agent_that_runs_as_root_serves_too() {
    let lab = Lab::builder().agent_as_root().start();
    let _ = lab.mounted(&lab.options());
}

#[test]
fn an_agent_ends_when_told_to_and_keeps_what_it_owes() {
    let mut lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let ids = |lab: &Lab| {
        let volumes = lab.agent.volumes().into_iter();
        volumes.map(|it| it["id"].clone()).collect::<Vec<_>>()
    };
    let before = ids(&lab);
    let status = lab.agent.stop();
    assert!(status.success(), "{status}");
    lab.agent.start();
    lab.agent.wait_until_ready();
    assert_eq!((ids(&lab), before.len()), (before, 1));
    lab.kubelet.mount(&volume, &lab.options()).assert_success();
    assert_eq!(lab.living(), 1, "the volume stands, and so does its token");
    lab.assert_all_accounted_for();
}

#[test]
fn a_second_agent_says_who_holds_the_journal() {
    let lab = Lab::start();
    let second = vaulttmpfs_tests::Agent::new;
    let mut settings = lab.agent.settings.clone();
    let socket = lab.node.path("run/second.sock");
    settings.insert(
        "VAULTTMPFS_SOCKET".to_owned(),
        socket.to_str().unwrap().to_owned(),
    );
    let mut second = second(&lab.node, settings);
    second.start();
    let first = lab.agent.id();
    let said = eventually("the second agent to speak up", || {
        second
            .process()
            .ended()
            .map(|status| (status, second.log()))
    });
    assert!(!said.0.success());
    assert!(said.1.contains(&first.to_string()), "{}", said.1);
    let _ = lab.mounted(&lab.options());
}
