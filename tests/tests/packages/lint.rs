//! What lintian and rpmlint say. The little that they are not to say is in their own files, each line with its reason.

use crate::{package, said, tree};
use std::fs;
use std::process::Command;

/// Each exception that follows no comment.
fn unexplained(file: &str, is_exception: impl Fn(&str) -> bool) -> Vec<&str> {
    let lines: Vec<&str> = [""]
        .into_iter()
        .chain(file.lines().map(str::trim))
        .collect();
    let pairs = lines.windows(2);
    pairs
        .filter(|pair| is_exception(pair[1]) && !pair[0].starts_with('#'))
        .map(|pair| pair[1])
        .collect()
}

/// Its exceptions are in the package itself; it would say which it does not need.
#[test]
fn lintian_has_nothing_to_say() {
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--allow-root", "--fail-on", "error,warning"])
        .arg(package("deb"));
    assert_eq!(said(&mut lintian), (true, String::new()));
    let exceptions = fs::read_to_string(tree().join("packaging/lint/lintian-overrides")).unwrap();
    let is_exception = |line: &str| line.starts_with("vaulttmpfs:");
    assert_eq!(unexplained(&exceptions, is_exception), [""; 0]);
}

#[test]
fn rpmlint_has_nothing_to_say() {
    let filters = tree().join("packaging/lint/rpmlint.toml");
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("--config").arg(&filters).arg(package("rpm"));
    let (content, text) = said(&mut rpmlint);
    assert!(content && text.contains("0 errors, 0 warnings"), "{text}");
    let filters = fs::read_to_string(filters).unwrap();
    assert_eq!(
        unexplained(&filters, |line| line.starts_with('\'')),
        [""; 0]
    );
}
