//! README.md, whose commands the tests run.

use std::fs;
use std::path::{Path, PathBuf};

/// The checkout.
#[must_use]
pub fn source_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The whole text.
#[must_use]
pub fn readme() -> String {
    fs::read_to_string(source_tree().join("README.md")).expect("README.md")
}

/// The blocks after `<!-- run: NAME -->`, one after the other.
#[must_use]
pub fn readme_block(name: &str) -> String {
    let marker = format!("<!-- run: {name} -->\n");
    let readme = readme();
    let blocks: Vec<&str> = readme
        .split(&marker)
        .skip(1)
        .map(|after| {
            let (_, inner) = after.split_once('\n').expect("a fence");
            inner.split_once("\n```").expect("the fence's end").0
        })
        .collect();
    assert!(!blocks.is_empty(), "no block {name}");
    blocks.join("\n")
}
