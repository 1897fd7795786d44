//! What must never show: standard output closed, a panic, no memory left.

use crate::bed::{
    Bed, answer, assert_failure, assert_success, driver, eventually, options, sources,
};
use crate::fake::{Fake, Step, no_content, volume};
use serde_json::json;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[test]
fn verbs_that_need_nothing() {
    let Some(bed) = Bed::new() else { return };
    let init = bed.call(&["init"]);
    assert_success(&init);
    assert_eq!(
        init["capabilities"],
        json!({"attach": false, "selinuxRelabel": true, "fsGroup": false, "requiresFSResize": false})
    );
    assert_eq!(
        bed.call(&["attach", "{}", "node"]),
        json!({"status": "Not supported"})
    );
    assert_failure(&bed.call(&[]), "--help");
    assert_failure(&bed.call(&["mount"]), "DIR JSON");
    for word in ["--help", "--version"] {
        let output = bed.command(&[word]).output().unwrap();
        assert!(
            output.status.success()
                && output.stdout.starts_with(b"The FlexVolume") != (word == "--version")
        );
    }
}

#[test]
fn nobody_reads_the_answer() {
    let Some(bed) = Bed::new() else { return };
    let _fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bed.command(&["mount", dir.to_str().unwrap(), &options()]);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(sources(&dir).len(), 1);
}

/// What a running driver's standard descriptors lead to.
fn standard_descriptors(pid: u32) -> Vec<PathBuf> {
    (0..3)
        .map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap())
        .collect()
}

#[test]
fn standard_error_is_silent_and_closed_descriptors_are_not_mistaken() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::new(&bed.socket(), |_, _| Step::Hold);
    let dir = bed.volume("vol1");
    let arguments = ["mount", dir.to_str().unwrap(), &options()];
    let mut usual = bed.command(&arguments).spawn().unwrap();
    eventually("it asks", || fake.seen().len() == 1);
    let found = standard_descriptors(usual.id());
    assert!(found[1].to_str().unwrap().starts_with("pipe:"), "{found:?}");
    assert_eq!(found[2].to_str(), Some("/dev/null"));
    usual.kill().unwrap();
    usual.wait().unwrap();

    // The answer must not go to whatever has been opened instead.
    let mut closed = Command::new("/bin/sh")
        .args(["-c", r#"exec "$@" <&- >&- 2>&-"#, "sh"])
        .arg(driver())
        .args(arguments)
        .env("VAULTTMPFS_SOCKET", bed.socket())
        .spawn()
        .unwrap();
    eventually("it asks", || fake.seen().len() == 2);
    let found = standard_descriptors(closed.id());
    assert!(
        found.iter().all(|to| to.to_str() == Some("/dev/null")),
        "{found:?}"
    );
    closed.kill().unwrap();
    closed.wait().unwrap();
}

#[test]
fn no_other_process_looks_into_it() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::new(&bed.socket(), |_, _| Step::Hold);
    fs::set_permissions(bed.socket(), Permissions::from_mode(0o777)).unwrap();
    let dir = bed.volume("vol1");
    // As nobody, whose own process it would be, did it not say otherwise.
    let copy = bed.path("driver");
    fs::copy(driver(), &copy).unwrap();
    let mut driver = Command::new(copy)
        .args(["mount", dir.to_str().unwrap(), &options()])
        .env("VAULTTMPFS_SOCKET", bed.socket())
        .uid(65534)
        .spawn()
        .unwrap();
    eventually("it asks", || fake.seen().len() == 1);
    let memory = format!("/proc/{}/mem", driver.id());
    assert_eq!(fs::metadata(memory).unwrap().uid(), 0);
    driver.kill().unwrap();
    driver.wait().unwrap();
}

#[test]
fn a_panic_is_a_failure() {
    let shim = Path::new(env!("CARGO_BIN_EXE_vaulttmpfs-shim"));
    let panics = shim.with_file_name("examples").join("panics");
    // As the kubelet has it: both on one pipe.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(panics);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let status = command
        .status()
        .expect("`cargo test` builds examples/panics.rs");
    drop(command);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    let output = Output {
        status,
        stdout: all,
        stderr: Vec::new(),
    };
    assert_failure(&answer(&output), "a panic");
    assert!(
        !String::from_utf8(output.stdout)
            .unwrap()
            .contains("hunter2")
    );
}

/// Runs a call with at most that much memory mapped.
fn limited(bed: &Bed, bytes: u32, arguments: &[&str]) -> Output {
    let mut shell = Command::new("/bin/sh");
    shell
        .args([
            "-c",
            r#"ulimit -v "$0"; exec "$@""#,
            &(bytes / 1024).to_string(),
        ])
        .arg(driver())
        .args(arguments)
        .env_clear()
        .env("VAULTTMPFS_SOCKET", bed.socket())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn no_memory_is_a_failure() {
    let Some(bed) = Bed::new() else { return };
    // Needs about three times its size: read, decoded.
    let mut body = volume(0);
    body["files"][0]["bytes"] = json!("A".repeat(1_000_000));
    body["directory"]["size"] = json!(1 << 20);
    let _fake = Fake::new(&bed.socket(), move |request, _| {
        if request.is_create() {
            Step::Send(crate::fake::answer(200, &body))
        } else {
            Step::Send(no_content())
        }
    });
    let dir = bed.volume("vol1");
    let step: u32 = 64 * 1024;
    // The least with which the program comes up at all.
    let least = (1..1024)
        .map(|n| n * step)
        .find(|&bytes| limited(&bed, bytes, &["init"]).status.success())
        .unwrap();
    let (mut failures, mut successes) = (0, 0);
    for bytes in (0..48).map(|n| least + 2 * n * step) {
        let output = limited(&bed, bytes, &["mount", dir.to_str().unwrap(), &options()]);
        let answer = answer(&output);
        if answer["status"] == "Success" {
            successes += 1;
            assert_success(&bed.unmount(&dir));
        } else {
            failures += 1;
            assert_failure(&answer, "ran out of memory");
            assert!(sources(&dir).is_empty());
        }
    }
    assert!(failures > 0 && successes > 0, "{failures} {successes}");
    eprintln!("{failures} runs without the memory they needed, {successes} with it");
}
