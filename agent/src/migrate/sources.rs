//! Where the first plugin had its settings from: kubelets that run, and the kubelet's unit.

use super::is_meant;
use crate::config::env_file;
use crate::kubelet;
use crate::plain_file;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The largest file of variables that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The kubelet's unit on systemd's bus: the name's dot is escaped.
const UNIT: &str = "/org/freedesktop/systemd1/unit/kubelet_2eservice";

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
    sources.unit();
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

    /// Files count before what stands in the unit, the last file most.
    fn unit(&mut self) {
        #[derive(Deserialize)]
        struct Named(String, bool);
        match property::<String>("Unit", "LoadState") {
            Ok(state) if state == "loaded" => {}
            // Without systemd, or without such a unit, there is nothing to look at.
            _ => return,
        }
        match property::<Vec<Named>>("Service", "EnvironmentFiles") {
            Ok(files) => {
                for Named(path, may_be_missing) in files.into_iter().rev() {
                    self.file(Path::new(&path), may_be_missing);
                }
            }
            Err(error) => self.trouble.push(error),
        }
        match property::<Vec<String>>("Service", "Environment") {
            Ok(entries) => {
                let variables = entries.iter().filter_map(|entry| {
                    let (name, value) = entry.split_once('=')?;
                    Some((name.to_owned(), value.into()))
                });
                self.take("kubelet.service, Environment=".to_owned(), variables);
            }
            Err(error) => self.trouble.push(error),
        }
    }

    fn file(&mut self, path: &Path, may_be_missing: bool) {
        let source = format!("{} of kubelet.service", path.display());
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

/// A property of the kubelet's unit, drop-ins included. By the bus: what `systemctl show` prints cannot
/// be told apart again where a value holds blanks or quotes.
fn property<T: DeserializeOwned>(interface: &str, name: &str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Property<T> {
        data: T,
    }
    let failed = |why: &str| format!("kubelet.service: systemd does not say its {name} ({why})");
    let ran = Command::new("busctl")
        .args(["--json=short", "--timeout=10", "get-property"])
        .args(["org.freedesktop.systemd1", UNIT])
        .arg(format!("org.freedesktop.systemd1.{interface}"))
        .arg(name)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed(&format!("busctl: {error}")))?;
    serde_json::from_slice(&ran.stdout)
        .map(|Property { data }| data)
        .map_err(|_| failed("busctl gave no such property"))
}
