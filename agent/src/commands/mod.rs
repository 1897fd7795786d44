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
pub mod support_bundle;
pub mod volumes;

use crate::client::{self, Unseen};
use crate::exit::Exit;
use std::io::Write;

/// The outcome of a command that has one sentence to say.
fn outcome(outcome: Result<String, String>) -> Exit {
    match outcome {
        Ok(done) => {
            say(&done);
            Exit::Done
        }
        Err(problem) => {
            complain(&problem);
            Exit::Failed
        }
    }
}

/// The end of a command that could not see what the agent shows.
fn unseen(unseen: Unseen) -> Exit {
    match unseen {
        Unseen::NoAnswer(problem) => {
            complain(&problem);
            Exit::NotRunning
        }
        Unseen::Refused(problem) => {
            complain(&problem);
            Exit::Failed
        }
    }
}

/// A whole text on standard output, at once; one that nobody reads is no failure.
fn show(text: &str) {
    let mut output = std::io::stdout();
    let _ = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
}

/// A line on standard output; one that nobody reads is no failure.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "vaulttmpfs: {line}");
}
