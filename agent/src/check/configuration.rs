//! The settings: are they good, can the agent's user read what they name, and has the kubelet's
//! environment some that the agent lacks?

use super::environment::Settings;
use super::report::{Group, Report};
use crate::config::variables::{
    CA_DIRECTORY, CA_FILE, CLIENT_CERTIFICATE, CLIENT_KEY, GENERATOR_TOKEN_PATH,
    METRICS_CERTIFICATE, METRICS_CLIENT_CA, METRICS_KEY, POD_CACERT, SOCKET, STATE_DIR,
    SYSTEMD_STATE_DIR,
};
use crate::config::{self, Environment, VARIABLES, Variable};
use crate::kubelet;
use crate::migrate;
use nix::unistd::{Uid, User};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const TITLE: &str = "configuration";

/// As whom the packages run the agent.
const USER: &str = "vaulttmpfs";

/// Others may read a file, or pass a directory.
const OTHERS_READ: u32 = 0o004;
const OTHERS_PASS: u32 = 0o001;

/// The settings, where they are good.
pub(super) fn check(report: &mut Report, settings: &Settings) -> Option<config::Settings> {
    let mut group = report.group(TITLE);
    for trouble in &settings.trouble {
        if nix::unistd::geteuid().is_root() {
            group.failure(trouble);
        } else {
            group.not_checked(format!("the settings: {trouble}; root is needed"));
        }
    }
    if !settings.trouble.is_empty() {
        return None;
    }
    let read = config::read(settings);
    match &read {
        Ok(good) => {
            group.ok(format!("the settings of {} are good", settings.origin));
            for warning in &good.warnings {
                group.warning(warning);
            }
        }
        Err(errors) => {
            for error in errors.iter() {
                group.failure(format!("{error}; mend it in {}", settings.origin));
            }
        }
    }
    strangers(&mut group, settings);
    of_this_shell(&mut group, settings);
    if settings.has_unit {
        readable(&mut group, settings);
    }
    beside_the_kubelets(&mut group, settings);
    read.ok()
}

/// As for all commands, what is set here counts before what the agent has.
fn of_this_shell(group: &mut Group<'_>, settings: &Settings) {
    let overruled = VARIABLES.iter().filter(|it| settings.is_overruled(it));
    for variable in overruled.filter(|it| **it != SOCKET && **it != STATE_DIR) {
        group.warning(format!(
            "{} of this environment counts here, and {} says otherwise: unset it to see what the agent has",
            variable.names.join(" or "),
            settings.origin
        ));
    }
}

/// Variables by names that are none of ours: mistyped, mostly.
fn strangers(group: &mut Group<'_>, settings: &Settings) {
    for name in settings.names() {
        let known = VARIABLES
            .iter()
            .any(|variable| variable.names.contains(&name));
        if !known {
            group.warning(format!(
                "{name} in {} is no setting of the agent and has no effect: is it mistyped? vaulttmpfs(5) has them all",
                settings.origin
            ));
        }
    }
}

/// Can the agent's user read the files that are not handed to it by systemd?
fn readable(group: &mut Group<'_>, settings: &Settings) {
    let Ok(Some(user)) = User::from_name(USER) else {
        return group.not_checked(format!(
            "whether the agent may read its files: there is no user {USER} yet"
        ));
    };
    for variable in [
        CA_FILE,
        CA_DIRECTORY,
        CLIENT_CERTIFICATE,
        CLIENT_KEY,
        POD_CACERT,
        METRICS_CERTIFICATE,
        METRICS_KEY,
        METRICS_CLIENT_CA,
    ] {
        let Some((name, path)) = set(settings, &variable) else {
            continue;
        };
        let path = PathBuf::from(path);
        // One that is not there is a bad setting.
        if let Some(obstacle) = obstacle(&path, user.uid)
            && path.exists()
        {
            group.failure(format!(
                "{name}: the agent runs as {USER}, who cannot read {}: chmod o+rX {}, or hand it over as vaulttmpfs-agent(8) says",
                path.display(),
                obstacle.display()
            ));
        }
    }
}

/// The first part of a path that keeps a user out; its groups do not count, for the agent has none.
fn obstacle(path: &Path, user: Uid) -> Option<PathBuf> {
    // Where links lead to.
    let path = fs::canonicalize(path).ok()?;
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    let blocks = |part: &&Path| {
        let Ok(metadata) = fs::metadata(part) else {
            return true;
        };
        let (mode, wanted) = if metadata.is_dir() && *part != path {
            (metadata.mode(), OTHERS_PASS)
        } else if metadata.is_dir() {
            (metadata.mode(), OTHERS_PASS | OTHERS_READ)
        } else {
            (metadata.mode(), OTHERS_READ)
        };
        let shift = if metadata.uid() == user.as_raw() {
            6
        } else {
            0
        };
        mode >> shift & wanted != wanted
    };
    parts.into_iter().find(blocks).map(Path::to_owned)
}

/// The first plugin had its settings from the kubelet, and the driver still has the socket from there.
fn beside_the_kubelets(group: &mut Group<'_>, settings: &Settings) {
    let kubelets = migrate::find();
    for trouble in &kubelets.trouble {
        group.not_checked(format!("the kubelet's settings: {trouble}"));
    }
    let mut differences = 0;
    let mut judged: Vec<&str> = Vec::new();
    for theirs in &kubelets.settings {
        let name = theirs.name.as_str();
        let Some(variable) = VARIABLES.iter().find(|it| it.names.contains(&name)) else {
            continue;
        };
        if theirs.value.is_empty() || name == SYSTEMD_STATE_DIR || judged.contains(&name) {
            continue;
        }
        // Of those with one name the first counts.
        judged.push(name);
        let own = set(settings, variable);
        if own.as_ref().is_some_and(|(_, own)| *own == theirs.value)
            || own.is_none() && theirs.value == variable.default
        {
            continue;
        }
        differences += 1;
        let source = &theirs.source;
        if *variable == SOCKET {
            group.failure(format!(
                "{name} in {source} is not the agent's socket, and the driver asks there: set the same in both, or in none"
            ));
        } else if own.is_some() {
            group.warning(format!(
                "{name} is another in {source} than in {}, which is what counts: take it out of the kubelet's environment, or set the same",
                settings.origin
            ));
        } else if *variable == GENERATOR_TOKEN_PATH {
            group.warning(format!(
                "{name} is set in {source} and not in {}: put the token into {}, or set it there as well",
                settings.origin, variable.default
            ));
        } else {
            group.warning(format!(
                "{name} is set in {source} and not in {}: `vaulttmpfs migrate --write` takes it over",
                settings.origin
            ));
        }
    }
    let one_runs = kubelet::running().is_ok_and(|kubelets| !kubelets.is_empty());
    if one_runs && kubelets.trouble.is_empty() {
        socket_of_the_driver(group, settings, &kubelets, &mut differences);
    }
    if kubelets.seen.is_empty() && kubelets.trouble.is_empty() {
        group.not_checked(format!("the kubelet's settings: {}", super::no_kubelet()));
    } else if differences == 0 && kubelets.trouble.is_empty() {
        group.ok("the kubelet has no settings that the agent lacks");
    }
}

/// The kubelet executes the driver with its own environment.
fn socket_of_the_driver(
    group: &mut Group<'_>,
    settings: &Settings,
    kubelets: &migrate::Sources,
    differences: &mut usize,
) {
    let Some((name, path)) = set(settings, &SOCKET) else {
        return;
    };
    let told = kubelets
        .settings
        .iter()
        .any(|it| SOCKET.names.contains(&it.name.as_str()));
    if !told && path != SOCKET.default {
        *differences += 1;
        group.failure(format!(
            "{name} is set for the agent and not for the kubelet, so the driver asks at {}: set the same in both, or in none",
            SOCKET.default
        ));
    }
}

/// By which name a setting is set, and to what.
fn set(env: &impl Environment, variable: &Variable) -> Option<(&'static str, OsString)> {
    variable
        .names
        .iter()
        .filter(|name| **name != SYSTEMD_STATE_DIR)
        .find_map(|name| {
            let value = env.get(name).filter(|value| !value.is_empty())?;
            Some((*name, value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_keeps_a_user_out_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let (inner, file) = (base.join("a"), base.join("a/ca.pem"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&base, 0o755);
        mode(&inner, 0o755);
        mode(&file, 0o644);
        let other = Uid::from_raw(64_321);
        assert_eq!(obstacle(&file, other), None);
        assert_eq!(obstacle(&inner, other), None);
        mode(&file, 0o640);
        assert_eq!(obstacle(&file, other), Some(file.clone()));
        assert_eq!(obstacle(&file, nix::unistd::geteuid()), None);
        mode(&file, 0o644);
        mode(&inner, 0o750);
        assert_eq!(obstacle(&file, other), Some(inner));
    }
}
