//! The generator token: its file, and what Vault knows of it.

use super::environment;
use super::report::{Group, Report};
use crate::config::Settings;
use crate::config::variables::GENERATOR_TOKEN_CREDENTIAL;
use crate::duration::to_go;
use crate::vault::{Findings, Generator, Probe, read_token_file};
use secrecy::SecretString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub(super) const FILE: &str = "token file";
pub(super) const TITLE: &str = "generator token";

/// Others may read the file, or write it.
const OTHERS: u32 = 0o007;

/// Its group may.
const GROUP: u32 = 0o070;

/// The token as the agent would have it after a reload.
pub(super) fn read(
    report: &mut Report,
    path: &Path,
    environment: &environment::Settings,
) -> Option<SecretString> {
    let mut group = report.group(FILE);
    let problem = match read_token_file(path) {
        Ok(token) => {
            rights(&mut group, path);
            return Some(token);
        }
        Err(problem) => problem,
    };
    // It may come encrypted, or from elsewhere.
    if let Some(credential) = environment.credential(GENERATOR_TOKEN_CREDENTIAL)
        && let Ok(token) = read_token_file(&credential)
    {
        group.ok(format!(
            "systemd hands it over as the credential {GENERATOR_TOKEN_CREDENTIAL}"
        ));
        return Some(token);
    }
    if problem.kind() == ErrorKind::PermissionDenied {
        group.not_checked(format!("{}: root is needed to read it", path.display()));
    } else {
        group.failure(format!(
            "there is no token in {}: {problem}; make one with `vaulttmpfs bootstrap`, or write it there",
            path.display()
        ));
    }
    None
}

fn rights(group: &mut Group<'_>, path: &Path) {
    let shown = path.display();
    let Ok(metadata) = fs::metadata(path) else {
        return;
    };
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        group.failure(format!(
            "everybody on the node may get at the token in {shown} (mode {mode:04o}): chmod 0400 {shown}, and make another token"
        ));
    } else if mode & GROUP != 0 {
        group.warning(format!(
            "a group may get at the token in {shown} (mode {mode:04o}): chmod 0400 {shown}"
        ));
    } else {
        group.ok(format!("{shown} is for its owner alone (mode {mode:04o})"));
    }
}

/// The token as Vault knows it, where it does.
pub(super) async fn check(
    report: &mut Report,
    settings: &Settings,
    probe: &Probe,
) -> Option<Generator> {
    let mut group = report.group(TITLE);
    let token = match probe.generator().await {
        Ok(token) => token,
        Err(error) => {
            group.failure(probe.explained(&error));
            return None;
        }
    };
    if token.is_root() {
        let text = "it is a root token: whoever gets it owns all of Vault";
        if settings.allow_root_token {
            group.warning(format!("{text}; allowed by VAULTTMPFS_ALLOW_ROOT_TOKEN"));
            return Some(token);
        }
        group.failure(format!(
            "{text}, and the agent refuses it; make another with `vaulttmpfs bootstrap`"
        ));
        return None;
    }
    judge(&mut group, &token);
    Some(token)
}

fn judge(group: &mut Group<'_>, token: &Generator) {
    let seconds = Duration::from_secs;
    let mut findings = Findings::default();
    findings.about_token(token);
    if token.period > 0 && token.renewable && token.ttl < token.period / 4 {
        findings.warnings.push(format!(
            "the generator token has {} left of a period of {}: is the agent down, or can it not renew it?",
            to_go(seconds(token.ttl)),
            to_go(seconds(token.period))
        ));
    }
    if !token.orphan {
        findings.warnings.push(
            "the generator token ends with the token that made it: make it an orphan, as `vaulttmpfs bootstrap` does".into(),
        );
    }
    if token.num_uses > 0 {
        findings.concerns.push(format!(
            "the generator token is good for {} more calls and ends then: make one without num_uses",
            token.num_uses
        ));
    }
    for concern in &findings.concerns {
        group.failure(concern);
    }
    for warning in &findings.warnings {
        group.warning(warning);
    }
    if findings == Findings::default() {
        let period = if token.role.is_empty() {
            "a period of".to_owned()
        } else {
            format!("by the token role `{}` a period of", token.role)
        };
        group.ok(format!(
            "it is an orphan with the policies {}, has {} left and {period} {}, and survives an outage of {}",
            token.policies.join(", "),
            to_go(seconds(token.ttl)),
            to_go(seconds(token.period)),
            to_go(token.survives())
        ));
    }
}
