//! `vaulttmpfs completions`: prints what a shell completes. The packages install it.

use crate::exit::Exit;
use clap_complete::Shell;
use std::io::Write;

/// Runs the command.
#[must_use]
pub fn run(shell: Shell, program: &mut clap::Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, program, "vaulttmpfs", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
