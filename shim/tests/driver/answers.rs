//! Agents that are not there, too slow, torn, hostile.

use crate::bed::{Bed, assert_failure, assert_success, sources};
use crate::fake::{self, Fake, Step, answer, boottime, no_content, refusal, volume};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use vaulttmpfs_shim::{Answer, Bounds};

/// Why a mount fails that has so long.
fn mount_within(bed: &Bed, dir: &Path, bound: Duration) -> String {
    let bounds = Bounds {
        mount: bound,
        ..Bounds::default()
    };
    match bed.mount_with(dir, bounds) {
        Answer::Failure(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_an_agent_it_fails_at_once_and_says_where() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    let absent = bed.mount(&dir);
    assert_failure(&absent, bed.socket().to_str().unwrap());
    assert_failure(&absent, "systemctl status vaulttmpfs-agent.socket");
    drop(UnixListener::bind(bed.socket()).unwrap());
    assert_failure(&bed.mount(&dir), "Connection refused");
    fs::remove_file(bed.socket()).unwrap();
    fs::create_dir(bed.socket()).unwrap();
    assert_failure(&bed.mount(&dir), "agent");
    let mut named = bed.command(&["mount", dir.to_str().unwrap(), "{}"]);
    let output = named.env("VAULTTMPFS_SOCKET", "relative").output().unwrap();
    assert_failure(&crate::bed::answer(&output), "absolute path");
    assert!(sources(&dir).is_empty());
}

#[test]
fn a_refusal_is_passed_on() {
    let Some(bed) = Bed::new() else { return };
    let message = "Vault refused role `x` for policies `y` (403): \"why\"?\n";
    for (bytes, part) in [
        (refusal(422, message), message),
        (refusal(503, &"long ".repeat(10_000)), "long long"),
        (refusal(500, ""), "status 500 and gave no reason"),
        (answer(502, &json!([1])), "status 502"),
        (no_content(), "status 204"),
        (refusal(410, "ended"), "ended"),
    ] {
        let _ = fs::remove_file(bed.socket());
        let fake = Fake::new(&bed.socket(), move |_, _| Step::Send(bytes.clone()));
        let dir = bed.volume("vol1");
        assert_failure(&bed.mount(&dir), part);
        assert_eq!(fake.seen().len(), 1);
        assert!(sources(&dir).is_empty());
    }
}

#[test]
fn a_torn_connection_is_tried_again() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    // Before, within and just before the end of an answer; and then while it is told.
    let fake = Fake::new(&bed.socket(), |request, nth| {
        let whole = answer(200, &volume(nth));
        match nth {
            0 | 4 => Step::Tear(Vec::new()),
            1 => Step::Tear(whole[..20].to_vec()),
            2 => Step::Tear(whole[..whole.len() - 1].to_vec()),
            _ if request.is_create() => Step::Send(whole),
            _ => Step::Send(no_content()),
        }
    });
    assert_success(&bed.mount(&dir));
    let told = format!("POST /v1/volumes/{}/attached", fake::id(3));
    assert_eq!(fake.creates(), 4);
    assert_eq!(fake.lines()[4..], [told.clone(), told]);
    assert_eq!(sources(&dir).len(), 1);
}

#[test]
fn an_agent_that_goes_for_good_ends_the_mount() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    let socket = bed.socket();
    let _fake = Fake::new(&bed.socket(), move |_, _| {
        let _ = fs::remove_file(&socket);
        Step::Tear(Vec::new())
    });
    let message = mount_within(&bed, &dir, Duration::from_secs(5));
    assert!(message.contains("no agent listens"), "{message}");
    assert!(sources(&dir).is_empty());
}

#[test]
fn an_agent_that_is_too_slow_ends_the_mount() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    let bound = Duration::from_millis(300);
    let half = answer(200, &volume(0))[..50].to_vec();
    // It accepts and says nothing; says half of it.
    for bytes in [None, Some(half)] {
        let _ = fs::remove_file(bed.socket());
        let _fake = Fake::new(&bed.socket(), move |_, nth| match &bytes {
            Some(bytes) if nth == 0 => Step::Send(bytes.clone()),
            _ => Step::Hold,
        });
        let message = mount_within(&bed, &dir, bound);
        assert!(message.contains("too slow"), "{message}");
    }
    // It does not even accept, and its backlog is full.
    fs::remove_file(bed.socket()).unwrap();
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&bed.socket()).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(bed.socket()).unwrap();
    let message = mount_within(&bed, &dir, bound);
    assert!(message.contains("too slow"), "{message}");
    assert!(sources(&dir).is_empty());
}

#[test]
fn a_lost_answer_to_attached_does_not_fail_the_mount() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    let _fake = Fake::new(&bed.socket(), |request, nth| {
        if request.is_create() {
            Step::Send(answer(200, &volume(nth)))
        } else {
            Step::Hold
        }
    });
    assert_success(&bed.mount(&dir));
    assert_eq!(sources(&dir).len(), 1);
}

fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut body = volume(0);
    *body.pointer_mut(pointer).unwrap() = value;
    answer(200, &body)
}

fn raw(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_hostile_answer_leaves_nothing() {
    let Some(bed) = Bed::new() else { return };
    let two_mib = vec![b' '; 2 << 20];
    let mut more = answer(200, &volume(0));
    more.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    let file = |name: &str, bytes: &str| json!({"name": name, "mode": 0o644, "owner": {"uid": 0, "gid": 0}, "bytes": bytes});
    let big = json!([file("big", &"AAAA".repeat(50_000))]);
    let many: Vec<Value> = (0..5000).map(|n| file(&n.to_string(), "AAAA")).collect();
    for (bytes, part) in [
        (b"SSH-2.0-x\r\n\r\n".to_vec(), "not HTTP"),
        (answer(200, &json!("cy5zZWNyZXQ=")), "no volume"),
        (raw("Content-Length: 4", b"\xff\xfe{}"), "no volume"),
        (
            raw("Content-Length: 2097152", &two_mib),
            "larger than 1 MiB",
        ),
        (raw("X: y", &two_mib), "no length"),
        (raw("Transfer-Encoding: chunked", b"0\r\n\r\n"), "no length"),
        (vec![b'H'; 2 << 20], "not HTTP"),
        (more, "more than its length"),
        (changed("/files/0/name", json!("../escape")), "file name"),
        (changed("/files/0/name", json!("/escape")), "file name"),
        (changed("/files/0/name", json!("..")), "file name"),
        (changed("/files/0/name", json!("a\u{0}")), "file name"),
        (changed("/files/0/name", json!("token.json")), "two files"),
        (changed("/files/0/mode", json!(0o4755)), "mode 4755"),
        (
            changed("/files/1/bytes", json!("cy5zZWNyZXQ!")),
            "not base64",
        ),
        (changed("/directory/size", json!(0)), "size 0"),
        (
            changed("/directory/owner/uid", json!(u32::MAX)),
            "make a tmpfs (uid)",
        ),
        (changed("/files", big), "No space left"),
        (changed("/files", json!(many)), "No space left"),
        (changed("/attach_by", json!(boottime() - 1)), "too late"),
        (changed("/attach_by", json!(0)), "too late"),
    ] {
        let _ = fs::remove_file(bed.socket());
        let _fake = Fake::new(&bed.socket(), move |_, _| Step::Send(bytes.clone()));
        let dir = bed.volume("vol1");
        assert_failure(&bed.mount(&dir), part);
        assert!(sources(&dir).is_empty(), "{part}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert!(!dir.with_file_name("escape").exists());
    }
}

#[test]
fn a_large_answer_that_is_allowed_is_whole() {
    let Some(bed) = Bed::new() else { return };
    let content = "A".repeat(1_000_000);
    let mut body = volume(0);
    body["directory"]["size"] = json!(1 << 20);
    body["files"][0]["bytes"] = json!(content);
    let _fake = Fake::new(&bed.socket(), move |request, _| {
        if request.is_create() {
            Step::Send(answer(200, &body))
        } else {
            Step::Send(no_content())
        }
    });
    let dir = bed.volume("vol1");
    assert_success(&bed.mount(&dir));
    assert_eq!(fs::metadata(dir.join("token")).unwrap().len(), 750_000);
}
