//! The units: their sandbox, and the oldest systemd that knows what they ask for.

use crate::{run, said, tree};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The oldest systemd that the packages let themselves be installed with.
const OLDEST: u32 = 249;

/// The systemd that brought each setting, by its manual and its news. 183: that one or an older one.
const BROUGHT_BY: &[(&str, u32)] = &[
    ("After", 183),
    ("Before", 183),
    ("Description", 183),
    ("Documentation", 201),
    ("Requires", 183),
    ("StartLimitIntervalSec", 230),
    ("Also", 183),
    ("WantedBy", 183),
    ("PathChanged", 183),
    ("Backlog", 183),
    ("DirectoryMode", 183),
    ("FileDescriptorName", 227),
    ("ListenStream", 183),
    ("RemoveOnStop", 214),
    ("SocketGroup", 214),
    ("SocketMode", 183),
    ("SocketUser", 214),
    ("AmbientCapabilities", 229),
    ("CapabilityBoundingSet", 183),
    ("DevicePolicy", 208),
    ("EnvironmentFile", 183),
    ("ExecReload", 183),
    ("ExecStart", 183),
    ("Group", 183),
    ("KeyringMode", 235),
    ("LimitCORE", 183),
    ("LimitNOFILE", 183),
    ("LoadCredential", 247),
    ("LockPersonality", 235),
    ("MemoryDenyWriteExecute", 231),
    ("MemoryMax", 231),
    ("MemorySwapMax", 232),
    ("NoNewPrivileges", 187),
    ("NotifyAccess", 183),
    ("OOMScoreAdjust", 183),
    ("PrivateDevices", 209),
    ("PrivateIPC", 248),
    ("PrivateMounts", 239),
    ("PrivateNetwork", 183),
    ("PrivateTmp", 183),
    ("PrivateUsers", 232),
    ("ProtectClock", 245),
    ("ProtectControlGroups", 232),
    ("ProtectHome", 214),
    ("ProtectHostname", 242),
    ("ProtectKernelLogs", 244),
    ("ProtectKernelModules", 232),
    ("ProtectKernelTunables", 232),
    ("ProtectProc", 247),
    ("ProtectSystem", 214),
    ("RemoveIPC", 232),
    ("Restart", 183),
    ("RestartSec", 183),
    ("RestrictAddressFamilies", 211),
    ("RestrictNamespaces", 233),
    ("RestrictRealtime", 231),
    ("RestrictSUIDSGID", 242),
    ("SetCredential", 247),
    ("StateDirectory", 235),
    ("StateDirectoryMode", 235),
    ("SystemCallArchitectures", 209),
    ("SystemCallErrorNumber", 209),
    ("SystemCallFilter", 187),
    ("TasksMax", 227),
    ("TimeoutStartSec", 188),
    ("TimeoutStopSec", 188),
    ("Type", 183),
    ("UMask", 183),
    ("User", 183),
    ("WatchdogSec", 183),
];

/// Settings of the example drop-ins alone: a comment in each says the version.
const BROUGHT_LATER: &[(&str, u32)] = &[("LoadCredentialEncrypted", 250)];

/// Values that are younger than their setting.
const VALUES: &[(&str, &str, u32)] = &[
    ("ExecReload", "+", 231),
    ("ProtectSystem", "strict", 232),
    ("SystemCallFilter", "@system-service", 239),
];

fn files(directory: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(tree().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let extension = path.extension().and_then(|found| found.to_str());
            extension.is_some_and(|found| extensions.contains(&found))
        })
        .collect();
    files.sort();
    files
}

fn units() -> Vec<PathBuf> {
    files("systemd", &["service", "socket", "path"])
}

/// The settings of a unit, one a line.
fn settings(unit: &PathBuf) -> Vec<(String, String)> {
    let text = fs::read_to_string(unit).unwrap();
    text.lines()
        .filter(|line| !line.starts_with(['#', '[']) && !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn the_oldest_systemd_knows_every_setting() {
    let brought: BTreeMap<_, _> = BROUGHT_BY.iter().copied().collect();
    assert_eq!(units().len(), 4);
    for unit in units() {
        for (name, value) in settings(&unit) {
            let version = brought.get(name.as_str());
            let version = version.unwrap_or_else(|| panic!("since when does systemd know {name}?"));
            assert!(*version <= OLDEST, "{unit:?}: {name} is of {version}");
            for (of, begin, version) in VALUES {
                let meant = *of == name && value.starts_with(begin);
                assert!(!meant || *version <= OLDEST, "{unit:?}: {name}={value}");
            }
        }
    }
    for (name, version) in BROUGHT_BY {
        let used = units()
            .iter()
            .any(|unit| settings(unit).iter().any(|(found, _)| found == name));
        assert!(used, "{name} ({version}) is used nowhere");
    }
    let dependency = fs::read_to_string(tree().join("agent/Cargo.toml")).unwrap();
    for family in [
        format!("systemd (>= {OLDEST})"),
        format!("systemd = \">= {OLDEST}\""),
    ] {
        assert!(dependency.contains(&family), "{family}");
    }
}

#[test]
fn an_example_that_wants_a_younger_systemd_says_so() {
    let examples = files("systemd/examples", &["conf"]);
    assert_eq!(examples.len(), 3);
    for example in examples {
        let text = fs::read_to_string(&example).unwrap();
        for (name, _) in settings(&example) {
            let later = BROUGHT_LATER.iter().find(|(setting, _)| *setting == name);
            let known = BROUGHT_BY.iter().any(|(setting, _)| *setting == name);
            assert!(known || later.is_some(), "{example:?}: {name}");
            if let Some((_, version)) = later {
                let said = format!("systemd {version} or later");
                assert!(text.contains(&said), "{example:?}: {said}");
            }
        }
    }
}

/// A directory with the units, their program where it was built, and the examples as drop-ins.
fn installed(examples: bool) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let agent = vaulttmpfs_tests::agent();
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        let text = text.replace("/usr/bin/vaulttmpfs", agent.to_str().unwrap());
        fs::write(directory.path().join(unit.file_name().unwrap()), text).unwrap();
    }
    if examples {
        let drop_ins = directory.path().join("vaulttmpfs-agent.service.d");
        fs::create_dir(&drop_ins).unwrap();
        for example in files("systemd/examples", &["conf"]) {
            fs::copy(&example, drop_ins.join(example.file_name().unwrap())).unwrap();
        }
    }
    directory
}

#[test]
fn systemd_takes_units_and_drop_ins_without_a_word() {
    for examples in [false, true] {
        let directory = installed(examples);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]);
        verify.args(
            units()
                .iter()
                .map(|unit| directory.path().join(unit.file_name().unwrap())),
        );
        assert_eq!(said(&mut verify), (true, String::new()), "{examples}");
    }
}

#[test]
fn the_sandbox_is_as_strict_as_it_was() {
    let service = tree().join("systemd/vaulttmpfs-agent.service");
    let service = service.to_str().unwrap();
    let security = ["security", "--offline=true", "--threshold=13", service];
    run("systemd-analyze", &security);
}

/// What must never be there, and why is in the unit.
#[test]
fn nothing_keeps_the_kubelets_mounts_from_the_agent() {
    let service = tree().join("systemd/vaulttmpfs-agent.service");
    for (name, value) in settings(&service) {
        let hides = [
            "MountFlags",
            "InaccessiblePaths",
            "TemporaryFileSystem",
            "RuntimeDirectory",
        ];
        assert!(!hides.contains(&name.as_str()), "{name}={value}");
    }
}
