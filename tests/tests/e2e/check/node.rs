//! What is wrong on the node itself.

use super::{
    Bed, FAILURE, Sleeper, WARNING, arguments, kubelet_program, not_checked, settings_of_kubelet,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use vaulttmpfs_tests::{Said, Terminal, in_own_namespaces};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the check says to a user who is not root.
fn as_somebody(bed: &Bed, arguments: &[&str]) -> Said {
    let mut check = bed.lab.node.command(&["check"]);
    check.args(arguments).envs(&bed.settings);
    let environment = check.get_envs();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=64322", "--regid=64322", "--clear-groups", "--"])
        .arg(check.get_program())
        .args(check.get_args())
        .env_clear()
        .envs(environment.filter_map(|(name, value)| Some((name, value?))));
    Said::by(&mut command)
}

#[test]
fn a_node_on_which_all_is_well_has_nothing_to_be_mended() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let findings = bed.finds_by(&bed.settings, &[], &[]);
        // And everything was looked at but what is done on request.
        assert_eq!(
            not_checked(&findings),
            [("trial token", "--mint has one made")]
        );
        let text = bed.lab.command_with(&["check"], &bed.settings);
        assert_eq!(text.status, 0, "{text:?}");
        assert!(
            text.output
                .contains("roles\n  ok: `applications` makes orphans with a period of 24h"),
            "{text:?}"
        );
        assert!(text.output.contains("failures: 0, warnings: 0"), "{text:?}");

        // A terminal gets no longer line than it has columns.
        let mut check = bed.lab.node.command(&["check"]);
        check
            .envs(&bed.settings)
            .env("NO_COLOR", "1")
            .env("TERM", "xterm");
        let (status, screen) = Terminal::run(&check).end();
        assert_eq!(status, 0, "{screen}");
        assert!(screen.contains("failures: 0, warnings: 0"), "{screen}");
        let longest = screen.lines().map(|line| line.trim_end().chars().count());
        assert_eq!(longest.max().map(|it| it <= 80), Some(true), "{screen}");

        // Whoever is not root hears what he may not know.
        let said = as_somebody(&bed, &["--env-file", "/proc/1/environ"]);
        let unreadable = "not checked: the settings: /proc/1/environ: Permission denied";
        assert!(said.output.contains(unreadable), "{said:?}");
        mode(&bed.lab.node.path("etc/ca.crt"), 0o444);
        let said = as_somebody(&bed, &[]);
        for part in [
            "not checked: the agent: ",
            "not checked: the kubelet's settings: root is needed to see it",
            "etc/token: root is needed to read it",
        ] {
            assert!(said.output.contains(part), "{part}: {said:?}");
        }
    });
}

/// A file system whose server is gone: whoever asks for anything in it waits. It is over when the file
/// that is returned is closed.
fn dead_file_system(at: &Path) -> File {
    let server = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let server = server.expect("FUSE, which stands in for a network's file system");
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        server.as_raw_fd()
    );
    fs::create_dir(at).unwrap();
    let flags = MsFlags::empty();
    mount(Some("dead"), at, Some("fuse"), flags, Some(&*options)).unwrap();
    server
}

#[test]
fn what_hangs_on_the_node_is_found_in_bounded_time() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let dead = bed.lab.node.path("dead");
        let server = dead_file_system(&dead);
        let in_it = |name: &str| dead.join(name).to_str().unwrap().to_owned();
        let hangs = ["could not be looked at within 8 s", "/proc/mounts"];
        for (named, groups) in [
            (&[("VAULT_CACERT", "ca.crt")][..], &["configuration"][..]),
            (
                &[
                    ("VAULTTMPFS_SOCKET", "agent.sock"),
                    ("VAULTTMPFS_GENERATOR_TOKEN_PATH", "token"),
                ],
                &["agent", "token file"],
            ),
        ] {
            let mut settings = bed.settings.clone();
            settings.extend(
                named
                    .iter()
                    .map(|(name, file)| ((*name).to_owned(), in_it(file))),
            );
            let (_, findings) = bed.run(&settings, &[]);
            let hanging = findings.iter().filter(|one| {
                let text = one["text"].as_str().unwrap();
                hangs.iter().all(|word| text.contains(word))
            });
            let hanging: Vec<_> = hanging.map(|one| one["group"].as_str().unwrap()).collect();
            // On a busy machine something else may seem to.
            let all = groups.iter().all(|group| hanging.contains(group));
            assert!(all, "{groups:?}: {findings:#?}");
            // What does not hang is looked at all the same.
            let others = findings
                .iter()
                .any(|one| one["group"] == "mounts" && one["level"] == "ok");
            assert!(others, "{findings:#?}");
        }
        drop(server);

        // A systemd that runs, as far as can be seen, and a bus that answers nobody.
        fs::create_dir_all("/run/systemd/system").unwrap();
        let programs = bed.lab.node.path("programs");
        fs::create_dir(&programs).unwrap();
        fs::write(programs.join("busctl"), "#!/bin/sh\nexec sleep 600\n").unwrap();
        mode(&programs.join("busctl"), 0o755);
        let path = format!("{}:/usr/bin:/bin", programs.display());
        bed.finds_with(
            &[("PATH", &path)],
            &[(
                FAILURE,
                &[
                    "vaulttmpfs-agent.service: systemd does not say its LoadState",
                    "busctl: not done in 5 s",
                ],
            )],
        );
    });
}

#[test]
fn bad_settings_are_found_and_those_that_only_the_kubelet_has() {
    in_own_namespaces(|| {
        let mut bed = Bed::new();
        let findings = bed.finds_by(
            &[
                ("VAULT_MAX_RETRIES", "many"),
                ("VAULT_WRAP_TTL", "never"),
                (
                    "VAULTTMPFS_SOCKET",
                    bed.settings["VAULTTMPFS_SOCKET"].as_str(),
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            &[],
            &[
                (
                    FAILURE,
                    &["VAULT_MAX_RETRIES=\"many\": expected a whole number"],
                ),
                (FAILURE, &["VAULT_WRAP_TTL=\"never\": expected a duration"]),
            ],
        );
        assert!(
            not_checked(&findings).contains(&("network", "the settings are not good")),
            "{findings:?}"
        );

        // What is in a file that is named counts alone; in the agent's own, behind the environment.
        let file = bed.lab.node.path("etc/settings");
        let settings = bed.settings.iter();
        let lines: Vec<String> = settings
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut text = lines.join("\n");
        text.push_str("\nVAULTTMPFS_DEFAULT_ROLE=web\n");
        fs::write(&file, text).unwrap();
        let shell = [("VAULT_WRAP_TTL".to_owned(), "4m".to_owned())].into();
        let mistyped = (
            WARNING,
            &["VAULTTMPFS_DEFAULT_ROLE in ", "is no setting"] as &[_],
        );
        let named = ["--env-file", file.to_str().unwrap()];
        let _ = bed.finds_by(&shell, &named, &[mistyped]);
        fs::create_dir_all("/etc/default").unwrap();
        fs::copy(&file, "/etc/default/vaulttmpfs").unwrap();
        let overruled = [
            "VAULT_WRAP_TTL of this environment counts here",
            "/etc/default/vaulttmpfs says otherwise",
        ];
        let _ = bed.finds_by(&shell, &[], &[mistyped, (WARNING, &overruled)]);
        fs::remove_file("/etc/default/vaulttmpfs").unwrap();
        let (_, findings) = bed.run(&shell, &["--env-file", "/nowhere/settings"]);
        let text = serde_json::to_string(&findings).unwrap();
        assert!(text.contains("/nowhere/settings: No such file"), "{text}");

        let arguments = arguments(&bed.lab);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut environment = settings_of_kubelet(&bed.lab);
        environment.insert("VAULT_NAMESPACE".to_owned(), "team-a".to_owned());
        environment.insert("VAULT_WRAP_TTL".to_owned(), "5m".to_owned());
        bed.kubelet(&[], &arguments, &environment);
        bed.finds(&[(
            WARNING,
            &[
                "VAULT_NAMESPACE is set in the running kubelet and not in",
                "migrate --write",
            ],
        )]);
        environment.remove("VAULT_NAMESPACE");
        environment.insert("VAULT_WRAP_TTL".to_owned(), "4m".to_owned());
        bed.kubelet(&[], &arguments, &environment);
        bed.finds_with(
            &[("VAULT_WRAP_TTL", "3m")],
            &[(
                WARNING,
                &["VAULT_WRAP_TTL is another in the running kubelet"],
            )],
        );
        environment.remove("VAULT_WRAP_TTL");
        environment.insert("VAULTTMPFS_SOCKET".to_owned(), "/run/other.sock".to_owned());
        bed.kubelet(&[], &arguments, &environment);
        bed.finds(&[(
            FAILURE,
            &["VAULTTMPFS_SOCKET in the running kubelet is not the agent's socket"],
        )]);
        environment.clear();
        bed.kubelet(&[], &arguments, &environment);
        bed.finds(&[(
            FAILURE,
            &["VAULTTMPFS_SOCKET is set for the agent and not for the kubelet"],
        )]);
    });
}

#[test]
fn a_socket_that_is_not_there_not_served_or_everybodys_is_found() {
    in_own_namespaces(|| {
        let mut bed = Bed::new();
        let socket = bed.lab.node.socket();
        mode(&socket, 0o666);
        bed.finds(&[(
            FAILURE,
            &["everybody may ask the agent", "mode 0666", "chmod o-rwx"],
        )]);
        mode(&socket, 0o600);
        let run = bed.lab.node.path("run");
        mode(&run, 0o777);
        bed.finds(&[(
            FAILURE,
            &["others than its owner may write to", "chmod go-w"],
        )]);
        mode(&run, 0o755);
        bed.is_well();

        bed.lab.agent.freeze();
        bed.finds(&[(FAILURE, &["does not answer within 5 s"])]);
        bed.lab.agent.thaw();

        bed.lab.agent.kill();
        bed.finds(&[(FAILURE, &["no agent serves", "is it running"])]);
        fs::remove_file(&socket).unwrap();
        bed.finds(&[(FAILURE, &["there is no socket", "vaulttmpfs-agent.socket"])]);
        fs::write(&socket, "").unwrap();
        bed.finds(&[(FAILURE, &["is no socket: move it away"])]);
        fs::remove_file(&socket).unwrap();

        // Before the install none is expected.
        let nothing = bed.lab.node.path("nothing");
        fs::create_dir(&nothing).unwrap();
        fs::remove_dir_all("/etc/vaulttmpfs").unwrap();
        let place = format!("--volume-plugin-dir={}", nothing.display());
        let environment = settings_of_kubelet(&bed.lab);
        bed.kubelet(&[], &[&place], &environment);
        let findings = bed.finds_by(&bed.settings, &[], &[]);
        let skipped = not_checked(&findings);
        assert!(skipped.contains(&("agent", "the agent: it is not installed yet")));
        assert!(skipped.contains(&("driver", "the driver: it is not installed yet")));
    });
}

#[test]
fn a_driver_that_is_missing_old_foreign_or_cannot_run_is_found() {
    in_own_namespaces(|| {
        let mut bed = Bed::new();
        let driver = bed.lab.node.driver();
        let plugins = bed.lab.node.path("plugins");
        let good = fs::read(&driver).unwrap();

        mode(&driver, 0o644);
        bed.finds(&[(
            FAILURE,
            &[
                "is not root's with mode 0755",
                "install-driver --plugin-dir",
            ],
        )]);
        mode(&driver, 0o755);

        let mut old = good.clone();
        let mark = format!("vaulttmpfs-shim {} (Flex", env!("CARGO_PKG_VERSION"));
        let at = old.windows(mark.len()).position(|it| it == mark.as_bytes());
        old[at.expect("the driver's mark") + "vaulttmpfs-shim ".len()] = b'9';
        fs::write(&driver, old).unwrap();
        bed.finds(&[(WARNING, &["is version 9.", "install-driver --update"])]);

        fs::write(&driver, "#!/bin/sh\n").unwrap();
        bed.finds(&[(FAILURE, &["is another driver of this name", "--force"])]);
        fs::write(&driver, &good).unwrap();
        bed.is_well();

        let (bind, none) = (MsFlags::MS_BIND, None::<&str>);
        mount(Some(&plugins), &plugins, none, bind, none).unwrap();
        let noexec = bind | MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC;
        mount(none, &plugins, none, noexec, none).unwrap();
        bed.finds(&[(FAILURE, &["it does not run there", "mounted noexec"])]);
        umount2(&plugins, MntFlags::empty()).unwrap();

        mode(&plugins, 0o777);
        bed.finds(&[(
            FAILURE,
            &[
                "others than its owner may write to",
                "plugins",
                "chmod go-w",
            ],
        )]);
        mode(&plugins, 0o755);

        fs::remove_file(&driver).unwrap();
        bed.finds(&[(
            FAILURE,
            &[
                "there is no driver in",
                "where the kubelet looks for drivers",
            ],
        )]);
        fs::write(&driver, &good).unwrap();
        mode(&driver, 0o755);

        // The kubelet looks elsewhere: by its command line, or by its configuration.
        let elsewhere = bed.lab.node.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let environment = settings_of_kubelet(&bed.lab);
        let place = format!("--volume-plugin-dir={}", elsewhere.display());
        bed.kubelet(&[], &[&place], &environment);
        let missing = [
            "there is no driver in",
            "elsewhere, where the kubelet looks",
        ];
        bed.finds(&[(FAILURE, &missing)]);
        let configuration = bed.lab.node.path("etc/kubelet.yaml");
        fs::write(
            &configuration,
            format!(
                "kind: KubeletConfiguration\nvolumePluginDir: {}\n",
                elsewhere.display()
            ),
        )
        .unwrap();
        bed.kubelet(
            &[],
            &["--config", configuration.to_str().unwrap()],
            &environment,
        );
        bed.finds(&[(FAILURE, &missing)]);
        // Put there by hand, it is not brought up to date.
        fs::create_dir(elsewhere.join("cloudwatt~vaulttmpfs")).unwrap();
        let by_hand = elsewhere.join("cloudwatt~vaulttmpfs/vaulttmpfs");
        fs::write(&by_hand, &good).unwrap();
        mode(&by_hand, 0o755);
        bed.finds(&[(WARNING, &["upgrades do not bring the driver up to date in"])]);
        fs::remove_dir_all(&elsewhere).unwrap();
        bed.finds(&[(
            FAILURE,
            &["elsewhere, where the kubelet looks for drivers, does not exist"],
        )]);
        bed.usual_kubelet();
        bed.is_well();
    });
}

#[test]
fn a_mount_namespace_that_is_cut_off_is_found() {
    in_own_namespaces(|| {
        let mut bed = Bed::new();
        let (arguments, environment) = (arguments(&bed.lab), settings_of_kubelet(&bed.lab));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let apart = ["unshare", "--mount", "--propagation", "private"];
        bed.kubelet(&apart, &arguments, &environment);
        let cut_off = [
            "do not reach the agent's mount namespace",
            "MountFlags=private",
        ];
        bed.finds(&[(FAILURE, &cut_off)]);

        // A volume that only the kubelet sees.
        let point = bed.lab.node.path("kubelet/pods");
        let script = format!(
            "mount -t tmpfs vaulttmpfs:0123456789abcdef0123456789abcdef {} && exec \"$@\"",
            point.display()
        );
        let prefix = [&apart[..], &["sh", "-c", &script, "sh"]].concat();
        bed.kubelet(&prefix, &arguments, &environment);
        bed.finds(&[
            (FAILURE, &["the agent does not see 1 of 1 mounted volumes"]),
            (FAILURE, &cut_off),
        ]);

        // Another directory of that path for the agent, as with ProtectHome=.
        let root = bed.lab.node.path("kubelet");
        let script = format!("mount -t tmpfs other {} && exec \"$@\"", root.display());
        let prefix = [&apart[..], &["sh", "-c", &script, "sh"]].concat();
        bed.kubelet(&prefix, &arguments, &environment);
        bed.finds(&[(
            FAILURE,
            &[
                "the agent does not see the kubelet's directory",
                "ProtectHome=",
            ],
        )]);
        bed.usual_kubelet();
        bed.is_well();
        // Two kubelets are two to look at.
        let second = Sleeper::start(&apart, &kubelet_program(&bed.lab), &arguments, &environment);
        bed.finds(&[(FAILURE, &cut_off)]);
        drop(second);
    });
}
