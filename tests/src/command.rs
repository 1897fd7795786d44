//! The admin's commands, run as an administrator runs them.

use crate::{Lab, Node, Settings, binaries, evidence};
use std::path::PathBuf;
use std::process::{Command, Output};

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
        assert!(run.status.code().is_some(), "a signal ended {command:?}");
        Self::of(&run)
    }

    /// What a process said that has ended, which is kept; the status is -1 where a signal ended it.
    pub(crate) fn of(run: &Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let said = Self {
            status: run.status.code().unwrap_or(-1),
            output: text(&run.stdout),
            errors: text(&run.stderr),
        };
        for part in [&said.output, &said.errors] {
            evidence::keep_output("what commands say", part);
        }
        said
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
        for part in [&said.output, &said.errors] {
            secrets.assert_not_in("what a command said", part);
        }
        said
    }
}
