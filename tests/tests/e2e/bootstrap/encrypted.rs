//! The token encrypted for its node by systemd-creds, which never has it among its arguments.

use super::{Site, assert_said};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// A site whose systemd-creds is the real one, and writes down how it was called.
fn with_witness() -> Site {
    let site = Site::new();
    // The host's key is made there.
    site.lab.node.own("/var/lib");
    let node = &site.lab.node;
    let real = node.path("systemd-creds");
    fs::copy("/usr/bin/systemd-creds", &real).unwrap();
    let witness = node.path("witness");
    let (log, real) = (
        node.path("calls").display().to_string(),
        real.display().to_string(),
    );
    let script = format!("#!/bin/sh\n{{ echo \"$@\"; env; }} >>{log}\nexec {real} \"$@\"\n");
    fs::write(&witness, script).unwrap();
    fs::set_permissions(&witness, fs::Permissions::from_mode(0o755)).unwrap();
    let nothing = None::<&str>;
    mount(
        Some(&witness),
        "/usr/bin/systemd-creds",
        nothing,
        MsFlags::MS_BIND,
        nothing,
    )
    .unwrap();
    site
}

fn decrypted(path: &Path) -> String {
    let said = Command::new("systemd-creds")
        .args(["decrypt", "--name=generator-token"])
        .arg(path)
        .arg("-")
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_token_is_encrypted_for_its_node() {
    let site = with_witness();
    let path = site.lab.node.path("etc/credstore/generator-token");
    let option = format!("--systemd-creds={}", path.display());
    let encrypted = [option.as_str(), "--with-key=host"];
    let said = site.run_as_root_of_vault(&encrypted);
    assert_said(
        &said,
        0,
        &["written: ", "encrypted-token.conf", "restarted"],
    );
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o600, 0));
    let directory = fs::metadata(path.parent().unwrap()).unwrap();
    assert_eq!(directory.mode() & 0o7777, 0o700);
    let token = decrypted(&path);
    let looked_up = site.lab.vault.root().with_token(&token).lookup_self();
    assert_eq!(looked_up.status, 200, "{looked_up:?}");
    assert!(!site.path().exists(), "nothing is written in the clear");

    // A good one is kept; what is none is replaced.
    assert_said(&site.run(&encrypted, &[]), 0, &["kept: "]);
    assert_eq!(decrypted(&path), token);
    fs::write(&path, "junk").unwrap();
    assert_said(
        &site.run_as_root_of_vault(&encrypted),
        0,
        &["systemd-creds: ", "written: "],
    );
    assert_ne!(decrypted(&path), token);

    // Where it cannot be encrypted, it is ended.
    let tpm = [option.as_str(), "--with-key=tpm2", "--force"];
    let said = site.run_as_root_of_vault(&tpm);
    if !Path::new("/dev/tpmrm0").exists() {
        assert_said(&said, 1, &["systemd-creds: "]);
    }
    assert!(site.living("auth/token/create-orphan") <= 2);
    let secrets = site.lab.vault.secrets();
    let calls = fs::read_to_string(site.lab.node.path("calls")).unwrap();
    assert!(
        calls.contains("encrypt --name=generator-token --with-key=host - -"),
        "{calls}"
    );
    secrets.assert_absent("a call of systemd-creds, or its environment", &calls);
    let content = fs::read_to_string(&path).unwrap();
    secrets.assert_absent("the encrypted file", &content);
}
