//! The settings, nothing secret among them: as the agent has them, and as the file says.

use crate::config::{self, Installed, Shown, env_file, settings_file};
use crate::migrate::is_meant;
use crate::plain_file;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Everything there is to say; `of_agent` is its own answer, or why there is none.
#[must_use]
pub fn settings(of_agent: Result<Vec<u8>, String>) -> String {
    let own = match of_agent.map(|body| parse(&body)) {
        Ok(Some(settings)) => lines(&settings),
        Ok(None) => "left out: the agent's answer is no list of settings\n".to_owned(),
        Err(why) => format!("left out: {why}\n"),
    };
    let file = settings_file();
    format!(
        "# As the running agent has them\n{own}\n# In {}\n{}\n# Secrets\n{}",
        file.display(),
        of_file(&file),
        token(),
    )
}

fn parse(body: &[u8]) -> Option<Vec<Shown>> {
    #[derive(Deserialize)]
    struct Answer {
        settings: Vec<Shown>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    Some(answer.settings)
}

fn lines(settings: &[Shown]) -> String {
    let line = |setting: &Shown| {
        let Shown {
            name,
            set,
            value,
            default,
        } = setting;
        match (set, value) {
            (true, Some(value)) => format!("{name}={value}\n"),
            (true, None) => format!("{name}: set, not shown\n"),
            (false, _) if default.is_empty() => format!("{name}: not set\n"),
            (false, _) => format!("{name}: not set, by default {default}\n"),
        }
    };
    settings.iter().map(line).collect()
}

/// The settings that the file has; of other variables of Vault's tools, which may be anything, the
/// names.
fn of_file(path: &Path) -> String {
    let text = match plain_file::read_named(path, MAX_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return "not there\n".to_owned(),
        Err(error) => return format!("left out: {error}\n"),
    };
    let variables = env_file::parse(&text);
    // Of one name the last line counts.
    let env: HashMap<&str, OsString> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), OsString::from_vec(value.clone())))
        .collect();
    let mut settings = config::shown(&env);
    settings.retain(|setting| setting.set);
    let mut text = lines(&settings);
    for (name, _) in variables {
        if is_meant(&name) && !config::is_setting(&name) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: set, but no setting of the agent");
        }
    }
    text
}

/// Whether there is a generator token, and nothing else of it.
fn token() -> String {
    let path = match Installed::read() {
        Ok(settings) => config::generator_token_path(&settings),
        Err(error) => return format!("generator token: its file is not known: {error}\n"),
    };
    let state = match fs::metadata(&path) {
        Ok(file) if file.len() == 0 => "not set: the file is empty".to_owned(),
        Ok(_) => "set".to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => "not set: no such file".to_owned(),
        Err(error) => format!("not known: {error}"),
    };
    format!("generator token in {}: {state}\n", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shown_without_what_may_be_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let text = "VAULT_ADDR=https://vault:8200\nVAULT_CACERT=/a\nVAULT_CACERT=\"/b c\"\n\
                    VAULT_TOKEN=secret\nAWS_SECRET=secret\nVAULTTMPFS_POD_VAULT_ADDR=https://u:secret@v\n";
        fs::write(&path, text).unwrap();
        assert_eq!(
            of_file(&path),
            "VAULT_ADDR=https://vault:8200\nVAULT_CACERT=/b c\n\
             VAULTTMPFS_POD_VAULT_ADDR: set, not shown\n\
             VAULT_TOKEN: set, but no setting of the agent\n"
        );
        assert_eq!(of_file(&directory.path().join("none")), "not there\n");
    }

    #[test]
    fn the_agents_own_are_shown_as_it_says() {
        let none: HashMap<&str, OsString> = HashMap::new();
        let own = config::shown(&none);
        let body = serde_json::to_vec(&serde_json::json!({ "settings": own })).unwrap();
        let text = settings(Ok(body));
        assert!(
            text.contains("\nBAO_ADDR: not set, by default https://127.0.0.1:8200\n"),
            "{text}"
        );
        assert!(settings(Err("no agent".into())).contains("left out: no agent\n"));
        assert!(settings(Ok(b"{}".to_vec())).contains("no list of settings\n"));
    }
}
