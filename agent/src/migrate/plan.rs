//! What the file of settings is to be.

use super::sources::{Setting, Sources};
use crate::config::variables::{
    CA_DIRECTORY, CA_FILE, CLIENT_CERTIFICATE, CLIENT_KEY, CLIENT_KEY_CREDENTIAL,
    GENERATOR_TOKEN_CREDENTIAL, GENERATOR_TOKEN_PATH, POD_CACERT, SYSTEMD_STATE_DIR,
};
use crate::config::{self, Environment, VARIABLES, env_file};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

const HEAD: &str = "# Settings of the vaulttmpfs agent, as systemd reads them: NAME=VALUE. See README.md for all of them.\n";

/// The service, and what notices a changed token.
const AGENT: &str = "vaulttmpfs-agent.service";
const WATCH: &str = "vaulttmpfs-reload.path";

/// A file of settings, and what a person must know of it.
pub struct Plan {
    /// The whole file. What was in it may be secret.
    pub text: String,
    /// What is new in it: settings of the agent and comments, none of them secret. Empty where the file
    /// is to stay as it is.
    pub added: String,
    /// Settings that were not taken, for what is wrong with them: each is said in the file as well.
    pub wrong: Vec<String>,
}

/// Settings by name, and nothing else.
struct Chosen(BTreeMap<String, OsString>);

impl Environment for Chosen {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}

/// The file of settings that holds what is in it now, and below it what the sources have besides. What
/// is set in it counts, whatever the sources say.
#[must_use]
pub fn plan(now: &str, sources: &Sources) -> Plan {
    let there: BTreeMap<String, OsString> = env_file::parse(now.as_bytes())
        .into_iter()
        .map(|(name, value)| (name, OsString::from_vec(value)))
        .collect();
    let mut draft = Draft::default();
    for setting in &sources.settings {
        draft.consider(setting, &there);
    }
    draft.leave_out_what_is_wrong(&there);
    draft.plan(now)
}

#[derive(Default)]
struct Draft<'a> {
    /// In the order of the file.
    taken: Vec<(&'a Setting, String)>,
    comments: Vec<String>,
    wrong: Vec<String>,
}

impl<'a> Draft<'a> {
    fn consider(&mut self, setting: &'a Setting, there: &BTreeMap<String, OsString>) {
        let Setting { name, source, .. } = setting;
        if let Some(value) = there.get(name) {
            if *value != setting.value {
                self.comment(format!(
                    "{name} is another in {source}: the one above counts"
                ));
            }
            return;
        }
        if let Some((first, _)) = self.taken.iter().find(|(it, _)| it.name == *name) {
            if first.value != setting.value {
                let counts = &first.source;
                self.comment(format!(
                    "{name} is another in {source}: that of {counts} counts"
                ));
            }
            return;
        }
        if let Some(why) = no_effect(setting) {
            return self.comment(format!("{name} in {source}: {why}"));
        }
        match setting
            .value
            .to_str()
            .map(|value| (value, env_file::line(name, value)))
        {
            Some((value, _)) if is_token(value) => {
                self.wrong(format!("{name} in {source} looks like a token: left out"));
            }
            Some((_, Some(line))) => self.taken.push((setting, line)),
            _ => self.wrong(format!(
                "{name} in {source} is no text on one line: left out"
            )),
        }
    }

    /// By the agent's own reading of all settings together. A second one may show more, since the first
    /// of several names hides the others.
    fn leave_out_what_is_wrong(&mut self, there: &BTreeMap<String, OsString>) {
        loop {
            let mut chosen = there.clone();
            chosen.extend(
                self.taken
                    .iter()
                    .map(|(it, _)| (it.name.clone(), it.value.clone())),
            );
            let Err(errors) = config::read(&Chosen(chosen)) else {
                break;
            };
            let before = self.taken.len();
            for error in errors.iter() {
                self.taken.retain(|(it, _)| it.name != error.variable);
                let problem = error.to_string();
                if !self.wrong.iter().any(|it| it.starts_with(&problem)) {
                    self.wrong(problem);
                }
            }
            if self.taken.len() == before {
                break;
            }
        }
    }

    fn wrong(&mut self, problem: String) {
        self.comment(problem.clone());
        self.wrong.push(problem);
    }

    fn comment(&mut self, text: String) {
        if !self.comments.contains(&text) {
            self.comments.push(text);
        }
    }

    fn plan(mut self, now: &str) -> Plan {
        let unreadable: Vec<String> = self
            .taken
            .iter()
            .filter_map(|(it, _)| unreadable(it))
            .collect();
        for problem in unreadable {
            self.comment(problem);
        }
        // A comment is written once, whenever it was.
        self.comments
            .retain(|it| !now.contains(&format!("# {it}\n")));
        let mut added = String::new();
        let mut source = "";
        for (setting, line) in &self.taken {
            if setting.source != source {
                source = &setting.source;
                added.extend(["\n# From ", source, ":\n"]);
            }
            added += line;
            added.push('\n');
        }
        if !self.comments.is_empty() {
            added.push('\n');
        }
        for comment in &self.comments {
            added.extend(["# ", comment, "\n"]);
        }
        let before = if now.is_empty() { HEAD } else { now };
        let newline = if before.ends_with('\n') { "" } else { "\n" };
        Plan {
            text: [before, newline, &added].concat(),
            added,
            wrong: self.wrong,
        }
    }
}

/// Why a variable is of no use to the agent as systemd runs it, if so. Values of variables that it does
/// not know are never shown: they may be secret.
fn no_effect(setting: &Setting) -> Option<String> {
    let name = setting.name.as_str();
    if setting.value.is_empty() {
        return Some("empty, which is as good as not set: left out".to_owned());
    }
    if GENERATOR_TOKEN_PATH.names.contains(&name) && setting.value == GENERATOR_TOKEN_PATH.default {
        return Some("the usual place, where systemd finds it for the agent: left out".to_owned());
    }
    if CLIENT_KEY.names.contains(&name) {
        return Some(format!(
            "the agent's user should not read it: {}",
            drop_in(CLIENT_KEY_CREDENTIAL)
        ));
    }
    let known = VARIABLES
        .iter()
        .any(|variable| variable.names.contains(&name) && name != SYSTEMD_STATE_DIR);
    (!known).then(|| {
        if name.ends_with("_TOKEN") {
            "a secret, and of no effect: the agent's token is in a file".to_owned()
        } else {
            "of no effect: left out".to_owned()
        }
    })
}

/// Whether a value looks like a token of Vault's, which no setting holds.
fn is_token(value: &str) -> bool {
    let old = |prefix| {
        value.strip_prefix(prefix).is_some_and(|rest: &str| {
            rest.len() >= 24
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
        })
    };
    ["hvs.", "hvb.", "hvr."]
        .iter()
        .any(|it| value.starts_with(it))
        || ["s.", "b.", "r."].into_iter().any(old)
}

/// What has systemd hand a file over that is not for the agent's user to read.
fn drop_in(credential: &str) -> String {
    format!(
        "have systemd hand it over, with `systemctl edit {AGENT}`: [Service], LoadCredential={credential}:FILE"
    )
}

/// What is still to be done about a file that the agent's user may not read.
fn unreadable(setting: &Setting) -> Option<String> {
    let name = setting.name.as_str();
    if GENERATOR_TOKEN_PATH.names.contains(&name) {
        let drop_in = drop_in(GENERATOR_TOKEN_CREDENTIAL);
        return Some(format!(
            "{name} is another than the usual one: {drop_in}; have it watched, with `systemctl edit {WATCH}`: [Path], PathChanged=FILE; then `systemctl restart {WATCH} {AGENT}`"
        ));
    }
    [CA_FILE, CA_DIRECTORY, CLIENT_CERTIFICATE, POD_CACERT]
        .iter()
        .any(|it| it.names.contains(&name))
        .then_some(())?;
    let mode = fs::metadata(&setting.value).ok()?.permissions().mode();
    (mode & 0o004 == 0).then(|| format!("{name}: the agent's user cannot read it; chmod o+r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(settings: &[(&str, &str, &str)]) -> Sources {
        let settings = settings.iter().map(|(name, value, source)| Setting {
            name: (*name).to_owned(),
            value: value.into(),
            source: (*source).to_owned(),
        });
        Sources {
            settings: settings.collect(),
            ..Sources::default()
        }
    }

    const ADDRESS: (&str, &str, &str) = ("VAULT_ADDR", "https://vault.test:8200", "kubelet");

    #[test]
    fn what_is_good_is_written_with_its_source() {
        let found = sources(&[
            ADDRESS,
            ("VAULT_NAMESPACE", "a$b", "kubelet"),
            ("VAULT_ADDR", "https://other.test", "unit"),
        ]);
        let plan = plan("", &found);
        assert_eq!(plan.wrong, [""; 0]);
        assert!(plan.text.ends_with(&plan.added));
        for part in [
            "# From kubelet:\nVAULT_ADDR=https://vault.test:8200\nVAULT_NAMESPACE=\"a\\$b\"\n",
            "# VAULT_ADDR is another in unit: that of kubelet counts\n",
        ] {
            assert!(plan.text.contains(part), "{}", plan.text);
        }
        assert!(!plan.text.contains("other.test"));
    }

    #[test]
    fn what_is_set_already_counts_and_twice_changes_nothing() {
        let now = "# mine\nHTTPS_PROXY=http://u:geheim@proxy\nVAULT_ADDR=https://mine.test";
        let found = sources(&[
            ADDRESS,
            ("VAULT_WRAP_TTL", "90s", "kubelet"),
            ("VAULT_FORMAT", "json", "kubelet"),
        ]);
        let first = plan(now, &found);
        assert!(first.text.starts_with(&format!("{now}\n")));
        assert_eq!(first.text, format!("{now}\n{}", first.added));
        assert!(
            first
                .text
                .contains("# VAULT_ADDR is another in kubelet: the one above counts\n")
        );
        assert!(first.text.contains("\nVAULT_WRAP_TTL=90s\n"));
        let second = plan(&first.text, &found);
        assert_eq!((second.added.as_str(), second.text), ("", first.text));
    }

    #[test]
    fn secrets_are_never_shown_and_bad_values_never_set() {
        let found = sources(&[
            ADDRESS,
            ("VAULT_TOKEN", "hvs.geheim1", "kubelet"),
            ("VAULT_HTTP_PROXY", "http://u:geheim2@proxy", "kubelet"),
            ("VAULTTMPFS_ROLE_NAME", "hvs.geheim3", "kubelet"),
            ("VAULT_CACERT", "/nowhere/ca.pem", "kubelet"),
            ("VAULT_MAX_RETRIES", "many", "kubelet"),
            ("BAO_ADDR", "https://u:geheim4@vault.test", "unit"),
            ("VAULT_NAMESPACE", "a\nb", "unit"),
            ("VAULT_CLIENT_KEY", "/etc/key.pem", "unit"),
            ("VAULTTMPFS_GENERATOR_TOKEN_PATH", "/root/token", "unit"),
            ("VAULT_RATE_LIMIT", "", "unit"),
        ]);
        let plan = plan("", &found);
        assert!(!plan.text.contains("geheim"), "{}", plan.text);
        let set: Vec<&str> = plan
            .text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect();
        let expected = [
            "VAULT_ADDR=https://vault.test:8200",
            "VAULTTMPFS_GENERATOR_TOKEN_PATH=/root/token",
        ];
        assert_eq!(set, expected, "{}", plan.text);
        for part in [
            "VAULT_TOKEN in kubelet: a secret",
            "VAULT_HTTP_PROXY in kubelet: of no effect",
            "VAULTTMPFS_ROLE_NAME in kubelet looks like a token",
            "VAULT_CACERT=\"/nowhere/ca.pem\": expected",
            "VAULT_MAX_RETRIES=\"many\": expected",
            "BAO_ADDR: expected",
            "VAULT_NAMESPACE in unit is no text on one line",
            "LoadCredential=client-key:FILE",
            "LoadCredential=generator-token:FILE",
            "VAULT_RATE_LIMIT in unit: empty",
        ] {
            assert!(
                plan.text.contains(&format!("# {part}")) || plan.text.contains(part),
                "{part}: {}",
                plan.text
            );
        }
        assert_eq!(plan.wrong.len(), 5, "{:?}", plan.wrong);
    }
}
