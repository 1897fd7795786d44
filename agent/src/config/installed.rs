//! The settings as the installed service has them, for commands that an administrator types.

use super::{Environment, ProcessEnvironment, VARIABLES, env_file};
use crate::plain_file;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The agent's file of settings on Debian's relatives.
const DEBIAN: &str = "/etc/default/vaulttmpfs";

/// The agent's file of settings on Red Hat's relatives.
const RED_HAT: &str = "/etc/sysconfig/vaulttmpfs";

/// The largest file of settings that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The file of settings of this machine: the one that is there; else the one whose directory is.
#[must_use]
pub fn settings_file() -> PathBuf {
    let (debian, red_hat) = (Path::new(DEBIAN), Path::new(RED_HAT));
    let is_red_hat = red_hat.exists()
        || !debian.exists()
            && red_hat.parent().is_some_and(Path::is_dir)
            && !Path::new("/etc/debian_version").exists();
    if is_red_hat { red_hat } else { debian }.to_owned()
}

/// The process's own environment, and behind it the service's file of settings: a setting that the
/// environment has by any of its names is the environment's.
#[derive(Debug)]
pub struct Installed<E = ProcessEnvironment> {
    own: E,
    file: Vec<(String, Vec<u8>)>,
}

impl Installed {
    /// The settings of this machine. A file that is missing sets nothing.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read() -> io::Result<Self> {
        let text = match plain_file::read_named(&settings_file(), MAX_FILE) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new().into(),
            text => text?,
        };
        Ok(Self::over(env_file::parse(&text)))
    }

    /// The process's own environment, and behind it these variables: of one name the last counts.
    #[must_use]
    pub fn over(file: Vec<(String, Vec<u8>)>) -> Self {
        let own = ProcessEnvironment;
        Self { own, file }
    }
}

impl<E: Environment> Installed<E> {
    /// Does the process's own environment have this setting, by any of its names?
    pub fn is_own(&self, name: &str) -> bool {
        VARIABLES
            .iter()
            .filter(|variable| variable.names.contains(&name))
            .flat_map(|variable| variable.names)
            .any(|name| self.own.get(name).is_some_and(|value| !value.is_empty()))
    }
}

impl<E: Environment> Environment for Installed<E> {
    fn get(&self, name: &str) -> Option<OsString> {
        if self.is_own(name) {
            return self.own.get(name);
        }
        // As systemd reads it, the last line counts.
        let line = self.file.iter().rev().find(|(own, _)| own == name);
        line.map(|(_, value)| OsString::from_vec(value.clone()))
            .or_else(|| self.own.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_environment_counts_before_the_file() {
        let own = HashMap::from([
            ("VAULT_ADDR", OsString::from("https://own:8200")),
            ("VAULT_NAMESPACE", OsString::new()),
            ("PATH", OsString::from("/bin")),
        ]);
        let file = b"BAO_ADDR=https://file:8200\nVAULT_NAMESPACE=a\nVAULT_NAMESPACE=b\n";
        let file = env_file::parse(file);
        let both = Installed { own, file };
        for (name, value) in [
            ("BAO_ADDR", None),
            ("VAULT_ADDR", Some("https://own:8200")),
            ("VAULT_NAMESPACE", Some("b")),
            ("VAULT_CACERT", None),
            ("PATH", Some("/bin")),
        ] {
            assert_eq!(both.get(name), value.map(OsString::from), "{name}");
        }
    }
}
