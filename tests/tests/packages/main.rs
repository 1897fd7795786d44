//! What there is to say of the packages without installing them: the units, the programs, what is in
//! the packages, and what lintian and rpmlint think of them. `packaging/build` makes them first.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, naming the place"
)]

mod contents;
mod lint;
mod programs;
mod units;

use std::path::{Path, PathBuf};
use std::process::Command;

fn tree() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tree").to_owned()
}

/// What a program prints, on either side, and whether it was content.
fn said(command: &mut Command) -> (bool, String) {
    let output = command
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

/// What a program prints that is content.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let (content, text) = said(Command::new(program).args(arguments));
    assert!(content, "{program} {arguments:?}: {text}");
    text
}

fn package(ending: &str) -> String {
    let package = vaulttmpfs_tests::package(ending);
    package.into_os_string().into_string().unwrap()
}

/// The deb's files in a directory of their own.
fn unpacked() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    run("dpkg-deb", &["-x", &package("deb"), root]);
    directory
}
