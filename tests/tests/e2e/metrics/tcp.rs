//! The metrics' TCP address: what is served there, in the clear and over TLS with certificates of files.

use super::{assert_sample, samples};
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{
    Authority, Connection, Identity, Lab, LabBuilder, Pod, eventually, eventually_within, free_port,
};

/// A lab whose agent is to serve metrics at an address.
fn builder() -> (LabBuilder, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let builder = Lab::builder().set("VAULTTMPFS_METRICS_ADDR", &address.to_string());
    (builder, address)
}

/// The agent's answer, once it listens.
fn get(address: SocketAddr, path: &str) -> vaulttmpfs_tests::Reading {
    let mut connection = eventually("the agent to listen", || Connection::plain(address).ok());
    connection.get(path).expect("an answer")
}

#[test]
fn on_loopback_in_the_clear_and_nothing_but_metrics_and_health() {
    let (builder, address) = builder();
    let lab = builder.start();
    let metrics = get(address, "/metrics");
    assert_eq!(metrics.status, 200);
    assert_sample(&samples(&metrics.body), "vaulttmpfs_ready", 1.0);
    assert_eq!(get(address, "/healthz").status, 200);
    assert_eq!(get(address, "/readyz").body, r#"{"ready":true}"#);
    for path in ["/", "/v1/status", "/v1/volumes", "/metrics/", "/v1/reload"] {
        for method in ["GET", "POST", "DELETE"] {
            let mut connection = Connection::plain(address).unwrap();
            let answer = connection.call(method, path).unwrap();
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        }
    }
    let mut connection = Connection::plain(address).unwrap();
    assert_eq!(connection.call("POST", "/metrics").unwrap().status, 405);

    lab.vault.seal();
    let not_ready = eventually_within(Duration::from_secs(60), "the seal to be noticed", || {
        // A mount asks Vault, and so the agent notices.
        let volume = lab.kubelet.volume(&Pod::new("late-0"), "vault");
        let _ = lab.kubelet.mount(&volume, &lab.options());
        let answer = get(address, "/readyz");
        (answer.status == 503).then_some(answer)
    });
    assert!(not_ready.body.contains("sealed"), "{not_ready:?}");
    assert_eq!(get(address, "/healthz").status, 200);
}

#[test]
fn without_room_in_the_journal_it_lives_and_is_not_ready() {
    let (builder, address) = builder();
    let lab = builder.start();
    assert_eq!(get(address, "/readyz").status, 200);
    let volumes = lab.node.path("state/volumes");
    let names = || -> Vec<_> {
        let entries = fs::read_dir(&volumes).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = names();
    fs::rename(&volumes, lab.node.path("state/elsewhere")).unwrap();
    // A try holds for a moment.
    let becomes = |status| {
        eventually("the journal's room to be looked at anew", || {
            let answer = get(address, "/readyz");
            (answer.status == status).then_some(answer)
        })
    };
    let answer = becomes(503);
    assert!(answer.body.contains("journal"), "{answer:?}");
    assert_eq!(lab.agent.call("GET", "/readyz", "").status, 503);
    assert_eq!(get(address, "/healthz").status, 200);
    fs::rename(lab.node.path("state/elsewhere"), &volumes).unwrap();
    let _ = becomes(200);
    assert_eq!(names(), before, "a try leaves nothing behind");
}

#[test]
fn silent_and_odd_clients_keep_nobody_waiting() {
    let (builder, address) = builder();
    let lab = builder.start();
    let mut known = eventually("the agent to listen", || Connection::plain(address).ok());
    assert_eq!(known.get("/metrics").unwrap().status, 200);
    let mut silent: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = Connection::plain(address).unwrap();
            let _ = connection.send(b"GET /metrics HT");
            connection
        })
        .collect();
    assert_eq!(get(address, "/metrics").status, 200);
    let given_way = silent[0].read().expect_err("half a request has no answer");
    assert_ne!(given_way.kind(), ErrorKind::WouldBlock, "it is still there");
    assert_eq!(known.get("/metrics").expect("its place").status, 200);
    let _ = lab.mounted(&lab.options());

    let mut large = Connection::plain(address).unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
        "a".repeat(64 * 1024)
    );
    let refused = match large.send(head.as_bytes()).and_then(|()| large.read()) {
        Ok(answer) => answer.status == 431 || answer.status == 400,
        Err(_) => true,
    };
    assert!(refused, "a head without bound");
    let mut nonsense = Connection::plain(address).unwrap();
    let _ = nonsense.send(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
    let _ = nonsense.send(b"\r\n\r\n");
    assert!(nonsense.read().is_ok_and(|answer| answer.status == 400));
    assert_eq!(get(address, "/metrics").status, 200);
}

/// A thread serves mounts and metrics alike.
#[test]
fn a_flood_of_requests_leaves_the_agent_to_the_mounts() {
    /// What is answered in a second, all clients together, and what may come before the first pause.
    const MOST_PER_SECOND: f64 = 100.0;
    const AT_ONCE: f64 = 20.0;
    const BOUND: Duration = Duration::from_secs(60);
    let (builder, address) = builder();
    let lab = builder.start();
    assert_eq!(get(address, "/metrics").status, 200);
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for path in ["/metrics", "/readyz", "/healthz", "/none"].repeat(3) {
            let (over, answered) = (&over, &answered);
            scope.spawn(move || {
                let mut connection = Connection::plain(address).unwrap();
                while !over.load(Ordering::Relaxed) && connection.get(path).is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mounts = scope.spawn(|| {
            let count = || answered.load(Ordering::Relaxed);
            eventually("the flood to come", || (count() > 50).then_some(()));
            let (before, since) = (count(), Instant::now());
            let mut pods = 0;
            while pods < 20 || count() < before + 20 {
                assert!(since.elapsed() < BOUND, "no flood beside {pods} mounts");
                let pod = Pod::new(&format!("web-{pods}"));
                let volume = lab.kubelet.volume(&pod, "vault");
                lab.kubelet.mount(&volume, &lab.options()).assert_success();
                pods += 1;
            }
            assert_eq!(get(address, "/metrics").status, 200);
        });
        let outcome = mounts.join();
        over.store(true, Ordering::Relaxed);
        outcome.expect("mounts beside the flood");
    });
    let answered = u32::try_from(answered.into_inner()).unwrap();
    let most = AT_ONCE + MOST_PER_SECOND * begun.elapsed().as_secs_f64();
    assert!(f64::from(answered) <= most, "{answered}, at most {most}");
}

#[test]
fn who_comes_alone_is_answered_at_once() {
    /// Two requests of a crowd are at least this far apart.
    const APART: Duration = Duration::from_millis(10);
    let (builder, address) = builder();
    let _lab = builder.start();
    assert_eq!(get(address, "/healthz").status, 200);
    // One of many: each may meet a slow moment of the machine.
    eventually("an answer without a pause", || {
        std::thread::sleep(3 * APART);
        let begun = Instant::now();
        assert_eq!(get(address, "/healthz").status, 200);
        (begun.elapsed() < APART).then_some(())
    });
}

#[test]
fn an_address_that_is_anothers_is_said_and_tried_again() {
    let (builder, address) = builder();
    let other = std::net::TcpListener::bind(address).unwrap();
    let lab = builder.start();
    let concerned = || {
        let status = lab.agent.get("/v1/status");
        let concerns = status["concerns"].to_string();
        concerns.contains("VAULTTMPFS_METRICS_ADDR") && status["ready"] == true
    };
    eventually("it to be said", || concerned().then_some(()));
    let _ = lab.mounted(&lab.options());
    drop(other);
    eventually_within(Duration::from_secs(60), "the agent to listen", || {
        Connection::plain(address).ok()?.get("/metrics").ok()
    });
    assert!(!concerned());
}

/// Puts a certificate and its key where the agent finds them.
fn put(lab: &Lab, identity: &Identity) {
    for (name, content) in [
        ("metrics.crt", &identity.certificate),
        ("metrics.key", &identity.key),
    ] {
        // As a careful administrator replaces a file: by rename, once it is whole.
        let new = lab.node.write_for_agent(&format!("etc/.{name}"), content);
        fs::rename(new, lab.node.path(&format!("etc/{name}"))).unwrap();
    }
}

#[test]
fn changed_files_count_for_new_connections_and_end_no_request() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (builder, address) = builder();
    let mut lab = builder.without_agent().start();
    put(&lab, &authority.identity());
    let ca = lab
        .node
        .write_for_agent("etc/clients.crt", &clients.certificate());
    for (name, path) in [
        ("CERT", lab.node.path("etc/metrics.crt")),
        ("KEY", lab.node.path("etc/metrics.key")),
        ("CLIENT_CA", ca.clone()),
    ] {
        let name = format!("VAULTTMPFS_METRICS_{name}");
        let path = path.to_str().unwrap().to_owned();
        lab.agent.settings.insert(name, path);
    }
    lab.agent.start();
    lab.agent.wait_until_ready();
    let root = authority.certificate();
    let client = clients.client();
    let connect = || Connection::tls(address, &root, Some(&client));
    let mut first = eventually("the agent to listen", || connect().ok());
    assert_eq!(first.get("/metrics").unwrap().status, 200);
    let answer = first.get("/metrics").unwrap();
    assert!(!answer.closes, "a connection is kept: {answer:?}");

    let refused = |client: Option<&Identity>| {
        let answer = Connection::tls(address, &root, client).and_then(|mut it| it.get("/metrics"));
        assert!(answer.is_err(), "{answer:?}");
    };
    refused(None);
    refused(Some(&Authority::new().client()));
    refused(Some(&authority.client()));
    // For a server, not for a client.
    refused(Some(&clients.identity()));

    put(&lab, &authority.identity());
    let answer = first.get("/metrics").unwrap();
    assert_eq!((answer.status, answer.closes), (200, true), "{answer:?}");
    let mut second = connect().unwrap();
    assert_ne!(second.certificate, first.certificate);
    assert_eq!(second.get("/healthz").unwrap().status, 200);

    // A key of another certificate, and half a file: what there was stays, and it is said.
    let before = fs::read_to_string(lab.node.path("etc/metrics.key")).unwrap();
    for key in [
        authority.identity().key.as_str(),
        &before[..before.len() / 2],
    ] {
        let new = lab.node.write_for_agent("etc/.metrics.key", key);
        fs::rename(new, lab.node.path("etc/metrics.key")).unwrap();
        assert_eq!(connect().unwrap().certificate, second.certificate);
        let status = lab.agent.get("/v1/status");
        let concerns = status["concerns"].to_string();
        assert!(concerns.contains("metrics.key"), "{status}");
        assert!(!concerns.contains("PRIVATE"), "{status}");
        assert!(second.get("/metrics").is_ok_and(|answer| !answer.closes));
    }
    put(&lab, &authority.identity());
    assert_ne!(connect().unwrap().certificate, second.certificate);
    assert_eq!(lab.agent.get("/v1/status")["degraded"], false);

    // Other clients from now on.
    let others = Authority::new();
    let new = lab
        .node
        .write_for_agent("etc/.clients.crt", &others.certificate());
    fs::rename(new, ca).unwrap();
    refused(Some(&client));
    let mut other = Connection::tls(address, &root, Some(&others.client())).unwrap();
    assert_eq!(other.get("/metrics").unwrap().status, 200);
}
