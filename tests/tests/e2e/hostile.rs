//! Callers, pods and servers that mean no good, or are out of their minds.

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Fault, Lab, Options, Pod, Said, eventually};

/// As many connections as a node's whole user could open.
const CONNECTIONS: usize = 10_000;

#[test]
fn directories_that_are_none_of_ours_are_refused() {
    let lab = Lab::builder().proxied().start();
    let root = lab.node.path("kubelet");
    let root = root.to_str().unwrap();
    let pod = Pod::new("web-0").uid;
    let options = lab
        .kubelet
        .mount_arguments(&lab.kubelet.volume(&Pod::new("web-0"), "v"), &lab.options());
    for path in [
        format!("{root}/pods/{pod}/volumes/cloudwatt~vaulttmpfs/../../../../../etc"),
        format!("{root}/pods/{pod}/volumes/cloudwatt~vaulttmpfs/.."),
        format!("{root}/pods/{pod}/volumes/kubernetes.io~secret/v"),
        format!("{root}/pods/{pod}/volumes/cloudwatt~vaulttmpfs/v/deeper"),
        format!("{root}/pods/../volumes/cloudwatt~vaulttmpfs/v"),
        format!("pods/{pod}/volumes/cloudwatt~vaulttmpfs/v"),
        "/etc".to_owned(),
        "/".to_owned(),
        String::new(),
        format!(
            "{root}/pods/{pod}/volumes/cloudwatt~vaulttmpfs/{}",
            "v".repeat(100_000)
        ),
    ] {
        for arguments in [vec!["mount", &path, &options[2]], vec!["unmount", &path]] {
            let outcome = lab.kubelet.call(&arguments);
            outcome.assert_failure(&["mount directory"]);
        }
    }
    lab.assert_nothing_left();
    assert_eq!(lab.living(), 0);
    assert_eq!(lab.proxy().count("POST /v1/auth/token/create"), 0);
}

#[test]
fn symbolic_links_below_the_kubelets_root_are_not_followed() {
    let lab = Lab::start();
    let outside = lab.node.path("outside");
    fs::create_dir_all(outside.join("v")).unwrap();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let driver = volume.directory.parent().unwrap();
    for link in [volume.directory.clone(), driver.to_owned()] {
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let target = if link == volume.directory {
            outside.join("v")
        } else {
            outside.clone()
        };
        symlink(&target, &link).unwrap();
        let arguments = lab.kubelet.mount_arguments(&volume, &lab.options());
        lab.kubelet.call(&arguments).assert_failure(&[]);
        assert_eq!(lab.node.mounts(), [], "followed {}", link.display());
        lab.kubelet.unmount_only(&volume).assert_failure(&[]);
        fs::remove_file(&link).unwrap();
        if link == volume.directory {
            fs::remove_dir(driver).unwrap();
        }
    }
    lab.assert_nothing_left();
}

#[test]
fn a_missing_directory_is_a_failure() {
    let lab = Lab::start();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let arguments = lab.kubelet.mount_arguments(&volume, &lab.options());
    lab.kubelet.call(&arguments).assert_failure(&[]);
    lab.assert_nothing_left();
    assert_eq!(lab.living(), 0, "no token for a volume that cannot be");
}

#[test]
fn what_someone_else_mounted_is_not_mounted_over() {
    let lab = Lab::builder().proxied().start();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    fs::create_dir_all(&volume.directory).unwrap();
    for source in [
        "theirs",
        "vaulttmpfs:",
        "vaulttmpfs:nothexnothexnothexnothexnothex00",
    ] {
        let flags = MsFlags::empty();
        mount(
            Some(source),
            &volume.directory,
            Some("tmpfs"),
            flags,
            None::<&str>,
        )
        .unwrap();
        let before = lab.node.mounts();
        let outcome = lab.kubelet.mount(&volume, &lab.options());
        outcome.assert_failure(&["someone else", source]);
        assert_eq!(lab.node.mounts(), before);
        nix::mount::umount(&volume.directory).unwrap();
    }
    assert_eq!(lab.proxy().count("POST /v1/auth/token/create"), 0);
}

#[test]
fn a_pod_cannot_pass_for_another() {
    let lab = Lab::start();
    let other = Pod::new("web-1").uid;
    lab.assert_refused(
        &lab.options().with("kubernetes.io/pod.uid", &other),
        &["uid"],
    );
    assert_eq!(lab.living(), 0);
}

#[test]
fn names_cannot_climb() {
    let lab = Lab::builder().proxied().start();
    // As much as a request holds.
    let long = "x".repeat(60_000);
    let hostile = [
        "..",
        ".",
        "../create-orphan",
        "%2e%2e",
        "%2e%2e/create-orphan",
        "..%2fcreate-orphan",
        "a/b",
        "/",
        "a\0b",
        "a\nb",
        "a?b",
        "a#b",
        &long,
    ];
    for name in hostile {
        lab.assert_refused(&lab.options().with("vault/role", name), &["vault/role"]);
    }
    for name in [
        "..",
        ".",
        "a/b",
        "/etc/passwd",
        "../x",
        "a\0b",
        "a\nb",
        &long,
    ] {
        lab.assert_refused(
            &lab.options().with("vault/tokenFilename", name),
            &["vault/tokenFilename"],
        );
    }
    let odd: Vec<_> = lab.proxy().requests();
    assert!(
        odd.iter().all(|request| !request.contains("orphan")),
        "{odd:?}"
    );
    assert_eq!(lab.proxy().count("POST /v1/auth/token/create"), 0);
}

#[test]
fn a_request_of_a_megabyte_is_refused() {
    let lab = Lab::start();
    // One argument of a process is at most 128 KiB.
    let large = lab.options().with("vault/role", &"x".repeat(100_000));
    lab.assert_refused(&large, &["too large"]);
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    let mut options = json!({"vault/policies": "app"});
    options["vault/role"] = "x".repeat(1024 * 1024).into();
    let body = json!({"mount_dir": volume.directory, "options": options, "left_ms": 1000});
    let mut peer = UnixStream::connect(lab.agent.socket()).unwrap();
    let head = format!(
        "POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.to_string().len()
    );
    peer.write_all(head.as_bytes()).unwrap();
    // The agent may hang up before it has read all of it.
    let _ = peer.write_all(body.to_string().as_bytes());
    let mut answer = String::new();
    let _ = peer.read_to_string(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
    assert_eq!(lab.living(), 0);
    let _ = lab.mounted(&lab.options());
}

/// `curl` on the agent's socket as a user who is nobody; the status and the body.
fn as_nobody(lab: &Lab, arguments: &[&str], path: &str) -> (String, String) {
    let mut curl = Command::new("setpriv");
    curl.args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([
            "curl",
            "-q",
            "--silent",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ])
        .arg("--unix-socket")
        .arg(lab.agent.socket())
        .args(arguments)
        .arg(format!("http://agent{path}"));
    let said = Said::by(&mut curl);
    let (body, status) = said.output.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn other_users_may_look_and_change_nothing() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let (status, _) = as_nobody(&lab, &[], "/v1/status");
    assert_eq!(
        status, "000",
        "the agent's own socket is for its user and root"
    );

    fs::set_permissions(lab.agent.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    for path in ["/v1/status", "/v1/volumes", "/healthz", "/readyz"] {
        let (status, body) = as_nobody(&lab, &[], path);
        assert_eq!(status, "200", "{path}");
        lab.vault.secrets().assert_absent(path, &body);
    }
    let before = lab.vault.root().pod_tokens().len();
    let directory = volume.directory.to_str().unwrap();
    let id = lab.agent.volumes()[0]["id"].as_str().unwrap().to_owned();
    let body = json!({
        "mount_dir": directory,
        "options": {"vault/policies": "app"},
        "left_ms": 10_000,
    });
    let body = body.to_string();
    let query = format!("/v1/volumes?mount_dir={directory}");
    let attached = format!("/v1/volumes/{id}/attached");
    for (arguments, path) in [
        (vec!["--data", &body], "/v1/volumes"),
        (vec!["--request", "POST"], &attached),
        (vec!["--request", "DELETE"], &query),
    ] {
        let (status, answer) = as_nobody(&lab, &arguments, path);
        assert_eq!(status, "403", "{arguments:?} {path}: {answer}");
        let refusal: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(!refusal["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(lab.vault.root().pod_tokens().len(), before);
    eventually("the volume to be attached still", || {
        (lab.agent.volumes()[0]["state"] == "attached").then_some(())
    });
}

#[test]
fn half_and_odd_requests_harm_nobody() {
    let lab = Lab::start();
    let halves: &[&[u8]] = &[
        b"",
        b"\0",
        b"POST /v1/volumes HTTP/1.1\r\n",
        b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"mount_dir\":",
        b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    // Some stay open all the time, some are dropped half way.
    let mut open = Vec::new();
    for half in halves {
        for keep in [true, false] {
            let mut peer = UnixStream::connect(lab.agent.socket()).unwrap();
            peer.write_all(half).unwrap();
            if keep {
                open.push(peer);
            }
        }
    }
    let _ = lab.mounted(&lab.options());
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        (r#"{"mount_dir":"/etc","options":{},"left_ms":1000}"#, 422),
        (r#"{"mount_dir":7,"options":{},"left_ms":1000}"#, 400),
    ] {
        let answer = lab.agent.call("POST", "/v1/volumes", body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/volumes/../status", 404),
        ("PUT", "/v1/volumes", 405),
        ("POST", "/v1/volumes/nothex/attached", 400),
        (
            "POST",
            "/v1/volumes/000102030405060708090a0b0c0d0eff/attached",
            404,
        ),
        ("DELETE", "/v1/volumes?mount_dir=/etc", 400),
        ("DELETE", "/v1/volumes", 400),
    ] {
        let answer = lab.agent.call(method, path, "");
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    assert_eq!(lab.living(), 1);
}

#[test]
fn slow_requests_hold_up_nobody() {
    let lab = Lab::start();
    let text =
        b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n{\"mount_dir\":\"/x\"";
    let mut peers: Vec<_> = (0..50)
        .map(|_| UnixStream::connect(lab.agent.socket()).unwrap())
        .collect();
    for byte in text {
        for peer in &mut peers {
            // One whose time is over on a busy machine was hung up on.
            let _ = peer.write_all(&[*byte]);
        }
    }
    let volume = lab.mounted(&lab.options());
    for peer in &mut peers {
        let _ = peer.write_all(b"x");
    }
    lab.kubelet.unmount(&volume).assert_success();
    assert!(lab.agent.call("GET", "/readyz", "").is_success());
}

#[test]
fn ten_thousand_connections_do_not_stop_a_mount() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(
        hard > CONNECTIONS as u64 + 200,
        "this machine allows {hard} open files"
    );
    let lab = Lab::start();
    let socket = lab.agent.socket().to_owned();
    // An agent that stopped accepting would fill the backlog, and then connecting blocks: the
    // thread ends with the test.
    let (sender, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for count in 0..CONNECTIONS {
            let Ok(mut peer) = UnixStream::connect(&socket) else {
                return;
            };
            let half: &[u8] = if count % 2 == 0 {
                b"POST /v1/volumes HT"
            } else {
                b""
            };
            if peer.write_all(half).is_err() || sender.send(peer).is_err() {
                return;
            }
        }
    });
    let mut open = Vec::new();
    let mut mounts = 0;
    let begun = Instant::now();
    while open.len() < CONNECTIONS && begun.elapsed() < Duration::from_secs(60) {
        let before = open.len();
        open.extend(opened.try_iter());
        if open.len() / 1000 > before / 1000 || mounts == 0 {
            let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
            lab.kubelet.mount(&volume, &lab.options()).assert_success();
            mounts += 1;
        } else if open.len() == before {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(lab.node.volumes().len(), mounts);
    assert!(
        mounts >= 2,
        "{mounts} mounts beside {} connections",
        open.len()
    );
    drop((open, opened));
    eventually("the agent to be itself again", || {
        lab.agent
            .call("GET", "/readyz", "")
            .is_success()
            .then_some(())
    });
}

#[test]
fn answers_that_are_no_answers_are_failures() {
    let lab = Lab::builder()
        .proxied()
        .set("VAULT_CLIENT_TIMEOUT", "3s")
        .start();
    let create = "POST /v1/auth/token/create";
    for (fault, words) in [
        (Fault::text("well, yes"), &["Vault"][..]),
        (Fault::text("{}"), &["Vault"]),
        (Fault::text(r#"{"wrap_info":null,"auth":null}"#), &["Vault"]),
        (Fault::text(r#"{"wrap_info":{"token":7}}"#), &["Vault"]),
        (Fault::Flood(100 * 1024 * 1024), &["Vault", "1 MiB"]),
        (Fault::HangUp, &["Vault"]),
        (Fault::Silence, &["Vault", "3s"]),
    ] {
        lab.proxy().always(create, fault);
        lab.assert_refused(&lab.options(), words);
        lab.proxy().heal();
    }
    assert_eq!(lab.living(), 0);
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_cut_answer_is_a_failure_and_never_a_second_create() {
    let lab = Lab::builder().proxied().start();
    let create = "POST /v1/auth/token/create";
    for length in [0, 1, 20, 200, 400] {
        let before = lab.proxy().count(create);
        lab.proxy().always(create, Fault::Cut(length));
        let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
        lab.kubelet
            .mount(&volume, &lab.options())
            .assert_failure(&["Vault"]);
        assert_eq!(
            lab.proxy().count(create),
            before + 1,
            "cut after {length} bytes"
        );
        assert_eq!(lab.node.volumes(), []);
        lab.proxy().heal();
        // Vault made a token that its answer did not bring: nobody can know its accessor, so it
        // lives as long as its role lets it. That is why there must not be a second one.
        assert_eq!(lab.vault.root().accessors_of_pod(&volume.pod.uid).len(), 1);
    }
    let _ = lab.mounted(&lab.options());
}

#[test]
fn a_redirect_to_a_stranger_is_not_followed() {
    let lab = Lab::builder().proxied().start();
    for location in [
        "https://elsewhere.test/v1/auth/token/create/applications",
        "http://127.0.0.1:1/v1/auth/token/create/applications",
        "",
        "//",
    ] {
        lab.proxy()
            .always("POST /v1/auth/token/create", Fault::redirect(location));
        lab.assert_refused(&lab.options(), &["redirect"]);
        lab.proxy().heal();
    }
}

#[test]
fn options_that_are_no_options_are_a_failure() {
    let lab = Lab::start();
    let volume = lab.kubelet.volume(&Pod::new("web-0"), "v");
    fs::create_dir_all(&volume.directory).unwrap();
    let directory = volume.directory.to_str().unwrap();
    let deep = "[".repeat(50_000);
    for options in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{\"a\":1}",
        "{\"a\":{\"b\":\"c\"}}",
        "{}x",
        &deep,
    ] {
        let outcome = lab.kubelet.call(&["mount", directory, options]);
        outcome.assert_failure(&[]);
    }
    lab.kubelet
        .call(&["mount"])
        .assert_failure(&["mount takes"]);
    lab.kubelet
        .call(&["mount", directory, "a", "b", "c"])
        .assert_failure(&["mount takes"]);
    let none: [&str; 0] = [];
    lab.kubelet.call(&none).assert_failure(&[]);
    assert_eq!(
        lab.kubelet.call(&["attach", "{}", "node"]).status,
        "Not supported"
    );
    // Without policies a pod would get the role's: that is not what was asked for by nothing.
    let nothing = Options::default().with("vault/policies", "");
    let _ = lab.mounted(&nothing);
    assert_eq!(lab.living(), 1);
}
