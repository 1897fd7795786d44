//! Where the first plugin had its settings from: kubelets that run, and the kubelet's unit.

use super::is_meant;
use crate::config::env_file;
use crate::kubelet;
use crate::plain_file;
use crate::unit::Unit;
use serde::Deserialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The largest file of variables that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The kubelet's unit.
const KUBELET: Unit = Unit("kubelet.service");

/// A variable, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value, which may be secret.
    pub value: OsString,
    /// Where it was found.
    pub source: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Sources {
    /// The variables; of those with one name the first counts.
    pub settings: Vec<Setting>,
    /// What was looked at.
    pub seen: Vec<String>,
    /// What could not be looked at, and why.
    pub trouble: Vec<String>,
}

/// Looks at all sources. What a kubelet was started with counts before what its unit says now.
#[must_use]
pub fn find() -> Sources {
    let mut sources = Sources::default();
    sources.running();
    sources.unit(KUBELET);
    sources
}

/// Looks at what a unit's service is started with; nothing where systemd surely has no such unit.
#[must_use]
pub fn of_unit(unit: Unit) -> Option<Sources> {
    let mut sources = Sources::default();
    sources.unit(unit).then_some(sources)
}

/// Looks at one file of variables.
#[must_use]
pub fn of_file(path: &Path) -> Sources {
    let mut sources = Sources::default();
    sources.file(path, false, path.display().to_string());
    sources
}

impl Sources {
    fn running(&mut self) {
        let kubelets = match kubelet::running() {
            Ok(kubelets) => kubelets,
            Err(error) => return self.trouble.push(format!("/proc cannot be read: {error}")),
        };
        for kubelet in kubelets {
            // Without its number, which is another after each start.
            let source = "the running kubelet".to_owned();
            match kubelet.environment() {
                Ok(variables) => self.take(source, variables),
                Err(error) => self.trouble.push(format!("{source}: {error}")),
            }
        }
    }

    /// Files count before what stands in the unit, the last file most. False: without systemd, or
    /// without such a unit, there is nothing to look at.
    fn unit(&mut self, unit: Unit) -> bool {
        #[derive(Deserialize)]
        struct Named(String, bool);
        match unit.is_there() {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                self.trouble.push(error);
                return true;
            }
        }
        match unit.property::<Vec<Named>>("Service", "EnvironmentFiles") {
            Ok(files) => {
                for Named(path, may_be_missing) in files.into_iter().rev() {
                    let source = format!("{path} of {}", unit.0);
                    self.file(Path::new(&path), may_be_missing, source);
                }
            }
            Err(error) => self.trouble.push(error),
        }
        match unit.property::<Vec<String>>("Service", "Environment") {
            Ok(entries) => {
                let variables = entries.iter().filter_map(|entry| {
                    let (name, value) = entry.split_once('=')?;
                    Some((name.to_owned(), value.into()))
                });
                self.take(format!("{}, Environment=", unit.0), variables);
            }
            Err(error) => self.trouble.push(error),
        }
        true
    }

    fn file(&mut self, path: &Path, may_be_missing: bool, source: String) {
        match plain_file::read_named(path, MAX_FILE) {
            Ok(text) => {
                // Of one name in one file the last counts.
                let variables = env_file::parse(&text).into_iter().rev();
                self.take(
                    source,
                    variables.map(|(name, value)| (name, OsString::from_vec(value))),
                );
            }
            Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.trouble.push(format!("{source}: {error}")),
        }
    }

    fn take(&mut self, source: String, variables: impl IntoIterator<Item = (String, OsString)>) {
        for (name, value) in variables {
            if is_meant(&name) {
                self.settings.push(Setting {
                    name,
                    value,
                    source: source.clone(),
                });
            }
        }
        self.seen.push(source);
    }
}
