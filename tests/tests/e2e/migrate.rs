//! `vaulttmpfs migrate`: the first plugin's settings, from where a kubelet has them.
//!
//! The kubelet is a process of that name which sleeps: all that is looked at is its environment. Each
//! test has a pid namespace of its own, so that it sees no other's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use vaulttmpfs_tests::{Node, Said};

const FILE: &str = "/etc/default/vaulttmpfs";
const TOKEN: &str = "hvs.CAESIJ-this-is-secret";

fn node() -> Node {
    let node = Node::new();
    node.own("/etc");
    let _ = fs::remove_file(FILE);
    fs::copy("/bin/sleep", node.path("kubelet-program")).unwrap();
    fs::create_dir(node.path("bin")).unwrap();
    fs::rename(node.path("kubelet-program"), node.path("bin/kubelet")).unwrap();
    node
}

/// Runs `migrate` beside kubelets started with these environments, each by this prefix.
fn beside(node: &Node, kubelets: &[(&str, &[&str])], arguments: &[&str]) -> Said {
    let program = node.path("bin/kubelet");
    let mut started = String::new();
    for (prefix, environment) in kubelets {
        let (environment, program) = (environment.join("' '"), program.display());
        started = format!("{started} {prefix} env -i '{environment}' {program} 1000 &");
    }
    // They are there once all have become that program.
    let count = kubelets.len();
    let script = format!(
        "{started} for i in $(seq 1000); do \
         [ \"$(grep -lx kubelet /proc/[0-9]*/comm 2>/dev/null | wc -l)\" -ge {count} ] && break; \
         sleep 0.01; done; exec \"$@\""
    );
    let migrate = node.command(&["migrate"]);
    let mut command = Command::new("unshare");
    command
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "--",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(migrate.get_program())
        .args(migrate.get_args())
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    Said::by(&mut command)
}

#[test]
fn the_kubelets_settings_become_the_agents() {
    let node = node();
    let token = format!("VAULT_TOKEN={TOKEN}");
    let environment = [
        "HOME=/root",
        "VAULT_ADDR=https://vault.test:8200",
        "VAULTTMPFS_ROLE_NAME=web pods",
        "VAULT_NAMESPACE=a\"b\"$c",
        "VAULT_MAX_RETRY=5",
        "VAULT_FORMAT=json",
        token.as_str(),
    ];
    let kubelets: &[(&str, &[&str])] = &[("", &environment)];
    let shown = beside(&node, kubelets, &[]);
    // The role's name is none.
    assert_eq!(shown.status, 1, "{shown:?}");
    assert!(
        shown
            .errors
            .contains("VAULTTMPFS_ROLE_NAME=\"web pods\": expected"),
        "{shown:?}"
    );
    assert!(
        !Path::new(FILE).exists(),
        "without --write nothing is written"
    );
    for part in [
        "# /etc/default/vaulttmpfs would get:\n# From the running kubelet:\n",
        "\nVAULT_ADDR=https://vault.test:8200\n",
        "\nVAULT_NAMESPACE=\"a\\\"b\\\"\\$c\"\n",
        "\nVAULT_MAX_RETRY=5\n",
        "# VAULT_FORMAT in the running kubelet",
        "# VAULT_TOKEN in the running kubelet",
        "a secret",
    ] {
        assert!(shown.output.contains(part), "{part}: {shown:?}");
    }
    assert!(!shown.output.contains("HOME"));

    let written = beside(&node, kubelets, &["--write"]);
    assert_eq!(
        written.output, "written: /etc/default/vaulttmpfs\n",
        "{written:?}"
    );
    let text = fs::read_to_string(FILE).unwrap();
    let mode = fs::metadata(FILE).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    for said in [&shown.output, &shown.errors, &written.errors, &text] {
        assert!(!said.contains(TOKEN), "{said}");
    }
    // A shell reads the file as systemd does.
    let sourced = Command::new("sh")
        .args([
            "-c",
            ". /etc/default/vaulttmpfs; printf %s \"$VAULT_NAMESPACE\"",
        ])
        .output()
        .unwrap();
    assert_eq!(sourced.stdout, b"a\"b\"$c");

    // What is set already counts, and the file as it was is kept.
    fs::write(FILE, "# mine\nVAULT_ADDR=https://mine.test\n").unwrap();
    let good: &[(&str, &[&str])] =
        &[("", &["VAULT_ADDR=https://vault.test", "VAULT_WRAP_TTL=90s"])];
    let written = beside(&node, good, &["--write"]);
    assert_eq!(written.status, 0, "{written:?}");
    let text = fs::read_to_string(FILE).unwrap();
    assert!(
        text.starts_with("# mine\nVAULT_ADDR=https://mine.test\n"),
        "{text}"
    );
    assert!(
        text.contains("\nVAULT_WRAP_TTL=90s\n") && !text.contains("vault.test"),
        "{text}"
    );
    let before = format!("{FILE}.before-migrate");
    assert_eq!(
        fs::read_to_string(&before).unwrap(),
        "# mine\nVAULT_ADDR=https://mine.test\n"
    );
}

#[test]
fn what_is_secret_in_the_file_stays_secret_and_the_first_file_is_kept() {
    let node = node();
    let before = format!("{FILE}.before-migrate");
    let mine = format!(
        "HTTPS_PROXY=http://user:{TOKEN}@proxy\nVAULT_TOKEN={TOKEN}\n# VAULT_TOKEN={TOKEN}\n"
    );
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let kubelet = ["VAULT_ADDR=https://vault.test", "VAULT_WRAP_TTL=90s"];
    for (own, kept) in [(0o600, 0o600), (0o640, 0o640), (0o4666, 0o666)] {
        let _ = fs::remove_file(&before);
        fs::write(FILE, &mine).unwrap();
        fs::set_permissions(FILE, fs::Permissions::from_mode(own)).unwrap();
        let shown = beside(&node, &[("", &kubelet[..1])], &[]);
        assert!(shown.output.contains("\nVAULT_ADDR=https"), "{shown:?}");
        let first = beside(&node, &[("", &kubelet[..1])], &["--write"]);
        // The second adds to what the first has made of it.
        let second = beside(&node, &[("", &kubelet)], &["--write"]);
        for said in [shown, first, second] {
            let both = format!("{}{}", said.output, said.errors);
            assert_eq!(said.status, 0, "{both}");
            for secret in [TOKEN, "HTTPS_PROXY"] {
                assert!(!both.contains(secret), "{both}");
            }
        }
        let text = fs::read_to_string(FILE).unwrap();
        assert!(text.starts_with(&mine) && text.contains("\nVAULT_WRAP_TTL=90s\n"));
        assert_eq!(fs::read_to_string(&before).unwrap(), mine);
        assert_eq!((mode(FILE), mode(&before)), (kept, kept), "{own:o}");
    }
}

#[test]
fn twice_changes_nothing_the_second_time() {
    let node = node();
    // Without systemd on the bus the unit is no source; nor is a kubelet whose number changes.
    let kubelets: &[(&str, &[&str])] = &[("", &["VAULT_ADDR=https://vault.test"])];
    assert_eq!(beside(&node, kubelets, &["--write"]).status, 0);
    let text = fs::read_to_string(FILE).unwrap();
    let again = beside(&node, kubelets, &["--write"]);
    assert_eq!(
        again.output, "unchanged: /etc/default/vaulttmpfs\n",
        "{again:?}"
    );
    assert_eq!(fs::read_to_string(FILE).unwrap(), text);
    assert!(!Path::new("/etc/default/vaulttmpfs.before-migrate").exists());
}

#[test]
fn a_users_process_of_that_name_is_no_kubelet() {
    let node = node();
    fs::set_permissions(node.path("bin/kubelet"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(node.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let user = "setpriv --reuid=64321 --regid=64321 --clear-groups --";
    let own_pids = "unshare --pid --fork --";
    let evil: &[&str] = &["VAULT_ADDR=https://evil.test"];
    let said = beside(&node, &[(user, evil), (own_pids, evil)], &["--write"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("no kubelet runs here"), "{said:?}");
    assert!(!Path::new(FILE).exists());
}

#[test]
fn a_hostile_environment_is_taken_for_what_it_is() {
    let node = node();
    let huge = format!("VAULT_CACERT=/{}", "x".repeat(60_000));
    let many: Vec<String> = (0..500)
        .map(|n| format!("VAULT_UNKNOWN_{n}={TOKEN}"))
        .collect();
    let mut environment: Vec<&str> = many.iter().map(String::as_str).collect();
    environment.extend([
        huge.as_str(),
        "VAULT_NAMESPACE=a\nVAULT_ADDR=https://evil.test",
        "VAULT_ADDR=https://vault.test",
    ]);
    let said = beside(&node, &[("", &environment)], &["--write"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.errors.contains("VAULT_CACERT=\"/xxx") && said.errors.len() < 2000,
        "{}",
        said.errors
    );
    assert!(said.errors.contains("VAULT_NAMESPACE"), "{}", said.errors);
    let text = fs::read_to_string(FILE).unwrap();
    let set: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    assert_eq!(set, ["VAULT_ADDR=https://vault.test"]);
    assert!(!text.contains(TOKEN));
}
