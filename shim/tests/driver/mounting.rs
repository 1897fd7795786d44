//! Mounts that come to a volume, or find one.

use crate::bed::{
    Bed, LONG, UID, answer, assert_failure, assert_success, eventually, mount_foreign, options,
    sources,
};
use crate::fake::{self, Fake, Step, id, no_content};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use vaulttmpfs_shim::{Answer, Bounds};

/// Mode, owner and group.
fn attributes(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.gid())
}

#[test]
fn a_volume_is_as_the_agent_says() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    assert_success(&bed.mount(&dir));

    assert_eq!(sources(&dir), [format!("vaulttmpfs:{}", id(0))]);
    assert_eq!(attributes(&dir), (0o751, 0, 2000));
    assert_eq!(fs::read(dir.join("token")).unwrap(), b"s.secret");
    assert_eq!(attributes(&dir.join("token")), (0o640, 0, 2000));
    assert_eq!(fs::read(dir.join("token.json")).unwrap(), b"{}\n");
    assert_eq!(attributes(&dir.join("token.json")), (0o604, 7, 8));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);

    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().find(|l| l.contains("vaulttmpfs:")).unwrap();
    for part in [
        "rw,nosuid,nodev,noexec",
        "size=64k",
        "nr_inodes=19",
        "mode=751",
        "gid=2000",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }

    eventually("it is told", || fake.seen().len() > 1);
    let seen = fake.seen();
    assert!(seen[0].is_create());
    assert_eq!(seen[0].body["mount_dir"], dir.to_str().unwrap());
    assert_eq!(seen[0].body["options"]["vault/policies"], "app");
    assert!(!seen[0].body.to_string().contains("aHVudGVyMg"));
    let left = seen[0].body["left_ms"].as_u64().unwrap();
    assert!((60_000..=110_000).contains(&left), "{left}");
    assert_eq!(seen[1].line, format!("POST /v1/volumes/{}/attached", id(0)));
    assert_eq!(seen[1].connection, seen[0].connection);
    assert_eq!(seen.len(), 2);
}

#[test]
fn the_older_form_and_an_api_pod_are_taken() {
    let Some(bed) = Bed::new() else { return };
    let _fake = Fake::good(&bed.socket());
    let uid = "0f0e4f0c-8d5c-4f0b-9c39-5a8b3c1d2e4f";
    let dir = bed.path(&format!(
        "kubelet/pods/{uid}/volumes/cloudwatt~vaulttmpfs/v"
    ));
    fs::create_dir_all(&dir).unwrap();
    let options = options().replace(UID, uid);
    assert_success(&bed.call(&["mount", dir.to_str().unwrap(), "/dev/x", &options]));
    assert_eq!(sources(&dir).len(), 1);
}

#[test]
fn a_repeated_mount_confirms_and_mints_nothing() {
    let Some(bed) = Bed::new() else { return };
    for status in [204, 404, 500] {
        let dir = bed.volume(&format!("v{status}"));
        let _ = fs::remove_file(bed.socket());
        let fake = Fake::new(&bed.socket(), move |request, nth| {
            if request.is_create() {
                Step::Send(fake::answer(200, &fake::volume(nth)))
            } else if status == 204 {
                Step::Send(no_content())
            } else {
                Step::Send(fake::refusal(status, "?"))
            }
        });
        assert_success(&bed.mount(&dir));
        assert_success(&bed.mount(&dir));
        assert_eq!(sources(&dir).len(), 1);
        eventually("it is told and asked", || fake.seen().len() > 2);
        assert_eq!(fake.creates(), 1, "{status}");
        assert_eq!(fake.seen().len(), 3);
    }
    // Nor is an agent needed.
    fs::remove_file(bed.socket()).unwrap();
    assert_success(&bed.mount(&bed.volume("v204")));
}

#[test]
fn a_volume_that_has_ended_is_replaced() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    // The first volume ends after it was confirmed once.
    let fake = Fake::new(&bed.socket(), |request, nth| {
        if request.is_create() {
            Step::Send(fake::answer(200, &fake::volume(nth)))
        } else if nth == 2 {
            Step::Send(fake::refusal(410, "ended"))
        } else {
            Step::Send(no_content())
        }
    });
    let patient = Bounds {
        confirm: LONG,
        attached: LONG,
        ..Bounds::default()
    };
    for _ in 0..2 {
        assert_eq!(bed.mount_with(&dir, patient), Answer::Success);
    }
    assert_eq!(fake.creates(), 2);
    assert_eq!(sources(&dir), [format!("vaulttmpfs:{}", id(3))]);
}

#[test]
fn a_volume_that_ends_while_it_is_attached_is_asked_for_again_but_not_forever() {
    let Some(bed) = Bed::new() else { return };
    let always = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&always);
    let fake = Fake::new(&bed.socket(), move |request, nth| {
        if request.is_create() {
            Step::Send(fake::answer(200, &fake::volume(nth)))
        } else if nth == 1 || ends.load(Ordering::SeqCst) {
            Step::Send(fake::refusal(410, "ended"))
        } else {
            Step::Send(no_content())
        }
    });
    let dir = bed.volume("vol1");
    assert_success(&bed.mount(&dir));
    assert_eq!(sources(&dir), [format!("vaulttmpfs:{}", id(2))]);
    assert_eq!(fake.creates(), 2);

    always.store(true, Ordering::SeqCst);
    let dir = bed.volume("vol2");
    assert_failure(&bed.mount(&dir), "ended the volume 3 times");
    assert!(sources(&dir).is_empty());
    assert_eq!(fake.creates(), 5);
}

#[test]
fn two_concurrent_mounts_mint_once() {
    let Some(bed) = Bed::new() else { return };
    let gate = Arc::new(Mutex::new(()));
    let (shut, guard) = (Arc::clone(&gate), gate.lock().unwrap());
    let fake = Fake::new(&bed.socket(), move |request, nth| {
        if request.is_create() {
            drop(shut.lock().unwrap());
            Step::Send(fake::answer(200, &fake::volume(nth)))
        } else {
            Step::Send(no_content())
        }
    });
    let dir = bed.volume("vol1");
    let arguments = ["mount", dir.to_str().unwrap(), &options()];
    let first = bed.command(&arguments).spawn().unwrap();
    eventually("the first asks", || fake.creates() == 1);
    let second = bed.command(&arguments).spawn().unwrap();
    let descriptors = format!("/proc/{}/fd", second.id());
    eventually("the second is at the lock", || {
        fs::read_dir(&descriptors)
            .unwrap()
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("cloudwatt~vaulttmpfs")))
    });
    assert_eq!(fake.creates(), 1);
    drop(guard);
    assert_success(&answer(&first.wait_with_output().unwrap()));
    assert_success(&answer(&second.wait_with_output().unwrap()));
    assert_eq!(fake.creates(), 1);
    assert_eq!(sources(&dir).len(), 1);
}

#[test]
fn a_kubelet_root_may_be_a_link_or_hold_bind_mounts() {
    let Some(bed) = Bed::new() else { return };
    let _fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    symlink(bed.path("kubelet"), bed.path("link")).unwrap();
    let tail = format!("pods/{UID}/volumes/cloudwatt~vaulttmpfs/vol1");
    let linked = bed.path("link").join(tail);
    assert_success(&bed.mount(&linked));
    assert_eq!(sources(&dir).len(), 1);
    assert_success(&bed.mount(&linked));
    assert_eq!(sources(&dir).len(), 1);
    assert_success(&bed.unmount(&linked));
    assert!(sources(&dir).is_empty());

    mount_foreign(&bed.path("kubelet/pods"));
    let dir = bed.volume("vol1");
    assert_success(&bed.mount(&dir));
    assert_eq!(sources(&dir).len(), 1);
    assert_success(&bed.unmount(&dir));
}

#[test]
fn no_link_in_the_volumes_own_path() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    let elsewhere = bed.path("elsewhere");
    let tail = ["pods", UID, "volumes", "cloudwatt~vaulttmpfs", "vol1"];
    for link in 0..tail.len() {
        let root = bed.path(&format!("root{link}"));
        let above: std::path::PathBuf = tail[..link].iter().collect();
        let below: std::path::PathBuf = tail[link + 1..].iter().collect();
        fs::create_dir_all(root.join(&above)).unwrap();
        fs::create_dir_all(elsewhere.join(&below)).unwrap();
        symlink(&elsewhere, root.join(&above).join(tail[link])).unwrap();
        let dir = root.join(tail.iter().collect::<std::path::PathBuf>());
        assert!(dir.is_dir());
        assert_failure(&bed.mount(&dir), "symbolic link");
        assert_failure(&bed.unmount(&dir), "symbolic link");
    }
    assert!(fake.seen().is_empty());
}

#[test]
fn only_a_directory_that_is_there_and_bare() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    assert_failure(&bed.mount(&bed.unmade("none")), "not there");
    let foreign = bed.volume("foreign");
    mount_foreign(&foreign);
    assert_failure(&bed.mount(&foreign), "by someone else (tmpfs from someone)");
    assert_eq!(sources(&foreign), ["someone"]);
    fs::write(bed.unmade("file"), "").unwrap();
    assert_failure(&bed.mount(&bed.unmade("file")), "no directory");
    assert!(fake.seen().is_empty());

    let full = bed.volume("full");
    fs::write(full.join("left behind"), "").unwrap();
    assert_success(&bed.mount(&full));
    assert!(!full.join("left behind").exists());
}

#[test]
fn a_directory_that_goes_or_is_mounted_on_meanwhile_gets_nothing() {
    let Some(bed) = Bed::new() else { return };
    for (name, part) in [("goes", "not there"), ("taken", "someone else")] {
        let dir = bed.volume(name);
        let gate = Arc::new(Mutex::new(()));
        let (shut, guard) = (Arc::clone(&gate), gate.lock().unwrap());
        let _ = fs::remove_file(bed.socket());
        let fake = Fake::new(&bed.socket(), move |_, nth| {
            drop(shut.lock().unwrap());
            Step::Send(fake::answer(200, &fake::volume(nth)))
        });
        let arguments = ["mount", dir.to_str().unwrap(), &options()];
        let driver = bed.command(&arguments).spawn().unwrap();
        eventually("it asks", || fake.creates() == 1);
        if name == "goes" {
            fs::remove_dir(&dir).unwrap();
        } else {
            mount_foreign(&dir);
        }
        drop(guard);
        assert_failure(&answer(&driver.wait_with_output().unwrap()), part);
        assert!(!sources(&dir).iter().any(|s| s.starts_with("vaulttmpfs")));
    }
}

#[test]
fn options_that_are_wrong_reach_no_agent() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    let path = dir.to_str().unwrap();
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(64 * 1024));
    for (options, part) in [
        ("", "not a JSON object of strings"),
        (
            "{\"kubernetes.io/secret/k\":\"aHVudGVyMg==",
            "not a JSON object of strings",
        ),
        ("{\"a\":1}", "not a JSON object of strings"),
        ("{\"kubernetes.io/pod.uid\":\"other\"}", "names another pod"),
        (&long, "too large"),
    ] {
        assert_failure(&bed.call(&["mount", path, options]), part);
    }
    assert!(fake.seen().is_empty());
    assert!(sources(&dir).is_empty());
}

#[test]
fn killed_at_any_moment_it_leaves_a_whole_volume_or_none() {
    let Some(bed) = Bed::new() else { return };
    let _fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    let arguments = ["mount", dir.to_str().unwrap(), &options()];
    let (mut none, mut whole) = (0, 0);
    for round in 0..300_u64 {
        let mut driver = bed.command(&arguments).spawn().unwrap();
        thread::sleep(Duration::from_micros(round * 10));
        driver.kill().unwrap();
        driver.wait().unwrap();
        if sources(&dir).is_empty() {
            none += 1;
            continue;
        }
        whole += 1;
        assert_eq!(fs::read(dir.join("token")).unwrap(), b"s.secret");
        assert_eq!(fs::read(dir.join("token.json")).unwrap(), b"{}\n");
        assert_eq!(attributes(&dir.join("token.json")), (0o604, 7, 8));
        bed.unmount_used(&dir);
        assert!(sources(&dir).is_empty());
    }
    eprintln!("killed 300 times: {none} without a mount, {whole} with a whole one");
}
