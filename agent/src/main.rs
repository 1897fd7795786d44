//! The `vaulttmpfs` program.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use vaulttmpfs::commands;
use vaulttmpfs::exit::Exit;

/// Hands the node's Kubernetes pods their Vault credentials.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the node's mounts until told to stop.
    ///
    /// Settings are environment variables, those of Vault's own tools and some of its own. A bad one does not end the agent: it answers
    /// every mount with all that is wrong.
    Agent,
}

const AFTER_HELP: &str = "The kubelet runs the driver, not this program; see README.md for both.";

fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way, too.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    vaulttmpfs::logging::start();
    vaulttmpfs::guard::no_traces();
    match arguments.command {
        Command::Agent => commands::agent::run(),
    }
}
