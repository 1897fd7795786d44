//! `vaulttmpfs check`: a doctor for the node.

use super::{say, show};
use crate::check::{self, Level, Wish};
use crate::exit::Exit;
use crate::screen::Screen;
use clap::Args;
use std::path::PathBuf;

/// What is to be looked at, and how it is told.
#[derive(Args, Debug)]
pub struct Check {
    /// Make a token as for a pod, wrapped, and end it at once. It would end by itself in a minute.
    #[arg(long)]
    mint: bool,
    /// The file with the settings, where not the agent's own.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(check: Check) -> Exit {
    let report = check::report(&Wish {
        mint: check.mint,
        settings: check.env_file,
    });
    if check.json {
        say(&report.json());
    } else {
        show(&report.text(&Screen::of_output()));
    }
    if report.result() == Level::Failure {
        Exit::Failed
    } else {
        Exit::Done
    }
}
