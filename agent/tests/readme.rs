//! README.md says what the code says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, naming the place"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands between two markers.
fn section(name: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let (_, rest) = readme.split_once(&begin).expect("the begin marker");
    let (section, _) = rest.split_once(&end).expect("the end marker");
    section.to_owned()
}

/// The first cells of a table's rows, its head aside.
fn first_cells(table: &str) -> Vec<&str> {
    table
        .lines()
        .skip(2)
        .map(|row| row.split('|').nth(1).expect("a row of a table"))
        .collect()
}

#[test]
fn the_table_of_variables_is_the_codes() {
    let table = vaulttmpfs::config::table();
    assert_eq!(section("variables"), table, "put this there:\n{table}");
}

#[test]
fn the_table_of_options_has_each_of_them() {
    let section = section("options");
    let named: Vec<&str> = first_cells(&section)
        .into_iter()
        .map(|cell| cell.trim().trim_matches('`'))
        .collect();
    assert_eq!(named, vaulttmpfs::options::KNOWN);
}

#[test]
fn the_messages_are_in_the_code() {
    let mut code = String::new();
    for crate_root in ["agent/src", "shim/src"] {
        read_all(&root().join(crate_root), &mut code);
    }
    let section = section("messages");
    let messages = first_cells(&section);
    assert!(messages.len() > 10, "{messages:?}");
    for message in messages {
        for fragment in message.trim().split('…') {
            let fragment = fragment.trim();
            assert!(
                code.contains(fragment),
                "{fragment:?} of {message:?} is in no source"
            );
        }
    }
}

fn read_all(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, text);
        } else {
            *text += &fs::read_to_string(path).expect("a source");
        }
    }
}
