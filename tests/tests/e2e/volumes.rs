//! `vaulttmpfs volumes`: the table, its filters, and how it looks where.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, Pod, Role, Said, Terminal, eventually_within, text};

const SOON: Duration = Duration::from_secs(60);

/// Longer than any column at 80 characters leaves it.
const LONG: &str = "a-pod-with-a-name-that-is-as-long-as-a-name-can-be-in-kubernetes";

fn mount(lab: &Lab, pod: &Pod, name: &str, options: &[(&str, &str)]) {
    let volume = lab.kubelet.volume(pod, name);
    let options = options
        .iter()
        .fold(lab.options(), |all, (key, value)| all.with(key, value));
    lab.kubelet.mount(&volume, &options).assert_success();
}

/// A lab with four volumes: of one pod the token is lost, and one is ended with its revocation owed.
fn lab() -> Lab {
    let lab = Lab::builder()
        .role(Role::new("plain", &json!({})))
        // The agent learns of a loss when it renews.
        .role(Role::new("brief", &json!({ "period": "12s" })))
        .start();
    mount(
        &lab,
        &Pod::new(LONG),
        "vault",
        &[("vault/policies", "app,other")],
    );
    let bank = Pod {
        namespace: "bank".into(),
        ..Pod::new("web-0")
    };
    let plain = [("vault/role", "plain"), ("vault/unwrap", "true")];
    mount(&lab, &bank, "vault", &plain);
    mount(
        &lab,
        &Pod::new("lost-0"),
        "vault",
        &[("vault/role", "brief")],
    );
    let lost = lab.agent.volumes();
    let lost = lost
        .iter()
        .find(|one| one["pod"]["name"] == "lost-0")
        .unwrap();
    let record = lab
        .node
        .record_of(text(&lost["mount_dir"]).as_ref())
        .unwrap();
    let body = json!({ "accessor": record["accessor"] });
    lab.vault.root().write("auth/token/revoke-accessor", &body);
    assert_eq!(lab.command(&["revocations", "hold"]).status, 0);
    let ended = lab.kubelet.volume(&Pod::new("ended-0"), "vault");
    lab.kubelet.mount(&ended, &lab.options()).assert_success();
    lab.kubelet.unmount(&ended).assert_success();
    eventually_within(SOON, "the loss to be known", || {
        let all = lab.agent.volumes();
        all.iter()
            .any(|one| one["condition"] == "lost")
            .then_some(())
    });
    lab
}

#[track_caller]
fn list(lab: &Lab, filters: &[&str]) -> Said {
    let said = lab.command(&[&["volumes"], filters].concat());
    assert_eq!(said.status, 0, "{said:?}");
    said
}

/// The names of the pods whose volumes are listed, in JSON and in the table.
#[track_caller]
fn pods(lab: &Lab, filters: &[&str]) -> Vec<String> {
    let json: Value =
        serde_json::from_str(&list(lab, &[&["--json"], filters].concat()).output).expect("JSON");
    let listed = json["volumes"].as_array().unwrap().iter();
    let mut names: Vec<String> = listed.map(|one| text(&one["pod"]["name"])).collect();
    let table = list(lab, filters).output;
    let mut rows: Vec<String> = table
        .lines()
        .skip(1)
        .map(|line| {
            let place = line.split_whitespace().next().unwrap();
            place.split_once('/').unwrap().1.to_owned()
        })
        .collect();
    names.sort();
    rows.sort();
    assert_eq!(names, rows);
    names
}

#[test]
fn filters_choose_the_same_for_people_and_programs() {
    let lab = lab();
    let all = [LONG, "ended-0", "lost-0", "web-0"];
    for (filters, expected) in [
        (&[][..], &all[..]),
        (&["--state", "attached"], &[LONG, "web-0"]),
        (&["--state", "ended"], &["ended-0"]),
        (
            &["--state", "lost", "--state", "ended"],
            &["ended-0", "lost-0"],
        ),
        (&["--state", "unmanaged"], &[]),
        (&["--namespace", "shop"], &[LONG, "ended-0", "lost-0"]),
        (&["-n", "bank"], &["web-0"]),
        (&["-n", "none"], &[]),
        (&["--pod", "web-0"], &["web-0"]),
        (&["--pod", "web-0", "-n", "shop"], &[]),
        (&["--older", "30d"], &[]),
        (&["--older", "0s", "--pod", "lost-0"], &["lost-0"]),
    ] {
        assert_eq!(pods(&lab, filters), expected, "{filters:?}");
    }
    for bad in [["--state", "gone"], ["--older", "old"], ["--older", "-1d"]] {
        let said = lab.command(&[&["volumes"], &bad[..]].concat());
        assert_eq!(said.status, 64, "{said:?}");
    }
    let said = lab.command(&["volumes", "--state", "gone"]);
    assert!(said.errors.contains("not-unwrapped"), "the words: {said:?}");
    assert_eq!(lab.command(&["revocations", "release"]).status, 0);
}

#[test]
fn a_pipe_gets_all_and_a_terminal_what_fits() {
    let lab = lab();
    let pipe = list(&lab, &[]).output;
    assert!(!pipe.contains('\u{1b}') && !pipe.contains('…'), "{pipe}");
    let row = pipe.lines().find(|line| line.contains(LONG)).unwrap();
    let fields: Vec<&str> = row.split_whitespace().collect();
    let place = format!("shop/{LONG}");
    assert_eq!(
        fields[..4],
        [place.as_str(), "vault", "applications", "app,other"]
    );
    assert_eq!(fields.last(), Some(&"attached"));
    assert!(
        pipe.lines()
            .any(|line| line.contains("ended-0") && line.contains(" -  ")),
        "{pipe}"
    );

    let mut command = lab.node.command(&["volumes"]);
    let coloured = on_terminal(command.env("TERM", "xterm"), 80);
    assert!(coloured.contains("\u{1b}[31mlost\u{1b}[0m"), "{coloured:?}");
    let bare = on_terminal(command.env("NO_COLOR", "1"), 80);
    assert!(!bare.contains('\u{1b}'), "{bare:?}");
    // An empty one is none (https://no-color.org).
    assert!(on_terminal(command.env("NO_COLOR", ""), 80).contains('\u{1b}'));
    assert!(!on_terminal(command.env("TERM", "dumb"), 80).contains('\u{1b}'));
    assert_eq!(bare.lines().count(), 5, "{bare}");
    for line in bare.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    let row = bare
        .lines()
        .find(|line| line.starts_with("shop/a-pod-"))
        .unwrap();
    assert!(row.contains('…') && row.ends_with("attached"), "{row}");
    let wide = on_terminal(command.env("NO_COLOR", "1"), 200);
    assert!(wide.contains(LONG) && !wide.contains('…'), "{wide}");
    assert_eq!(lab.command(&["revocations", "release"]).status, 0);
}

/// What a command shows on a terminal with so many columns.
#[track_caller]
fn on_terminal(command: &std::process::Command, columns: u16) -> String {
    let (status, screen) = Terminal::run_sized(command, columns, 24).end();
    assert_eq!(status, 0, "{screen}");
    let screen = screen.replace("\r\n", "\n");
    let table = screen.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let lines = table.lines().filter(|line| !line.contains("that is all"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn hostile_names_do_nothing_to_a_terminal() {
    let lab = Lab::start();
    let turned = "abc\u{202e}txt";
    mount(&lab, &Pod::new(turned), "vault", &[]);
    let shown = "abc\\u{202e}txt";
    let pipe = list(&lab, &[]).output;
    assert!(pipe.contains(shown) && !pipe.contains('\u{202e}'), "{pipe}");
    let terminal = on_terminal(&lab.node.command(&["volumes"]), 120);
    assert!(
        terminal.contains(shown) && !terminal.contains('\u{202e}'),
        "{terminal}"
    );
}

#[test]
fn a_thousand_are_listed_at_once() {
    let mut lab = Lab::start();
    let _ = lab.mounted(&lab.options());
    let _ = lab.agent.stop();
    let (path, record) = lab.node.records().remove(0);
    let owner = fs::metadata(&path).unwrap();
    for number in 1..1000 {
        let mut copy = record.clone();
        let id = format!("{number:032x}");
        let uid = format!("{number:032x}");
        copy["mount_dir"] = text(&record["mount_dir"])
            .replace(&text(&record["pod"]["uid"]), &uid)
            .into();
        copy["id"] = id.clone().into();
        copy["pod"]["uid"] = uid.into();
        copy["pod"]["name"] = format!("web-{number}").into();
        let path = path.with_file_name(id);
        fs::write(&path, copy.to_string()).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    lab.agent.start();
    lab.agent.wait_until_serving();
    let begun = Instant::now();
    let said = Said::by(&mut lab.node.command(&["volumes"]));
    let took = begun.elapsed();
    assert_eq!(said.output.lines().count(), 1001);
    println!("1000 volumes in {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn without_an_agent() {
    let mut lab = Lab::start();
    let _ = lab.agent.stop();
    let said = lab.command(&["volumes"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.errors.contains("no agent serves"), "{said:?}");
    assert_eq!(said.output, "");
}
