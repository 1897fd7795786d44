//! The settings as the agent has them when it is started, for who types this command.

use crate::config::variables::SYSTEMD_CREDENTIALS;
use crate::config::{self, Environment, Installed, ProcessEnvironment, Variable};
use crate::migrate::{self, Sources};
use crate::unit::Unit;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The agent's unit.
pub(super) const UNIT: Unit = Unit("vaulttmpfs-agent.service");

/// Where systemd keeps the credentials of the agent's unit while it runs.
const CREDENTIALS: &str = "/run/credentials/vaulttmpfs-agent.service";

/// Variables, and where they come from.
pub(super) struct Settings {
    /// The agent's own, where there is a source of them; of a file that was named, all that counts.
    agents: BTreeMap<String, OsString>,
    /// These behind the process's own environment, as for all commands; nothing where a file was named.
    installed: Option<Installed>,
    /// Where they come from, for people.
    pub(super) origin: String,
    /// What could not be looked at, and why.
    pub(super) trouble: Vec<String>,
    /// systemd has a unit of the agent's.
    pub(super) has_unit: bool,
    /// There is a source of the agent's own.
    has_source: bool,
}

impl Settings {
    /// Those of the file that was named, alone. Else the process's own, and behind them what the
    /// agent's unit says, or the file that it would read.
    pub(super) fn find(named: Option<&Path>) -> Self {
        let of_unit = migrate::of_unit(UNIT);
        let has_unit = of_unit.is_some();
        let file = config::settings_file();
        let (sources, origin) = match (named, of_unit) {
            (Some(file), _) => (migrate::of_file(file), file.display().to_string()),
            (None, Some(sources)) => (sources, format!("{} and its files", UNIT.0)),
            (None, None) if file.exists() => (migrate::of_file(&file), file.display().to_string()),
            (None, None) => (Sources::default(), "this environment".to_owned()),
        };
        let has_source = has_unit || !sources.seen.is_empty();
        let mut agents = BTreeMap::new();
        for setting in sources.settings {
            // Of those with one name the first counts.
            agents.entry(setting.name).or_insert(setting.value);
        }
        let behind = agents.clone().into_iter();
        let behind = behind.map(|(name, value)| (name, value.into_vec()));
        Self {
            installed: named.is_none().then(|| Installed::over(behind.collect())),
            agents,
            origin,
            trouble: sources.trouble,
            has_unit,
            has_source,
        }
    }

    /// The names that the agent's own source sets.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(String::as_str)
    }

    /// Does this process's environment say other than the agent's own source?
    pub(super) fn is_overruled(&self, variable: &Variable) -> bool {
        let Some(installed) = self.installed.as_ref().filter(|_| self.has_source) else {
            return false;
        };
        let first = |of: &dyn Fn(&str) -> Option<OsString>| {
            let mut values = variable.names.iter().filter_map(|name| of(name));
            values.find(|value| !value.is_empty())
        };
        let (own, agents) = (
            first(&|name| ProcessEnvironment.get(name)),
            first(&|name| self.agents.get(name).cloned()),
        );
        installed.is_own(variable.names[0]) && own != agents
    }

    /// systemd's copy of a credential, where the agent's unit runs.
    pub(super) fn credential(&self, id: &str) -> Option<PathBuf> {
        let path = Path::new(CREDENTIALS).join(id);
        (self.has_unit && path.is_file()).then_some(path)
    }
}

impl Environment for Settings {
    fn get(&self, name: &str) -> Option<OsString> {
        if name == SYSTEMD_CREDENTIALS {
            return self.has_unit.then(|| CREDENTIALS.into());
        }
        match &self.installed {
            Some(installed) => installed.get(name),
            None => self.agents.get(name).cloned(),
        }
    }
}
