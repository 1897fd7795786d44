//! What the packaged programs want of a node.

use crate::{run, tree, unpacked};
use std::fs;

/// The oldest C library that the packages let themselves be installed with.
const OLDEST: (u32, u32) = (2, 34);

/// Libraries, and the packages of both families that bring them.
const LIBRARIES: &[(&str, &str, &str)] = &[
    ("libc.so.6", "libc6 (>= 2.34)", "glibc = \">= 2.34\""),
    ("libm.so.6", "libc6 (>= 2.34)", "glibc = \">= 2.34\""),
    ("libgcc_s.so.1", "libgcc-s1", "libgcc = \"*\""),
    (
        "libsystemd.so.0",
        "libsystemd0 (>= 249)",
        "systemd-libs = \">= 249\"",
    ),
];

#[test]
fn the_agent_asks_for_no_younger_c_library_than_its_packages() {
    let root = unpacked();
    let agent = root.path().join("usr/bin/vaulttmpfs");
    let symbols = run("objdump", &["-T", agent.to_str().unwrap()]);
    let versions: Vec<(u32, u32)> = symbols
        .split_whitespace()
        .filter_map(|word| word.trim_matches(['(', ')']).strip_prefix("GLIBC_"))
        .filter_map(|version| {
            let mut numbers = version.split('.').map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .collect();
    let youngest = versions.iter().max().expect("versions of symbols");
    assert!(*youngest <= OLDEST, "{youngest:?}");
}

#[test]
fn every_library_is_a_dependency() {
    let root = unpacked();
    let agent = root.path().join("usr/bin/vaulttmpfs");
    let dynamic = run("readelf", &["-d", agent.to_str().unwrap()]);
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .map(|line| line.split(['[', ']']).nth(1).expect("a library"))
        .filter(|library| !library.starts_with("ld-linux"))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "{dynamic}");
    let manifest = fs::read_to_string(tree().join("agent/Cargo.toml")).unwrap();
    for library in needed {
        let known = LIBRARIES.iter().find(|(name, ..)| *name == library);
        let (_, deb, rpm) = known.unwrap_or_else(|| panic!("which package brings {library}?"));
        assert!(manifest.contains(deb), "{library}: {deb}");
        assert!(manifest.contains(rpm), "{library}: {rpm}");
    }
}

#[test]
fn the_driver_needs_no_library() {
    let root = unpacked();
    let driver = root.path().join("usr/libexec/vaulttmpfs/vaulttmpfs-shim");
    let driver = driver.to_str().unwrap();
    let headers = run("readelf", &["--program-headers", "--dynamic", driver]);
    assert!(!headers.contains("INTERP"), "{headers}");
    assert!(!headers.contains("(NEEDED)"), "{headers}");
}

#[test]
fn nothing_is_left_of_the_machine_that_built() {
    let root = unpacked();
    let sections = |program: &str| {
        let path = root.path().join(program);
        run("readelf", &["--sections", "--wide", path.to_str().unwrap()])
    };
    for program in [
        "usr/bin/vaulttmpfs",
        "usr/libexec/vaulttmpfs/vaulttmpfs-shim",
    ] {
        let sections = sections(program);
        assert!(!sections.contains(".debug_"), "{program}: {sections}");
        assert!(!sections.contains(".symtab"), "{program}: {sections}");
    }
}
