//! The main job: a pod's volume from the kubelet's call to the files in it.

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use vaulttmpfs_tests::{Lab, Options, Pod, Role, eventually, text};

/// A role for pods that want their token unwrapped.
fn plain_role() -> Role {
    Role::new("plain", &json!({}))
}

fn unwrapped() -> Options {
    Options::new(&[
        ("vault/policies", "app"),
        ("vault/role", "plain"),
        ("vault/unwrap", "true"),
    ])
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn init_promises_what_the_driver_keeps() {
    let lab = Lab::builder().without_agent().start();
    let outcome = lab.kubelet.init();
    outcome.assert_success();
    let expected = json!({
        "attach": false,
        "fsGroup": false,
        "requiresFSResize": false,
        "selinuxRelabel": true,
    });
    assert_eq!(outcome.answer["capabilities"], expected);
}

#[test]
fn a_pod_gets_a_wrapped_token() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    assert_eq!(
        volume.files(),
        ["ca.crt", "vault-token", "vault-token.json"]
    );

    let token = volume.read("vault-token");
    let json = volume.read_json("vault-token.json");
    assert_eq!(
        keys(&json),
        ["creation_time", "token", "ttl", "wrapped_accessor"]
    );
    assert_eq!(json["token"], token.as_str(), "the bare token, no newline");
    assert_eq!(json["ttl"], 300, "the default of the first plugin");
    assert!(
        json["creation_time"].as_str().unwrap().contains('T'),
        "{json}"
    );
    let accessors = lab.vault.root().accessors_of_pod(&volume.pod.uid);
    assert_eq!(json["wrapped_accessor"], json!(accessors[0]));
    assert_eq!(accessors.len(), 1, "one token for one volume");

    let holder = lab.unwrap(&volume);
    assert_eq!(
        holder.lookup_self().body["data"]["policies"],
        json!(["app", "default"])
    );
    assert_eq!(
        holder.read("secret/app").body["data"]["password"],
        "the secret of app"
    );
    assert_eq!(holder.read("secret/other").status, 403);
    let again = lab.vault.root().unwrap(&token);
    assert_eq!(
        again.status, 400,
        "a wrapped token is unwrapped once: {again:?}"
    );
}

#[test]
fn a_pod_gets_an_unwrapped_token_that_asks_for_one() {
    let lab = Lab::builder().role(plain_role()).start();
    let volume = lab.mounted(&unwrapped());
    let token = volume.read("vault-token");
    let json = volume.read_json("vault-token.json");
    assert_eq!(
        keys(&json),
        [
            "auth",
            "data",
            "lease_duration",
            "lease_id",
            "renewable",
            "request_id",
            "warnings"
        ]
    );
    assert_eq!(
        keys(&json["auth"]),
        [
            "accessor",
            "client_token",
            "lease_duration",
            "metadata",
            "policies",
            "renewable"
        ]
    );
    assert_eq!(json["auth"]["client_token"], token.as_str());
    assert_eq!(json["auth"]["policies"], json!(["app", "default"]));
    assert_eq!(json["auth"]["metadata"]["poduid"], volume.pod.uid.as_str());
    let holder = lab.vault.root().with_token(&token);
    assert_eq!(holder.read("secret/app").status, 200);
    let accessors = lab.vault.root().accessors_of_pod(&volume.pod.uid);
    assert_eq!(json["auth"]["accessor"], json!(accessors[0]));
}

#[test]
fn both_forms_of_mount_are_taken() {
    let lab = Lab::start();
    let volume = lab.kubelet.volume(&Pod::new("old-0"), "vault");
    lab.kubelet
        .mount_device(&volume, &lab.options())
        .assert_success();
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
}

#[test]
fn vault_learns_which_pod_a_token_is_for() {
    let lab = Lab::builder()
        .set("VAULTTMPFS_CLUSTER_NAME", "north")
        .start();
    for pod in [Pod::new("web-0"), Pod::fixed("etcd-node1")] {
        let volume = lab.kubelet.volume(&pod, "vault");
        lab.kubelet.mount(&volume, &lab.options()).assert_success();
        let accessor = text(&volume.read_json("vault-token.json")["wrapped_accessor"]);
        let meta = lab.vault.root().lookup_accessor(&accessor).unwrap()["meta"].clone();
        assert_eq!(meta["poduid"], pod.uid.as_str(), "the whole uid");
        assert_eq!(meta["pod"], pod.name.as_str());
        assert_eq!(meta["namespace"], pod.namespace.as_str());
        assert_eq!(meta["cluster"], "north");
        assert_eq!(meta["creator"], "kubernetes-flexvolume-vault-plugin");
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(meta["node"], host.trim_end());
        let account = meta["service_account"].as_str().unwrap_or_default();
        assert_eq!(account, pod.service_account);
        // And so does the audit log when the pod uses its token.
        assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
        let log = lab.vault.audit_log();
        let used = log
            .iter()
            .rfind(|entry| entry["request"]["path"] == "secret/app")
            .unwrap();
        assert_eq!(used["auth"]["metadata"]["poduid"], pod.uid.as_str());
    }
}

#[test]
fn a_volume_is_a_small_tmpfs_that_runs_nothing() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let mounts = lab.node.volumes();
    let mount = &mounts[0];
    assert!(mount.is_at(&volume.directory), "{mount:?}");
    assert_eq!(mount.kind, "tmpfs");
    for option in ["rw", "nosuid", "nodev", "noexec"] {
        assert!(mount.has_option(option), "{option}: {mount:?}");
    }
    assert!(mount.super_options.contains("size="), "{mount:?}");
    assert!(mount.super_options.contains("nr_inodes="), "{mount:?}");
    let volumes = lab.agent.volumes();
    assert_eq!(
        mount.source,
        format!("vaulttmpfs:{}", text(&volumes[0]["id"]))
    );
    for name in ["vault-token", "vault-token.json", "ca.crt"] {
        let file = fs::metadata(volume.directory.join(name)).unwrap();
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777),
            (0, 0, 0o644),
            "{name}"
        );
    }
    // Full is full: a pod that writes into it cannot eat the node's memory.
    let written = fs::write(volume.directory.join("big"), vec![0; 64 * 1024 * 1024]);
    assert!(written.is_err());
}

#[test]
fn the_agent_shows_a_volume() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let shown = eventually("the volume to be attached", || {
        let mut volumes = lab.agent.volumes().into_iter();
        volumes.find(|one| one["state"] == "attached")
    });
    assert_eq!(shown["pod"]["uid"], volume.pod.uid.as_str());
    assert_eq!(shown["pod"]["name"], volume.pod.name.as_str());
    assert_eq!(shown["pod"]["namespace"], volume.pod.namespace.as_str());
    assert_eq!(
        shown["pod"]["service_account"],
        volume.pod.service_account.as_str()
    );
    assert_eq!(shown["volume"], volume.name.as_str());
    assert_eq!(shown["mount_dir"], volume.directory.to_str().unwrap());
    assert_eq!(shown["role"], "applications");
    assert_eq!(shown["policies"], json!(["app"]));
    assert_eq!(shown["managed"], true);
    assert_eq!(shown["unmanaged_because"], Value::Null);
    let accessor = text(&volume.read_json("vault-token.json")["wrapped_accessor"]);
    assert!(
        !shown.to_string().contains(&accessor),
        "no accessor is shown"
    );
}

/// Reads a file of a volume as a container's process does: through a mount of its own, as a user
/// who is not root.
fn read_as(lab: &Lab, volume: &Path, name: &str, group: u32) -> bool {
    let container = lab.node.path("container");
    fs::create_dir_all(&container).unwrap();
    let bind = MsFlags::MS_BIND;
    mount(Some(volume), &container, None::<&str>, bind, None::<&str>).unwrap();
    let group = group.to_string();
    let status = Command::new("setpriv")
        .args(["--reuid=65534", "--regid", &group, "--clear-groups", "cat"])
        .arg(container.join(name))
        .output()
        .unwrap();
    nix::mount::umount(&container).unwrap();
    status.status.success()
}

#[test]
fn fs_group_lets_a_pod_that_is_not_root_read() {
    let lab = Lab::start();
    let options = lab
        .options()
        .with("vault/filePermissions", "0600")
        .fs_group(2000);
    let volume = lab.mounted(&options);
    for (name, mode) in [
        ("vault-token", 0o640),
        ("vault-token.json", 0o640),
        ("ca.crt", 0o644),
    ] {
        let file = fs::metadata(volume.directory.join(name)).unwrap();
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777),
            (0, 2000, mode),
            "{name}"
        );
    }
    assert!(read_as(&lab, &volume.directory, "vault-token", 2000));
    assert!(!read_as(&lab, &volume.directory, "vault-token", 2001));
}

#[test]
fn a_read_only_volume_stays_writable_for_the_node() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options().read_only());
    fs::write(volume.directory.join("refreshed"), "later").unwrap();
}

#[test]
fn a_pods_kubernetes_secrets_go_nowhere() {
    let lab = Lab::start();
    let secret = "c2VjcmV0UmVm";
    let options = lab.options().with("kubernetes.io/secret/password", secret);
    let volume = lab.mounted(&options);
    for file in volume.files() {
        assert!(!volume.read(&file).contains(secret));
    }
    assert!(!lab.node.journal().contains(secret));
    assert!(!lab.agent.log().contains(secret));
}

#[test]
fn options_of_others_do_no_harm() {
    let lab = Lab::start();
    let quote = "a\"b\\c<&>é\n\u{7f}";
    let volume = lab.mounted(&lab.options().with("quote", quote).with("other/role", ".."));
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
}

#[test]
fn a_pod_needs_no_other_configuration() {
    let address = "https://vault.example:8200";
    let lab = Lab::builder()
        .set("VAULTTMPFS_POD_VAULT_ADDR", address)
        .start();
    let volume = lab.mounted(&lab.options());
    assert_eq!(
        volume.files(),
        ["ca.crt", "vault-addr", "vault-token", "vault-token.json"]
    );
    assert_eq!(volume.read("vault-addr"), address);
    assert_eq!(volume.read("ca.crt"), lab.vault.authority().certificate());
}

#[test]
fn a_pods_own_authority_wins() {
    let authority = vaulttmpfs_tests::Authority::new().certificate();
    let mut lab = Lab::builder().without_agent().start();
    let path = lab.node.write_for_agent("etc/pod-ca.crt", &authority);
    let path = path.to_str().unwrap().to_owned();
    lab.agent
        .settings
        .insert("VAULTTMPFS_POD_CACERT".to_owned(), path);
    lab.agent.start();
    lab.agent.wait_until_ready();
    let volume = lab.mounted(&lab.options());
    assert_eq!(volume.read("ca.crt"), authority);
}

#[test]
fn authorities_may_be_a_directory() {
    let mut lab = Lab::builder().without_agent().start();
    let settings = &mut lab.agent.settings;
    let file = settings.remove("VAULT_CACERT").unwrap();
    let directory = lab.node.path("etc/ca");
    fs::create_dir(&directory).unwrap();
    fs::copy(&file, directory.join("one.pem")).unwrap();
    let other = vaulttmpfs_tests::Authority::new().certificate();
    fs::write(directory.join("two.pem"), &other).unwrap();
    for entry in fs::read_dir(&directory).unwrap() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(entry.unwrap().path(), mode).unwrap();
    }
    settings.insert(
        "VAULT_CAPATH".to_owned(),
        directory.to_str().unwrap().to_owned(),
    );
    lab.agent.start();
    lab.agent.wait_until_ready();
    let volume = lab.mounted(&lab.options());
    let delivered = volume.read("ca.crt");
    for certificate in [lab.vault.authority().certificate(), other] {
        assert!(delivered.contains(certificate.trim_end()), "{delivered}");
    }
}

#[test]
fn extra_files_can_be_left_out() {
    let lab = Lab::builder()
        .set("VAULTTMPFS_EXTRA_FILES", "false")
        .set("VAULTTMPFS_POD_VAULT_ADDR", "https://vault.example:8200")
        .start();
    let volume = lab.mounted(&lab.options());
    assert_eq!(volume.files(), ["vault-token", "vault-token.json"]);
}

#[test]
fn a_vault_namespace_is_served_and_told() {
    let mut lab = Lab::builder().without_agent().start();
    lab.vault.root().write("sys/namespaces/team", &json!({}));
    let team = lab.vault.root().with_namespace("team");
    team.make_secrets();
    team.make_roles(&[Role::applications()]);
    lab.write_generator_token(&team.make_generator_token());
    lab.agent
        .settings
        .insert("VAULT_NAMESPACE".to_owned(), "team".to_owned());
    lab.agent.start();
    lab.agent.wait_until_ready();
    let volume = lab.mounted(&lab.options());
    assert_eq!(volume.read("vault-namespace"), "team");
    let holder = lab.unwrap(&volume).with_namespace("team");
    assert_eq!(holder.read("secret/app").status, 200);
}

#[test]
fn a_kubelet_root_may_be_a_symbolic_link() {
    let lab = Lab::start();
    let link = lab.node.path("linked");
    std::os::unix::fs::symlink(lab.node.path("kubelet"), &link).unwrap();
    let kubelet = lab.kubelet.with_root(&link);
    let volume = kubelet.volume(&Pod::new("web-0"), "vault");
    kubelet.mount(&volume, &lab.options()).assert_success();
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
    // The mount table shows another path than the kubelet gave.
    assert!(!lab.node.volumes()[0].is_at(&volume.directory));
    kubelet.mount(&volume, &lab.options()).assert_success();
    assert_eq!(
        lab.node.volumes().len(),
        1,
        "the link does not hide that it is mounted"
    );
    assert_eq!(lab.living(), 1);
    kubelet.unmount(&volume).assert_success();
    assert_eq!(lab.node.volumes(), []);
}

#[test]
fn a_repeated_mount_confirms_the_first() {
    let lab = Lab::builder().proxied().start();
    let volume = lab.mounted(&lab.options());
    let before = (lab.node.volumes(), volume.read("vault-token"));
    lab.kubelet.mount(&volume, &lab.options()).assert_success();
    assert_eq!((lab.node.volumes(), volume.read("vault-token")), before);
    assert_eq!(lab.living(), 1);
    assert_eq!(lab.proxy().count("POST /v1/auth/token/create"), 1);
}

#[test]
fn a_directory_is_mounted_again_after_an_unmount() {
    let lab = Lab::start();
    let volume = lab.mounted(&lab.options());
    let first = lab.node.volumes();
    lab.kubelet.unmount(&volume).assert_success();
    lab.kubelet.mount(&volume, &lab.options()).assert_success();
    assert_ne!(
        lab.node.volumes()[0].source,
        first[0].source,
        "another volume"
    );
    assert_eq!(lab.unwrap(&volume).read("secret/app").status, 200);
    lab.assert_all_accounted_for();
}
