//! `tests/demo`: it runs, and leaves nothing behind, however it ends.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use vaulttmpfs_tests::{eventually, outside_cargo};

/// A run of the demo, with a directory for all that it makes.
struct Demo {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    directory: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The agent's user must come through.
        let mode = fs::Permissions::from_mode(0o711);
        fs::set_permissions(directory.path(), mode).unwrap();
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().nth(3).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        let mut process = outside_cargo(&mut Command::new(script))
            .args(arguments)
            .env("CARGO_TARGET_DIR", target)
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            output,
            directory,
        }
    }

    /// Reads on until a line has these words.
    fn read_until(&mut self, words: &str) -> String {
        let mut text = String::new();
        while !text.contains(words) {
            let length = self.output.read_line(&mut text).unwrap();
            assert!(length > 0, "it ended before {words:?}:\n{text}");
        }
        text
    }

    fn press_enter(&mut self) {
        self.process
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"\n")
            .unwrap();
    }

    /// Waits for its end and says what it still wrote.
    fn finish(mut self, exit: i32) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), Some(exit), "{text}");
        self.assert_nothing_left();
        text
    }

    fn assert_nothing_left(&self) {
        let path = self.directory.path();
        let left: Vec<_> = fs::read_dir(path).unwrap().flatten().collect();
        assert!(left.is_empty(), "files left: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(path.to_str().unwrap()), "{mounts}");
        let processes = processes_that_know(path);
        assert!(processes.is_empty(), "processes left: {processes:?}");
    }
}

/// Processes with this path in their arguments or environment, this one aside.
fn processes_that_know(path: &Path) -> Vec<PathBuf> {
    let path = path.to_str().unwrap().as_bytes();
    let knows = |file: PathBuf| {
        // A process may go while one looks.
        let bytes = fs::read(file).unwrap_or_default();
        bytes.windows(path.len()).any(|window| window == path)
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|process| knows(process.join("cmdline")) || knows(process.join("environ")))
        .collect()
}

#[test]
fn it_shows_the_main_job() {
    let mut demo = Demo::start(&[]);
    assert!(
        !processes_that_know(demo.directory.path()).is_empty(),
        "the check below can fail"
    );
    let mut text = demo.read_until("=== 3.");
    text += &demo.finish(0);
    for words in [
        "\"ready\":true",
        "vaulttmpfs mount",
        "vault-token.json",
        "pod:web-0",
        "the secret of app",
        "permission denied",
        "wrapping token is not valid",
        "vaulttmpfs unmount",
        "gone now",
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert!(!text.contains("the secret of other"));
    let token = text.split("\"token\":\"").nth(1).unwrap();
    let (token, _) = token.split_once('"').unwrap();
    assert!(
        token.ends_with('…') && token.len() < 12,
        "a token in full: {token}"
    );
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut demo = Demo::start(&["--pause"]);
        for _ in 0..3 {
            demo.press_enter();
        }
        demo.read_until("vault-token.json");
        let id = Pid::from_raw(demo.process.id().cast_signed());
        kill(id, signal).unwrap();
        let text = demo.finish(128 + signal as i32);
        assert!(!text.contains("gone now"), "it went on:\n{text}");
    }
}

#[test]
fn killed_it_leaves_no_process_and_no_mount() {
    let mut demo = Demo::start(&["--pause"]);
    for _ in 0..3 {
        demo.press_enter();
    }
    demo.read_until("vault-token.json");
    demo.process.kill().unwrap();
    demo.process.wait().unwrap();
    let path = demo.directory.path();
    eventually("the demo's processes to end", || {
        processes_that_know(path).is_empty().then_some(())
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(path.to_str().unwrap()), "{mounts}");
}
