//! The admin's commands, run as an administrator runs them.

use crate::{Lab, Settings, binaries};
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
        let run = Command::new(binaries::agent())
            .args(arguments)
            .env_clear()
            .envs(settings)
            .env("VAULTTMPFS_SOCKET", self.node.socket())
            .output()
            .expect("the command runs");
        let said = Said {
            status: run.status.code().expect("no signal ended the command"),
            output: String::from_utf8_lossy(&run.stdout).into_owned(),
            errors: String::from_utf8_lossy(&run.stderr).into_owned(),
        };
        let secrets = self.vault.secrets();
        secrets.assert_absent("a command's output", &said.output);
        secrets.assert_absent("a command's errors", &said.errors);
        said
    }
}
