//! Where the first plugin had its settings from: kubelets that run, and the kubelet's unit.

use super::is_meant;
use crate::config::env_file;
use crate::kubelet;
use crate::plain_file;
use crate::unit::Unit;
use glob::{MatchOptions, glob_with};
use serde::Deserialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The largest file of variables that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// So many files are looked at for one pattern.
const MOST_MATCHES: usize = 100;

/// As a shell matches names, and glob(7).
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

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

/// A file of variables as a unit names it, and whether it may be missing.
#[derive(Deserialize)]
struct Named(String, bool);

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
        match unit.is_there() {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                self.trouble.push(error);
                return true;
            }
        }
        match unit.property::<Vec<Named>>("Service", "EnvironmentFiles") {
            Ok(files) => self.files(&files, unit.0),
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

    fn files(&mut self, files: &[Named], unit: &str) {
        for Named(pattern, may_be_missing) in files.iter().rev() {
            let mut paths = matching(pattern);
            if paths.len() > MOST_MATCHES {
                self.trouble.push(format!(
                    "{pattern} of {unit}: more than {MOST_MATCHES} files, the others are not looked at"
                ));
                paths.truncate(MOST_MATCHES);
            }
            for path in paths.iter().rev() {
                let source = format!("{} of {unit}", path.display());
                self.file(path, *may_be_missing, source);
            }
        }
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

/// The files that `EnvironmentFile=` names by wildcards, sorted, and one more than are looked at; the name as it is
/// where there are none, for what is said of a file that is missing.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let found = glob_with(pattern, MATCHING).into_iter().flatten();
    let mut paths: Vec<PathBuf> = found.flatten().take(MOST_MATCHES + 1).collect();
    if paths.is_empty() {
        paths.push(pattern.into());
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn of(patterns: &[(&str, bool)]) -> (Vec<String>, Vec<String>) {
        let named = patterns
            .iter()
            .map(|(name, may)| Named((*name).to_owned(), *may));
        let mut sources = Sources::default();
        sources.files(&named.collect::<Vec<_>>(), "kubelet.service");
        let values = sources.settings.iter();
        let values = values.map(|it| it.value.clone().into_string().unwrap());
        (values.collect(), sources.trouble)
    }

    #[test]
    fn files_are_named_by_wildcards_and_the_last_counts_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        for name in ["a.conf", "b.conf", "c.other", ".d.conf"] {
            fs::write(path(name), format!("VAULT_ADDR={name}\n")).unwrap();
        }
        let (values, trouble) = of(&[(&path("c.other"), false), (&path("*.conf"), false)]);
        assert_eq!(values, ["b.conf", "a.conf", "c.other"]);
        assert_eq!(trouble, [""; 0]);
        assert_eq!(of(&[(&path("[ab].conf"), false)]).0, ["b.conf", "a.conf"]);
        // What matches nothing is missing, as a file by its own name is.
        for name in ["*.none", "none", "[a.conf"] {
            assert_eq!(of(&[(&path(name), true)]), (Vec::new(), Vec::new()));
            let (values, trouble) = of(&[(&path(name), false)]);
            assert!(values.is_empty(), "{values:?}");
            assert!(trouble[0].starts_with(&path(name)), "{trouble:?}");
        }
    }

    #[test]
    fn a_pattern_of_many_files_is_bounded_and_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..=MOST_MATCHES {
            let path = directory.path().join(format!("{number:03}"));
            fs::write(path, "VAULT_ADDR=x\n").unwrap();
        }
        let pattern = directory.path().join("*").to_str().unwrap().to_owned();
        let (values, trouble) = of(&[(&pattern, true)]);
        assert_eq!(values.len(), MOST_MATCHES);
        assert!(trouble[0].contains("more than"), "{trouble:?}");
    }
}
