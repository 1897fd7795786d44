//! `vaulttmpfs install-driver`: what a kubelet sees of it, what is never touched, and what becomes of it
//! when it is killed.
//!
//! No driver is removed while a process of root's sees a volume: a test of that must not see another's.

use nix::mount::{MsFlags, mount};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vaulttmpfs_tests::{Node, Said, in_own_namespaces, kill_at_change};

const USUAL: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
const LIST: &str = "/etc/vaulttmpfs/driver-dirs";
const KEPT: &str = "/var/lib/vaulttmpfs-driver";

/// A driver of someone else.
const FOREIGN: &str = "#!/bin/sh\necho '{\"status\":\"Success\"}'\n";

/// A node on which commands may change what they like.
fn node() -> Node {
    let node = Node::new();
    for directory in ["/etc", "/usr/libexec", "/var/lib"] {
        node.own(directory);
    }
    node
}

fn driver_in(place: &Path) -> PathBuf {
    place.join("cloudwatt~vaulttmpfs/vaulttmpfs")
}

fn run(node: &Node, arguments: &[&str]) -> Said {
    Said::by(&mut install(
        node,
        node.built_driver().to_str().unwrap(),
        arguments,
    ))
}

fn install(node: &Node, from: &str, arguments: &[&str]) -> Command {
    let mut command = node.command(&["install-driver", "--from", from]);
    command.args(arguments);
    command
}

/// It must have done well; what it said.
#[track_caller]
fn done(said: &Said) -> &str {
    assert_eq!((said.status, said.errors.as_str()), (0, ""), "{said:?}");
    &said.output
}

/// It must have refused with this status, and with these words.
#[track_caller]
fn refused(said: &Said, status: i32, words: &[&str]) {
    assert_eq!(said.status, status, "{said:?}");
    for word in words {
        assert!(said.errors.contains(word), "{word}: {said:?}");
    }
}

/// A driver of ours of another version.
fn older(node: &Node) -> PathBuf {
    let mut bytes = fs::read(node.built_driver()).unwrap();
    let mark = format!("vaulttmpfs-shim {} (Flex", env!("CARGO_PKG_VERSION"));
    let at = bytes
        .windows(mark.len())
        .position(|it| it == mark.as_bytes());
    bytes[at.expect("the driver's mark") + "vaulttmpfs-shim ".len()] = b'9';
    let path = node.path("older");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Mounts a volume of ours.
fn volume(node: &Node, uid: &str, id: &str) -> PathBuf {
    let directory = node.path(&format!(
        "kubelet/pods/{uid}/volumes/cloudwatt~vaulttmpfs/v"
    ));
    fs::create_dir_all(&directory).unwrap();
    let source = format!("vaulttmpfs:{}", id.repeat(32));
    mount(
        Some(&*source),
        &directory,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    directory
}

/// All names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        entries => entries.unwrap(),
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The events that a kubelet hears of a directory, names with a dot left out.
fn events(directory: &Path, meanwhile: impl FnOnce()) -> Vec<String> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    let all = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(directory, all).unwrap();
    meanwhile();
    let events = match inotify.read_events() {
        Err(nix::errno::Errno::EAGAIN) => Vec::new(),
        events => events.unwrap(),
    };
    let mut heard = Vec::new();
    for event in events {
        let name = event.name.unwrap_or_default().into_string().unwrap();
        if !name.starts_with('.') {
            let mut mask = event.mask;
            mask.remove(AddWatchFlags::IN_ISDIR);
            heard.push(format!("{mask:?} {name}"));
        }
    }
    heard
}

#[test]
fn a_kubelet_hears_of_one_rename_and_of_none_without_need() {
    let node = node();
    let place = node.path("plugins");
    let dir = ["--plugin-dir", place.to_str().unwrap()];
    let old = older(&node);
    let version = env!("CARGO_PKG_VERSION");

    let heard = events(&place, || {
        let said = Said::by(&mut install(&node, old.to_str().unwrap(), &dir));
        assert!(done(&said).starts_with("installed: "), "{said:?}");
    });
    assert_eq!(heard, ["AddWatchFlags(IN_MOVED_TO) cloudwatt~vaulttmpfs"]);
    assert_eq!(names(&place), ["cloudwatt~vaulttmpfs"]);
    let driver = driver_in(&place);
    assert_eq!(fs::read(&driver).unwrap(), fs::read(&old).unwrap());
    for path in [&driver, driver.parent().unwrap()] {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{}", path.display());
    }

    let heard = events(driver.parent().unwrap(), || {
        let said = run(&node, &["--update"]);
        let expected = format!("updated: {} (9", driver.display());
        assert!(done(&said).starts_with(&expected), "{said:?}");
        assert!(said.output.contains(&format!("→ {version})")), "{said:?}");
    });
    assert_eq!(heard, ["AddWatchFlags(IN_MOVED_TO) vaulttmpfs"]);
    assert_eq!(names(driver.parent().unwrap()), ["vaulttmpfs"]);

    for directory in [&place, driver.parent().unwrap()] {
        let heard = events(directory, || {
            for again in [&dir[..], &["--update"], &["--force", dir[0], dir[1]]] {
                let said = run(&node, again);
                assert!(done(&said).starts_with("unchanged: "), "{said:?}");
            }
        });
        assert!(heard.is_empty(), "{heard:?}");
    }
    // An empty directory, as a bad installation leaves it, is taken over by the same one rename.
    fs::remove_file(&driver).unwrap();
    let heard = events(&place, || {
        done(&run(&node, &dir));
    });
    assert_eq!(heard, ["AddWatchFlags(IN_MOVED_TO) cloudwatt~vaulttmpfs"]);
    assert_eq!(fs::read_to_string(LIST).unwrap().matches('\n').count(), 3);
}

#[test]
fn the_usual_place_is_made_and_taken_away_again() {
    in_own_namespaces(|| {
        let node = node();
        assert!(!Path::new("/usr/libexec/kubernetes").exists());
        done(&run(&node, &[]));
        let driver = driver_in(Path::new(USUAL));
        assert!(driver.exists());
        let said = Said::by(Command::new(&driver).arg("--version"));
        assert!(said.output.starts_with("vaulttmpfs-shim "));
        // As if the command had been killed before it was in the list: it is known all the same.
        fs::remove_file(LIST).unwrap();
        assert!(done(&run(&node, &["--update"])).starts_with("unchanged: "));
        assert!(fs::read_to_string(LIST).unwrap().contains(USUAL));
        assert!(done(&run(&node, &["--remove"])).starts_with("removed: "));
        assert!(!Path::new(LIST).parent().unwrap().exists());
        assert!(!Path::new("/usr/libexec/kubernetes").exists());
        // Listed, it is made again, as when it went with the driver that a removal had to leave.
        fs::create_dir(Path::new(LIST).parent().unwrap()).unwrap();
        fs::write(LIST, format!("{USUAL}\n")).unwrap();
        assert!(done(&run(&node, &["--update"])).starts_with("installed: "));
        assert!(driver.exists());
        done(&run(&node, &["--remove"]));
        // Nothing is left to do, and that is well.
        done(&run(&node, &["--remove"]));
        done(&run(&node, &["--update"]));

        // It stays for who watches it, as a kubelet does, whatever it is called.
        done(&run(&node, &[]));
        events(Path::new(USUAL), || {
            assert!(done(&run(&node, &["--remove"])).starts_with("removed: "));
            assert_eq!(names(Path::new(USUAL)), [""; 0]);
            assert!(Path::new(USUAL).exists());
        });
    });
}

#[test]
fn another_driver_stays_unless_by_force_and_comes_back() {
    in_own_namespaces(|| {
        let node = node();
        let place = node.path("plugins");
        let dir = ["--plugin-dir", place.to_str().unwrap()];
        let driver = driver_in(&place);
        fs::create_dir(driver.parent().unwrap()).unwrap();
        fs::write(&driver, FOREIGN).unwrap();
        fs::set_permissions(&driver, fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(driver.with_file_name("config"), "theirs").unwrap();
        let stays = || assert_eq!(fs::read_to_string(&driver).unwrap(), FOREIGN);

        let heard = events(driver.parent().unwrap(), || {
            let said = run(&node, &dir);
            refused(
                &said,
                3,
                &[
                    "another driver",
                    "install-driver --force --plugin-dir",
                    "--rollback",
                ],
            );
        });
        assert!(heard.is_empty(), "{heard:?}");
        stays();
        assert!(
            !Path::new(LIST).exists(),
            "what was not installed is not listed"
        );
        refused(
            &run(&node, &["--rollback", dir[0], dir[1]]),
            1,
            &["nothing to put back"],
        );

        // Listed by root, it is none of ours all the same.
        fs::create_dir_all(Path::new(LIST).parent().unwrap()).unwrap();
        fs::write(LIST, format!("{}\n", dir[1])).unwrap();
        refused(&run(&node, &["--update"]), 3, &["another driver"]);
        stays();

        // Its pod's volume would be unmounted by nobody.
        let theirs = node.path("kubelet/pods/u-1/volumes/cloudwatt~vaulttmpfs/v");
        fs::create_dir_all(&theirs).unwrap();
        mount(
            Some("tmpfs"),
            &theirs,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let said = run(&node, &["--force", dir[0], dir[1]]);
        refused(&said, 0, &[theirs.to_str().unwrap(), "by hand"]);
        assert_eq!(
            fs::read(&driver).unwrap(),
            fs::read(node.built_driver()).unwrap()
        );
        assert_eq!(names(driver.parent().unwrap()), ["config", "vaulttmpfs"]);

        // What is beside it is not ours to remove.
        refused(&run(&node, &["--remove"]), 3, &["config is not ours"]);

        let heard = events(driver.parent().unwrap(), || {
            let said = run(&node, &["--rollback", dir[0], dir[1]]);
            assert!(done(&said).starts_with("rolled back: "), "{said:?}");
        });
        assert_eq!(heard, ["AddWatchFlags(IN_MOVED_TO) vaulttmpfs"]);
        stays();
        let mode = fs::metadata(&driver).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert!(!Path::new(KEPT).exists() && !Path::new(LIST).exists());
        assert!(done(&run(&node, &["--remove", dir[0], dir[1]])).starts_with("not ours"));
        stays();
    });
}

#[test]
fn another_driver_comes_back_over_mounted_volumes_by_force_alone() {
    in_own_namespaces(|| {
        let node = node();
        let place = node.path("plugins");
        let dir = ["--plugin-dir", place.to_str().unwrap()];
        let driver = driver_in(&place);
        fs::create_dir(driver.parent().unwrap()).unwrap();
        let begin = || {
            fs::write(&driver, FOREIGN).unwrap();
            done(&run(&node, &["--force", dir[0], dir[1]]));
        };
        let back = ["--rollback", dir[0], dir[1], "--force"];
        let is_back = || assert_eq!(fs::read_to_string(&driver).unwrap(), FOREIGN);

        begin();
        let mounted = volume(&node, "uid-1", "1");
        let heard = events(driver.parent().unwrap(), || {
            let by_force = format!(
                "at once: vaulttmpfs install-driver --rollback --force {}",
                dir.join(" ")
            );
            refused(
                &run(&node, &back[..3]),
                3,
                &["with the uid uid-1", &by_force],
            );
        });
        assert!(heard.is_empty(), "{heard:?}");
        assert!(fs::read_to_string(LIST).unwrap().contains(dir[1]));
        done(&run(&node, &back));
        is_back();

        begin();
        nix::mount::umount(&mounted).unwrap();
        done(&run(&node, &back[..3]));
        is_back();
    });
}

#[test]
fn a_place_that_others_could_change_is_refused() {
    let node = node();
    let place = node.path("plugins");
    let dir = ["--plugin-dir", place.to_str().unwrap()];
    let nothing = || assert_eq!(names(&place), [""; 0]);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o775)).unwrap();
    refused(&run(&node, &dir), 1, &["chmod go-w"]);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&place, Some(1000), None).unwrap();
    refused(&run(&node, &dir), 1, &["chown root"]);
    chown(&place, Some(0), None).unwrap();
    nothing();
    // Root's own link is as good as the place.
    let link = node.path("link");
    symlink(&place, &link).unwrap();
    done(&run(&node, &["--plugin-dir", link.to_str().unwrap()]));
    assert!(driver_in(&place).exists());
    // A kubelet passes over a driver's directory behind a link.
    let other = node.path("other");
    fs::create_dir(&other).unwrap();
    symlink(
        driver_in(&place).parent().unwrap(),
        other.join("cloudwatt~vaulttmpfs"),
    )
    .unwrap();
    refused(
        &run(&node, &["--plugin-dir", other.to_str().unwrap()]),
        3,
        &["not a directory"],
    );

    for (named, words) in [
        ("/nowhere/at/all", "mkdir -p /nowhere/at/all"),
        ("/etc/hostname", "not a directory"),
    ] {
        refused(&run(&node, &["--plugin-dir", named]), 1, &[words]);
    }
    for bad in ["relative", "/a/../b", ""] {
        refused(&run(&node, &["--plugin-dir", bad]), 64, &["--plugin-dir"]);
    }
    for from in ["/bin/true", "/nowhere", "/dev/zero"] {
        refused(&Said::by(&mut install(&node, from, &dir)), 1, &[from]);
    }
    refused(
        &run(&node, &["--update", "--rollback"]),
        64,
        &["cannot be used with"],
    );
    let mut user = Command::new("setpriv");
    user.args(["--reuid=64321", "--clear-groups", "--"]);
    let command = node.command(&["install-driver"]);
    user.arg(command.get_program()).args(command.get_args());
    refused(&Said::by(&mut user), 1, &["as root"]);

    // The list's bad lines are named, its good ones count.
    let list = fs::read_to_string(LIST).unwrap();
    fs::write(LIST, format!("nonsense\n{list}/nowhere/either\n")).unwrap();
    let said = run(&node, &["--update"]);
    refused(
        &said,
        1,
        &["line 1 of", "nonsense", "/nowhere does not exist"],
    );
    assert!(said.output.starts_with("unchanged: "), "{said:?}");
    fs::set_permissions(LIST, fs::Permissions::from_mode(0o666)).unwrap();
    refused(
        &run(&node, &["--update"]),
        1,
        &["others than root may write"],
    );
}

#[test]
fn a_file_system_that_is_full_read_only_or_noexec_is_named() {
    let node = node();
    let place = node.path("plugins");
    let dir = ["--plugin-dir", place.to_str().unwrap()];
    for (flags, options, words) in [
        (MsFlags::MS_RDONLY, "mode=0755", "--volume-plugin-dir"),
        (MsFlags::MS_NOEXEC, "mode=0755", "mounted noexec"),
        (MsFlags::empty(), "mode=0755,size=64k", "make room"),
    ] {
        mount(Some("place"), &place, Some("tmpfs"), flags, Some(options)).unwrap();
        refused(&run(&node, &dir), 1, &[words]);
        assert_eq!(names(&place), [""; 0], "{words}");
    }
    assert!(!Path::new(LIST).exists());
}

#[test]
fn another_plugin_directory_is_advised_where_that_is_read_only_and_nowhere_else() {
    in_own_namespaces(|| {
        let node = node();
        let place = node.path("plugins");
        let dir = ["--plugin-dir", place.to_str().unwrap()];
        // What is on a file system that is read-only meanwhile, and what is said then.
        let read_only = |at: &Path, arguments: &[&str]| {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(at), at, None::<&str>, bind, None::<&str>).unwrap();
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, at, None::<&str>, flags, None::<&str>).unwrap();
            let said = run(&node, arguments);
            nix::mount::umount(at).unwrap();
            refused(&said, 1, &["Read-only file system"]);
            said.errors.contains("--volume-plugin-dir")
        };
        assert!(read_only(&place, &dir));
        assert!(!read_only(Path::new("/etc"), &dir), "the list");
        done(&run(&node, &dir));
        assert!(!read_only(&place, &["--remove"]));
        fs::write(driver_in(&place), FOREIGN).unwrap();
        let kept = Path::new("/var/lib");
        assert!(
            !read_only(kept, &["--force", dir[0], dir[1]]),
            "what is kept"
        );
    });
}

#[test]
fn a_place_is_taken_out_of_the_list_by_what_it_is() {
    in_own_namespaces(|| {
        let node = node();
        let place = node.path("plugins");
        let link = node.path("link");
        symlink(&place, &link).unwrap();
        let remove = |named: &Path| {
            run(
                &node,
                &["--remove", "--plugin-dir", named.to_str().unwrap()],
            )
        };
        for (one, other) in [(&link, &place), (&place, &link)] {
            done(&run(&node, &["--plugin-dir", one.to_str().unwrap()]));
            done(&remove(other));
            assert!(!Path::new(LIST).exists(), "{}", one.display());
        }
        // One that cannot be looked at may have the driver.
        let round = node.path("round");
        symlink(&round, &round).unwrap();
        fs::create_dir_all(Path::new(LIST).parent().unwrap()).unwrap();
        fs::write(LIST, format!("{}\n", round.display())).unwrap();
        refused(&remove(&round), 1, &["too many symbolic links"]);
        assert!(Path::new(LIST).exists());
        // One that is gone has none.
        fs::remove_file(&round).unwrap();
        assert!(done(&remove(&round)).starts_with("nothing there: "));
        assert!(!Path::new(LIST).exists());
    });
}

#[test]
fn the_driver_stays_as_long_as_it_is_needed() {
    in_own_namespaces(|| {
        let node = node();
        let place = node.path("plugins");
        let dir = ["--plugin-dir", place.to_str().unwrap()];
        let driver = driver_in(&place);
        done(&run(&node, &dir));
        let stays = |words: &[&str]| {
            let heard = events(&place, || {
                let said = run(&node, &["--remove"]);
                refused(&said, 3, words);
                refused(
                    &said,
                    3,
                    &["mv cloudwatt~vaulttmpfs .vaulttmpfs-removed && rm -r"],
                );
            });
            assert!(heard.is_empty() && driver.exists(), "{heard:?}");
        };

        let mounted = [volume(&node, "uid-1", "1"), volume(&node, "uid-2", "2")];
        // The second is in the journal, which is another user's and may say anything.
        let record = Path::new("/var/lib/vaulttmpfs/volumes").join("2".repeat(32));
        fs::create_dir_all(record.parent().unwrap()).unwrap();
        let pod = |name: &str| {
            let pod = format!(
                r#"{{"uid":"uid-2","name":"{name}","namespace":"shop","service_account":""}}"#
            );
            fs::write(&record, format!(r#"{{"pod":{pod}}}"#)).unwrap();
        };
        pod("web-0");
        stays(&["shop/web-0", "with the uid uid-1"]);
        pod("\\u001b[31mred");
        stays(&["with the uid uid-1, with the uid uid-2"]);
        for at in &mounted {
            nix::mount::umount(at).unwrap();
        }

        // A kubelet may be called otherwise, and alone see its mounts.
        let hidden = node.path("kubelet/pods/uid-4/volumes/cloudwatt~vaulttmpfs/v");
        fs::create_dir_all(&hidden).unwrap();
        let script = "mount -t tmpfs vaulttmpfs:$1 $2 && echo mounted && exec sleep 1000";
        let mut kubelet = Command::new("unshare");
        kubelet
            .args(["--mount", "--propagation", "private", "--"])
            .args(["sh", "-c", script, "sh", &"4".repeat(32)])
            .arg(&hidden);
        let mut kubelet = kubelet.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 8];
        kubelet
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        stays(&["with the uid uid-4"]);
        kubelet.kill().unwrap();
        kubelet.wait().unwrap();

        // A call that runs may yet mount one.
        let socket = UnixListener::bind(node.socket()).unwrap();
        let target = node.path("kubelet/pods/uid-3/volumes/cloudwatt~vaulttmpfs/v");
        fs::create_dir_all(&target).unwrap();
        let mut call = Command::new(&driver);
        call.arg("mount")
            .arg(&target)
            .arg("{}")
            .env("VAULTTMPFS_SOCKET", node.socket());
        let mut call = call.stdout(Stdio::null()).spawn().unwrap();
        let (_connection, _) = socket.accept().unwrap();
        stays(&[&format!("process {}", call.id())]);
        call.kill().unwrap();
        call.wait().unwrap();

        let heard = events(&place, || {
            assert!(done(&run(&node, &["--remove"])).starts_with("removed: "));
        });
        assert_eq!(heard, ["AddWatchFlags(IN_MOVED_FROM) cloudwatt~vaulttmpfs"]);
        assert_eq!(names(&place), [""; 0]);
    });
}

#[test]
fn two_commands_take_turns() {
    let node = node();
    let place = node.path("plugins");
    let from = node.built_driver();
    let dir = ["--plugin-dir", place.to_str().unwrap()];
    let commands: Vec<_> = (0..4)
        .map(|_| {
            install(&node, from.to_str().unwrap(), &dir)
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect();
    let mut said: Vec<String> = commands
        .into_iter()
        .map(|command| {
            let output = command.unwrap().wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    said.sort();
    assert!(said[0].starts_with("installed: "), "{said:?}");
    assert!(
        said[1..].iter().all(|it| it.starts_with("unchanged: ")),
        "{said:?}"
    );
    assert_eq!(names(&place), ["cloudwatt~vaulttmpfs"]);
}

#[test]
fn commands_for_several_places_list_them_all() {
    in_own_namespaces(|| {
        let node = node();
        let from = node.built_driver();
        let places: Vec<String> = (0..16)
            .map(|number| {
                let place = node.path(&format!("plugins-{number}"));
                fs::create_dir(&place).unwrap();
                place.into_os_string().into_string().unwrap()
            })
            .collect();
        let all_at_once = |what: &[&str]| {
            let commands: Vec<_> = places
                .iter()
                .map(|place| {
                    let arguments = [what, &["--plugin-dir", place]].concat();
                    install(&node, from.to_str().unwrap(), &arguments)
                        .stdout(Stdio::null())
                        .spawn()
                })
                .collect();
            for command in commands {
                assert!(command.unwrap().wait().unwrap().success());
            }
        };
        all_at_once(&[]);
        let list = fs::read_to_string(LIST).unwrap();
        let mut listed: Vec<&str> = list.lines().filter(|it| it.starts_with('/')).collect();
        let mut expected: Vec<&str> = places.iter().map(String::as_str).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
        // The last one takes the list away, and its directory.
        all_at_once(&["--remove"]);
        assert!(!Path::new(LIST).parent().unwrap().exists());
    });
}

/// What a kubelet may find: nothing, or one of these programs, whole.
#[track_caller]
fn assert_whole(place: &Path, may_be: &[&[u8]], may_be_nothing: bool) {
    let mut seen = names(place);
    seen.retain(|name| !name.starts_with('.'));
    if seen.is_empty() {
        assert!(may_be_nothing);
        return;
    }
    assert_eq!(seen, ["cloudwatt~vaulttmpfs"]);
    let driver = driver_in(place);
    assert_eq!(names(driver.parent().unwrap()), ["vaulttmpfs"]);
    let there = fs::read(&driver).unwrap();
    assert!(
        may_be.iter().any(|bytes| *bytes == there),
        "a driver of {} bytes",
        there.len()
    );
    assert_eq!(
        fs::metadata(&driver).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

/// Kills the command at each of its calls of the kernel, each time from the same beginning.
fn kill_everywhere(node: &Node, begin: impl Fn(&Node), arguments: &[&str], check: impl Fn(&Node)) {
    let place = node.path("plugins");
    let from = node.built_driver();
    let mut arguments = arguments.to_vec();
    arguments.extend(["--plugin-dir", place.to_str().unwrap()]);
    let mut kills = 0;
    for number in 0.. {
        begin(node);
        let command = install(node, from.to_str().unwrap(), &arguments);
        let killed = kill_at_change(&command, number);
        check(node);
        // Whoever comes again ends it.
        done(&run(node, &arguments));
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 5, "{kills} kills");
}

#[test]
fn killed_at_any_call_it_leaves_a_whole_driver() {
    in_own_namespaces(|| {
        let node = &node();
        let clear = |node: &Node| {
            let place = node.path("plugins");
            for name in names(&place) {
                fs::remove_dir_all(place.join(name)).unwrap();
            }
            let _ = fs::remove_file(LIST);
        };
        let new = |node: &Node| fs::read(node.built_driver()).unwrap();
        kill_everywhere(node, clear, &[], |node| {
            assert_whole(&node.path("plugins"), &[&new(node)], true);
        });
        let old = |node: &Node| {
            clear(node);
            let driver = driver_in(&node.path("plugins"));
            fs::create_dir(driver.parent().unwrap()).unwrap();
            fs::copy(older(node), driver).unwrap();
        };
        kill_everywhere(node, old, &[], |node| {
            let before = fs::read(older(node)).unwrap();
            assert_whole(&node.path("plugins"), &[&new(node), &before], false);
        });
        kill_everywhere(node, old, &["--remove"], |node| {
            let before = fs::read(older(node)).unwrap();
            assert_whole(&node.path("plugins"), &[&before], true);
        });
    });
}
