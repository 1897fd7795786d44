//! The manual pages and the defaults file say what the code says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, naming the place"
)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use vaulttmpfs::config::{VARIABLES, Variable};

fn packaged(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    fs::read_to_string(path.join(name)).expect(name)
}

/// What stands between two markers of a manual page.
fn section(page: &str, name: &str) -> String {
    let page = packaged(page);
    let (begin, end) = (
        format!(".\\\" {name}: begin\n"),
        format!(".\\\" {name}: end\n"),
    );
    let (_, rest) = page.split_once(&begin).expect("the begin marker");
    let (section, _) = rest.split_once(&end).expect("the end marker");
    section.to_owned()
}

/// A setting as vaulttmpfs(5) has it.
fn item(variable: &Variable) -> String {
    let mut item = format!(".It Ev {}\n", variable.names.join(" , "));
    // Markdown's code is what a manual shows in bold.
    let mut bold = false;
    for part in variable.about.split('`') {
        let _ = write!(item, "{}{part}", if bold { "\\fB" } else { "" });
        item += if bold { "\\fR" } else { "" };
        bold = !bold;
    }
    item = item.replace(". ", ".\n").replace(": ", ":\n");
    if !variable.default.is_empty() {
        let _ = write!(item, "\nDefault:\n.Ql {} .", variable.default);
    }
    item + "\n"
}

#[test]
fn the_manual_has_every_setting() {
    let items: String = VARIABLES.iter().map(item).collect();
    let items = format!(".Bl -tag -width Ds\n{items}.El\n");
    assert_eq!(
        section("man/vaulttmpfs.5", "settings"),
        items,
        "put this there:\n{items}"
    );
}

#[test]
fn the_defaults_file_names_settings_only_and_sets_none() {
    let file = packaged("defaults");
    let mut named = 0;
    for line in file.lines().filter(|line| !line.is_empty()) {
        let comment = line.strip_prefix('#').expect("only comments");
        let Some((name, default)) = comment
            .split_once('=')
            .filter(|_| !comment.starts_with(' '))
        else {
            continue;
        };
        let variable = VARIABLES
            .iter()
            .find(|variable| variable.names.contains(&name))
            .unwrap_or_else(|| panic!("{name} is no setting"));
        assert!(
            variable.default == default || !default.starts_with(char::is_numeric),
            "{line}: its default is {}",
            variable.default
        );
        named += 1;
    }
    assert!(named > 3, "{file}");
}

fn help(arguments: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_vaulttmpfs"));
    let output = program.args(arguments).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The first words of the lines below a heading of a help text.
fn listed(help: &str, heading: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1);
    lines
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

#[test]
fn the_manual_has_every_command_and_option() {
    let manual = section("man/vaulttmpfs.1", "commands");
    let general = help(&[]);
    let (_, commands) = general.split_once("Commands:\n").expect("commands");
    let (commands, _) = commands.split_once("\n\n").expect("an end of them");
    let names = commands
        .lines()
        .map(|line| line.split_whitespace().next().expect("a command"));
    for name in names.filter(|name| *name != "help") {
        let entry = format!(".It Ic {name}");
        let (_, entry) = manual
            .split_once(&entry)
            .unwrap_or_else(|| panic!("vaulttmpfs(1) has no {entry:?}"));
        let entry = entry.split("\n.It Ic").next().unwrap_or_default();
        for option in listed(&help(&[name]), "Options:") {
            // A value that may be left out stands right behind.
            let option = option.split('[').next().unwrap_or_default();
            let Some(long) = option.strip_prefix("--").filter(|long| *long != "help") else {
                continue;
            };
            assert!(
                entry.contains(&format!("Fl -{long}")),
                "vaulttmpfs(1) has no --{long} for {name}"
            );
        }
    }
}
