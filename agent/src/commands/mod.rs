//! The commands of the `vaulttmpfs` program, one a file.

pub mod adopt;
pub mod agent;
pub mod bootstrap;
pub mod check;
pub mod completions;
pub mod install_driver;
pub mod migrate;
pub mod reload;
pub mod renew_token;
pub mod revocations;
pub mod status;

use crate::client;
use crate::exit::Exit;
use std::io::Write;

/// The outcome of a command that has one sentence to say.
fn outcome(outcome: Result<&str, String>) -> Exit {
    match outcome {
        Ok(done) => {
            say(done);
            Exit::Done
        }
        Err(problem) => {
            complain(&problem);
            Exit::Failed
        }
    }
}

/// A line on standard output; one that nobody reads is no failure.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "vaulttmpfs: {line}");
}
