//! What is in the packages: the same files in both, root's, with modes that say what they are.

use crate::{package, run, tree, unpacked};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The settings' file of each family.
const DEFAULTS: &str = "/etc/default/vaulttmpfs";
const SYSCONFIG: &str = "/etc/sysconfig/vaulttmpfs";

/// What there is, without which one of the packages would be of no use.
const AMONG: &[&str] = &[
    "/usr/bin/vaulttmpfs",
    "/usr/libexec/vaulttmpfs/vaulttmpfs-shim",
    "/usr/lib/systemd/system/vaulttmpfs-agent.service",
    "/usr/lib/systemd/system/vaulttmpfs-agent.socket",
    "/usr/lib/systemd/system/vaulttmpfs-reload.path",
    "/usr/lib/systemd/system/vaulttmpfs-reload.service",
    "/usr/lib/sysusers.d/vaulttmpfs.conf",
    "/usr/share/bash-completion/completions/vaulttmpfs",
    "/usr/share/doc/vaulttmpfs/CHANGELOG.md.gz",
    "/usr/share/doc/vaulttmpfs/copyright",
    "/usr/share/doc/vaulttmpfs/examples/vault-side.sh",
    "/usr/share/doc/vaulttmpfs/prometheus/alerts.yml",
    "/usr/share/doc/vaulttmpfs/prometheus/dashboard.json",
    "/usr/share/man/man1/vaulttmpfs.1.gz",
    "/usr/share/man/man5/vaulttmpfs.5.gz",
    "/usr/share/man/man8/vaulttmpfs-agent.8.gz",
];

/// A file's path → its mode, owner and group, and its size.
type Files = BTreeMap<String, (String, String, String)>;

fn deb() -> Files {
    let listing = run("dpkg-deb", &["-c", &package("deb")]);
    listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let path = words[5].trim_start_matches('.').to_owned();
            // By number: the package has no names.
            let owner = words[1].replace("0/0", "root/root");
            (path, (words[0].into(), owner, words[2].into()))
        })
        .filter(|(path, _)| !path.ends_with('/'))
        .collect()
}

fn rpm() -> Files {
    let format =
        "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILESIZES}\\n]";
    let listing = run("rpm", &["-qp", "--qf", format, &package("rpm")]);
    listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let about = (words[1].into(), words[2].into(), words[3].into());
            (words[0].to_owned(), about)
        })
        .filter(|(path, _)| path.starts_with('/'))
        .collect()
}

#[test]
fn both_have_the_same_files() {
    let (mut deb, mut rpm) = (deb(), rpm());
    let defaults = deb.remove(DEFAULTS).expect(DEFAULTS);
    assert_eq!(defaults, rpm.remove(SYSCONFIG).expect(SYSCONFIG));
    // What only Debian asks for.
    for own in [
        "doc/vaulttmpfs/changelog.gz",
        "lintian/overrides/vaulttmpfs",
        "zsh/vendor-completions/_vaulttmpfs",
    ] {
        deb.remove(&format!("/usr/share/{own}")).expect(own);
    }
    assert_eq!(deb, rpm);
    for path in AMONG {
        assert!(deb.contains_key(*path), "{path}");
    }
}

#[test]
fn all_is_roots_and_nothing_is_for_others_to_write() {
    for (path, (mode, owner, _)) in deb() {
        assert_eq!(owner, "root/root", "{path}");
        let program = path.starts_with("/usr/bin/") || path.starts_with("/usr/libexec/");
        let expected = if program { "-rwxr-xr-x" } else { "-rw-r--r--" };
        assert_eq!(mode, expected, "{path}");
    }
}

#[test]
fn the_settings_outlive_an_upgrade() {
    let conffiles = run("dpkg-deb", &["-I", &package("deb"), "conffiles"]);
    assert_eq!(conffiles.trim(), DEFAULTS);
    let configured = run("rpm", &["-qp", "--configfiles", &package("rpm")]);
    assert_eq!(configured.trim(), SYSCONFIG);
    let flags = run(
        "rpm",
        &[
            "-qp",
            "--qf",
            "[%{FILEFLAGS:fflags}%{FILENAMES}\n]",
            &package("rpm"),
        ],
    );
    // c: configuration, n: not replaced.
    assert!(flags.contains(&format!("cn{SYSCONFIG}\n")), "{flags}");
}

#[test]
fn older_nodes_are_refused() {
    let depends = run("dpkg-deb", &["-f", &package("deb"), "Depends"]);
    let requires = run("rpm", &["-qp", "--requires", &package("rpm")]);
    for (deb, rpm) in [
        ("systemd (>= 249)", "systemd >= 249"),
        ("libc6 (>= 2.34)", "glibc >= 2.34"),
    ] {
        assert!(depends.contains(deb), "{depends}");
        assert!(requires.contains(rpm), "{requires}");
    }
}

#[test]
fn the_architecture_is_that_of_the_program() {
    let root = unpacked();
    let header = fs::read(root.path().join("usr/bin/vaulttmpfs")).unwrap();
    // e_machine of ELF (elf.h): where, and what it says of whom.
    let machine = u16::from_le_bytes([header[18], header[19]]);
    let deb = run("dpkg-deb", &["-f", &package("deb"), "Architecture"]);
    let rpm = run("rpm", &["-qp", "--qf", "%{ARCH}", &package("rpm")]);
    let known = [(62, "amd64", "x86_64"), (183, "arm64", "aarch64")];
    let (_, deb_name, rpm_name) = known
        .iter()
        .find(|(number, ..)| *number == machine)
        .expect("a machine that this test knows");
    assert_eq!((deb.trim(), &*rpm), (*deb_name, *rpm_name));
    let version = env!("CARGO_PKG_VERSION");
    let name = |path: &str| Path::new(path).file_name().unwrap().to_owned();
    let expected = format!("vaulttmpfs_{version}_{deb_name}.deb");
    assert_eq!(name(&package("deb")), *expected);
    let expected = format!("vaulttmpfs-{version}-1.{rpm_name}.rpm");
    assert_eq!(name(&package("rpm")), *expected);
}

#[test]
fn the_driver_is_the_one_that_the_tests_use() {
    let root = unpacked();
    let packaged = root.path().join("usr/libexec/vaulttmpfs/vaulttmpfs-shim");
    assert!(fs::read(packaged).unwrap() == fs::read(vaulttmpfs_tests::driver()).unwrap());
}

/// Another root, so nothing of this machine is touched; what the package's own database then thinks of each file.
#[test]
fn an_installed_rpm_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    run(
        "rpm",
        &[
            "--root",
            path,
            "-i",
            "--nodeps",
            "--noscripts",
            &package("rpm"),
        ],
    );
    // Silent when size, digest, mode, owner and group of each file are as packaged.
    assert_eq!(
        run("rpm", &["--root", path, "-V", "--nodeps", "vaulttmpfs"]),
        ""
    );
    let settings = root.path().join(&SYSCONFIG[1..]);
    let mode = fs::metadata(&settings).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    fs::write(&settings, "VAULT_ADDR=https://vault\n").unwrap();
    run(
        "rpm",
        &[
            "--root",
            path,
            "-e",
            "--nodeps",
            "--noscripts",
            "vaulttmpfs",
        ],
    );
    let left: Vec<String> = walk(root.path())
        .into_iter()
        .filter(|left| !left.contains("/lib/rpm/") && !left.contains("/.rpmdb/"))
        .collect();
    // What an administrator wrote is kept.
    assert_eq!(left, [format!("{path}{SYSCONFIG}.rpmsave")]);
}

fn walk(directory: &Path) -> Vec<String> {
    let found = run("find", &[directory.to_str().unwrap(), "-type", "f"]);
    found.lines().map(str::to_owned).collect()
}

#[test]
fn the_manual_is_readable_and_the_completions_are_scripts() {
    let root = unpacked();
    for page in [
        "man1/vaulttmpfs.1",
        "man5/vaulttmpfs.5",
        "man8/vaulttmpfs-agent.8",
    ] {
        let page = root.path().join(format!("usr/share/man/{page}.gz"));
        let warnings = ["--warnings", "-E", "UTF-8", "-l", page.to_str().unwrap()];
        let text = run("man", &warnings);
        // groff's own begin so; a page may speak of warnings, too.
        assert!(
            text.contains("NAME") && !text.contains(": warning:"),
            "{text}"
        );
    }
    let completions = root
        .path()
        .join("usr/share/bash-completion/completions/vaulttmpfs");
    run("bash", &["-n", completions.to_str().unwrap()]);
    let script = fs::read_to_string(&completions).unwrap();
    assert!(script.contains("status"), "{script}");
}

#[test]
fn the_scripts_name_the_units_that_there_are() {
    for scripts in ["packaging/deb", "packaging/rpm"] {
        for script in fs::read_dir(tree().join(scripts)).unwrap() {
            let text = fs::read_to_string(script.unwrap().path()).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-.".contains(c));
            for word in words.filter(|word| word.starts_with("vaulttmpfs-")) {
                if word.ends_with("service") || word.ends_with("socket") || word.ends_with("path") {
                    assert!(tree().join("systemd").join(word).is_file(), "{word}");
                }
            }
        }
    }
}

#[test]
fn the_scripts_are_scripts() {
    for (directory, shell) in [("packaging/deb", "sh"), ("packaging/rpm", "sh")] {
        for script in fs::read_dir(tree().join(directory)).unwrap() {
            let mut check = Command::new(shell);
            check.arg("-n").arg(script.unwrap().path());
            assert_eq!(crate::said(&mut check), (true, String::new()));
        }
    }
}

/// README.md is the one source of Vault's side.
#[test]
fn the_example_is_readmes() {
    let example = fs::read_to_string(tree().join("packaging/examples/vault-side.sh")).unwrap();
    let readme = fs::read_to_string(tree().join("README.md")).unwrap();
    let blocks = |name: &str| {
        let marker = format!("<!-- run: {name} -->\n```sh\n");
        let blocks = readme.split(&marker).skip(1);
        let blocks: Vec<&str> = blocks
            .map(|after| after.split("```").next().unwrap())
            .collect();
        assert!(!blocks.is_empty(), "{name}");
        blocks.join("\n")
    };
    for name in ["vault", "vault-unwrapped"] {
        let block = blocks(name);
        assert!(example.contains(&block), "put this there:\n{block}");
    }
}
