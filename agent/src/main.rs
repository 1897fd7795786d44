//! The `vaulttmpfs` program.
#![forbid(unsafe_code)]

use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use vaulttmpfs::commands;
use vaulttmpfs::config::{self, ProcessEnvironment};
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
    /// Settings are environment variables, those of Vault's own tools and some of its own. Under systemd a bad one does not end the
    /// agent: it answers every mount with all that is wrong. Exit status: 0 told to stop, 64 bad settings, 69 the socket or the state
    /// directory is another's.
    Agent,
    /// Show how the running agent is: whether it is ready, and if not why and what to do.
    ///
    /// Exit status: 0 it is ready, 1 it is not, or something is wrong, 2 no agent answers.
    Status(commands::status::Status),
    /// List the node's volumes.
    ///
    /// Exit status: 0 the list is printed, 1 the agent has none to show, 2 no agent answers.
    Volumes(commands::volumes::Volumes),
    /// Look for what is wrong with this node, before the install and after it, and say what to do.
    ///
    /// Settings are those of the environment, and behind them those of the agent's unit, or of its file of settings. Exit status: 0
    /// nothing is wrong, warnings aside, 1 something is.
    Check(commands::check::Check),
    /// Have the running agent take the generator token that is in its file now (root).
    ///
    /// It takes it only once Vault knows it and lets it create tokens: else the token in use stays. Exit status: 0 taken, 1 refused, 2
    /// there is no agent.
    Reload {
        /// The environment is what the agent would be started with now, as in a unit's `ExecReload=`: where it is good and differs, the
        /// agent finishes what it has accepted and ends, and systemd starts it anew.
        #[arg(long)]
        settings_from_environment: bool,
    },
    /// Make this node's generator token, and put it where the agent looks for it.
    ///
    /// Logs in at Vault by `ldap` or `userpass`, or takes the token in `VAULT_TOKEN`, or one that is shipped wrapped. What is not given is
    /// asked for where standard input is a terminal. A good token that is there already is kept. The login's token is revoked at the
    /// end. Settings are the agent's: those of the environment, and else of its file. Exit status: 0 a good token is in place, 1
    /// something failed, 64 wrong arguments or bad settings, 65 the wrapped token is spent or not of a token's making, 69 Vault cannot
    /// be asked, 77 Vault refused the login or a right, 130 interrupted. Unless it is 0, every token that it got is ended, or it says
    /// which could not be.
    Bootstrap(Box<commands::bootstrap::Bootstrap>),
    /// Renew the generator token now, once (root).
    ///
    /// By the running agent, or else with the token in its file. Exit status: 0 renewed, 1 it was not, and why, 64 bad settings, 69
    /// Vault cannot be asked, 77 Vault refused it.
    RenewToken,
    /// Write what there is to know of this node into one archive, nothing secret among it (root).
    ///
    /// Status, check, volumes, metrics, settings, the units' state, the volumes' mounts and the last 1,000 lines of the log. A part that cannot be
    /// had says why. Exit status: 0 it is written, 1 it is not.
    SupportBundle {
        /// The archive's file, a .tar.gz for root alone; by default one named after the node and the time, in this directory.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Hold all revocations, or let them go on (root).
    #[command(subcommand)]
    Revocations(commands::revocations::Revocations),
    /// Hand the agent the volumes that are mounted and that it does not know (root).
    ///
    /// For the case that its state directory was lost. Exit status: 0 when all were taken up.
    Adopt,
    /// Put the driver where the kubelet looks for it (root).
    ///
    /// By one rename: a kubelet that runs sees the old driver or the new one. A driver of this name that is not ours is replaced
    /// only by force. The directories are kept in /etc/vaulttmpfs/driver-dirs. Exit status: 0 all is as asked for, 1 something failed,
    /// 3 something was left alone on purpose, and what to do.
    InstallDriver(commands::install_driver::InstallDriver),
    /// Make the agent's file of settings from the kubelet's environment, where the first plugin had its own (root).
    ///
    /// Looks at VAULT_*, BAO_* and VAULTTMPFS_* of the kubelets that run and of kubelet.service. Prints what the file would be; secrets
    /// are neither printed nor written. Exit status: 0 all was taken over, 1 something is wrong, and what.
    Migrate {
        /// Write it; the old file is kept beside it.
        #[arg(long)]
        write: bool,
    },
    /// Print this program's completions for a shell.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
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
    let _log = vaulttmpfs::logging::start(config::logging(&ProcessEnvironment));
    vaulttmpfs::guard::no_traces();
    match arguments.command {
        Command::Agent => commands::agent::run(),
        Command::Status(wish) => commands::status::run(&wish),
        Command::Volumes(wish) => commands::volumes::run(&wish),
        Command::Check(check) => commands::check::run(check),
        Command::Reload {
            settings_from_environment,
        } => commands::reload::run(settings_from_environment),
        Command::Bootstrap(wish) => commands::bootstrap::run(&wish),
        Command::RenewToken => commands::renew_token::run(),
        Command::SupportBundle { output } => commands::support_bundle::run(output),
        Command::Revocations(wish) => commands::revocations::run(wish),
        Command::Adopt => commands::adopt::run(),
        Command::Migrate { write } => commands::migrate::run(write),
        Command::InstallDriver(wish) => commands::install_driver::run(&wish),
        Command::Completions { shell } => {
            commands::completions::run(shell, &mut Arguments::command())
        }
    }
}
