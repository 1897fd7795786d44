//! `vaulttmpfs support-bundle`, where there is no systemd. With one: `installed/support_bundle.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use vaulttmpfs_tests::{Lab, OpenBao, Pod, Said};

/// No program of systemd's is found here, whatever the machine has.
const NO_PROGRAMS: &str = "/nonexistent";

/// What has the form of a token, in places where none belongs.
pub(super) const PLANTED: &str = "s.PlantedPlantedPlanted123";

const PARTS: [&str; 10] = [
    "about.txt",
    "check.txt",
    "log.txt",
    "metrics.txt",
    "mounts.txt",
    "properties.txt",
    "settings.txt",
    "status.json",
    "units.txt",
    "volumes.json",
];

/// A lab whose machine has a file of settings with secrets in it.
fn lab() -> (Lab, PathBuf) {
    let lab = Lab::start();
    lab.node.own("/etc");
    let settings = format!(
        "VAULT_ADDR={}\nVAULT_TOKEN={PLANTED}\nVAULT_NAMESPACE=a-{PLANTED}\n\
         VAULTTMPFS_POD_VAULT_ADDR=https://user:hunter2@vault\nDB_PASSWORD=hunter2\n",
        lab.vault.address()
    );
    fs::write("/etc/default/vaulttmpfs", settings).unwrap();
    let directory = lab.node.path("bundles");
    fs::create_dir(&directory).unwrap();
    (lab, directory)
}

fn bundle(lab: &Lab, directory: &Path, arguments: &[&str]) -> Said {
    let mut command = lab.node.command(&[&["support-bundle"], arguments].concat());
    let said = Said::by(command.env("PATH", NO_PROGRAMS).current_dir(directory));
    lab.vault.secrets().assert_absent("its words", &said.output);
    lab.vault
        .secrets()
        .assert_absent("its errors", &said.errors);
    said
}

/// The bundle's files by name, none of which has a secret.
#[track_caller]
pub(super) fn unpack(vault: &OpenBao, archive: &Path) -> BTreeMap<String, String> {
    let mode = fs::metadata(archive).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let to = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(to.path())
        .status();
    assert!(tar.unwrap().success());
    let directory = fs::read_dir(to.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let files: BTreeMap<String, String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    let secrets = vault.secrets();
    for (name, text) in &files {
        secrets.assert_absent(name, text);
        assert!(
            !text.contains(PLANTED) && !text.contains("hunter2"),
            "{name}: {text}"
        );
    }
    assert_eq!(files.keys().collect::<Vec<_>>(), PARTS);
    files
}

#[test]
fn it_has_each_part_and_no_secret() {
    let (lab, directory) = lab();
    let volume = lab.mounted(&lab.options());
    let failing = lab.kubelet.volume(&Pod::new("web-1"), "vault");
    let options = lab.options().with("vault/role", "nosuch");
    lab.kubelet
        .mount(&failing, &options)
        .assert_failure(&["nosuch"]);
    let said = bundle(&lab, &directory, &[]);
    assert_eq!(said.status, 0, "{said:?}");
    let path = said.output.trim().strip_prefix("written: ").unwrap();
    let path = Path::new(path);
    assert_eq!(path.parent(), Some(directory.as_path()));
    assert_eq!(
        fs::read_dir(&directory).unwrap().count(),
        1,
        "nothing else is left"
    );
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("vaulttmpfs-support-") && name.ends_with(".tar.gz"),
        "{name}"
    );
    for missing in ["units.txt", "properties.txt", "log.txt"] {
        assert!(
            said.errors.contains(&format!("{missing} is left out: ")),
            "{said:?}"
        );
    }

    let files = unpack(&lab.vault, path);
    for (part, words) in [
        (
            "about.txt",
            &[
                "vaulttmpfs 0.",
                "Linux ",
                "units.txt      left out: systemctl: No such file",
            ][..],
        ),
        ("status.json", &["\"ready\":true", "nosuch"]),
        (
            "volumes.json",
            &["\"name\":\"web-0\"", "\"condition\":\"attached\""],
        ),
        ("check.txt", &["\nfailures: "]),
        ("metrics.txt", &["vaulttmpfs_mounts_total 2"]),
        (
            "mounts.txt",
            &[volume.directory.to_str().unwrap(), " - tmpfs vaulttmpfs:"],
        ),
        ("units.txt", &["left out: systemctl: No such file"]),
        ("log.txt", &["left out: journalctl: No such file"]),
        (
            "settings.txt",
            &[
                "# As the running agent has them\n",
                &format!("\nVAULT_ADDR={}\n", lab.vault.address()),
                "\nVAULTTMPFS_MAX_AGE: not set\n",
                "\nBAO_WRAP_TTL: not set, by default 5m\n",
                &format!(
                    "# In /etc/default/vaulttmpfs\nVAULT_ADDR={}\n",
                    lab.vault.address()
                ),
                "\nVAULT_TOKEN: set, but no setting of the agent\n",
                "\nVAULT_NAMESPACE=a-(a token was here)\n",
                "\nVAULTTMPFS_POD_VAULT_ADDR: set, not shown\n",
                "generator token in /etc/kubernetes/vaulttoken: not set",
            ],
        ),
    ] {
        for word in words {
            assert!(
                files[part].contains(word),
                "{word:?} in {part}: {}",
                files[part]
            );
        }
    }
    let others = files["mounts.txt"].lines();
    assert!(
        others.clone().all(|line| line.contains("vaulttmpfs:")),
        "ours only"
    );
}

#[test]
fn a_part_that_fails_stops_no_other() {
    let (mut lab, directory) = lab();
    let volume = lab.mounted(&lab.options());
    let _ = lab.agent.stop();
    let said = bundle(&lab, &directory, &["--output", "here.tar.gz"]);
    assert_eq!(said.status, 0, "{said:?}");
    let files = unpack(&lab.vault, &directory.join("here.tar.gz"));
    for part in ["status.json", "volumes.json", "metrics.txt"] {
        assert!(
            files[part].starts_with("left out: no agent serves "),
            "{}",
            files[part]
        );
        assert!(
            said.errors.contains(&format!("{part} is left out: ")),
            "{said:?}"
        );
    }
    let mounted = volume.directory.to_str().unwrap();
    assert!(files["mounts.txt"].contains(mounted));
    assert!(files["settings.txt"].contains("left out: no agent serves "));
    assert!(files["settings.txt"].contains(lab.vault.address()));

    // One that was there is replaced whole, or stays.
    let again = bundle(&lab, &directory, &["--output", "here.tar.gz"]);
    assert_eq!(again.status, 0, "{again:?}");
    let nowhere = bundle(&lab, &directory, &["--output", "none/here.tar.gz"]);
    assert_eq!(nowhere.status, 1, "{nowhere:?}");
    assert!(nowhere.errors.contains("cannot write "), "{nowhere:?}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn it_is_roots() {
    let (lab, directory) = lab();
    let program = lab.node.command(&[]).get_program().to_owned();
    let said = Said::by(
        Command::new("setpriv")
            .args(["--reuid=64321", "--regid=64321", "--clear-groups", "--"])
            .arg(program)
            .arg("support-bundle")
            .current_dir(&directory),
    );
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("run it as root"), "{said:?}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}
