//! Measures what README.md says under "Measured". `tests/bench` builds what it needs and starts it.
//!
//! Machines are noisy: the sides of a comparison are taken in turn in one run, and what is demanded is
//! a ratio between them.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on ends, naming the place"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "figures for people: three digits of them count"
)]

mod agent;
mod bare;
mod burst;
mod driver;
mod fleet;
mod mount;
mod one_shot;
mod process;
mod sides;
mod table;

use serde_json::json;
use sides::Sides;
use table::Table;
use vaulttmpfs_tests::{Lab, Role};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, directory, options] = &arguments[..]
        && verb == "mount"
    {
        // As the one-shot in Rust of the burst.
        return one_shot::mount(directory, options);
    }
    let [_, directory] = &arguments[..] else {
        panic!("usage: bench DIRECTORY, with the programs to compare in it");
    };
    let mut table = Table::default();
    {
        let lab = lab();
        let sides = Sides::new(&lab, directory.as_ref());
        driver::measure(&lab, &sides, &mut table);
        mount::measure(&lab, &sides, &mut table);
        burst::measure(&lab, &sides, &mut table);
        agent::over(&lab);
    }
    agent::measure(directory.as_ref(), &mut table);
    fleet::measure(&mut table);
    table.print();
    table.write(&std::path::Path::new(directory).join("bench.json"));
}

/// A node whose volumes end without a word to Vault: revocations would be at work beside whatever is
/// measured next.
fn lab() -> Lab {
    Lab::builder()
        .applications(&json!({"period": "24h"}))
        .role(Role::new("short", &json!({"period": "6s"})))
        .set("VAULTTMPFS_REVOKE", "false")
        .start()
}
