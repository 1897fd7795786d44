//! The admin's commands, run as an administrator runs them.

use crate::{Lab, Node, Settings, binaries};
use std::path::PathBuf;
use std::process::Command;

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// The exit status.
    pub status: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Said {
    /// Runs a command to its end.
    #[must_use]
    #[track_caller]
    pub fn by(command: &mut Command) -> Self {
        let run = command.output().expect("the command runs");
        Self {
            status: run.status.code().expect("no signal ended the command"),
            output: String::from_utf8_lossy(&run.stdout).into_owned(),
            errors: String::from_utf8_lossy(&run.stderr).into_owned(),
        }
    }
}

impl Node {
    /// `vaulttmpfs` with these arguments, to be run as root.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::agent());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("VAULTTMPFS_SOCKET", self.socket());
        command
    }

    /// The driver as it was built.
    #[must_use]
    pub fn built_driver(&self) -> PathBuf {
        binaries::driver()
    }
}

impl Lab {
    /// Runs `vaulttmpfs` with these arguments as root. No secret may be in what it says.
    #[must_use]
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Said {
        self.command_with(arguments, &Settings::new())
    }

    /// The same with settings in its environment, as a unit's commands have them.
    #[must_use]
    #[track_caller]
    pub fn command_with(&self, arguments: &[&str], settings: &Settings) -> Said {
        let said = Said::by(self.node.command(arguments).envs(settings));
        let secrets = self.vault.secrets();
        secrets.assert_absent("a command's output", &said.output);
        secrets.assert_absent("a command's errors", &said.errors);
        said
    }
}
