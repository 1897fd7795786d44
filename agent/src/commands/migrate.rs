//! `vaulttmpfs migrate`: makes the agent's file of settings from the kubelet's environment, in which the
//! first plugin found them.

use super::{complain, say};
use crate::exit::Exit;
use crate::{atomic_file, config, migrate, plain_file};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The largest file of settings that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Everybody may read a file that is made here: there is no secret in it.
const MODE: u32 = 0o644;

/// Runs the command.
#[must_use]
pub fn run(write: bool) -> Exit {
    if !nix::unistd::geteuid().is_root() {
        complain("the kubelet's environment is root's to read: run this as root");
        return Exit::Failed;
    }
    migrate(write).unwrap_or_else(|problem| {
        complain(&problem);
        Exit::Failed
    })
}

fn migrate(write: bool) -> Result<Exit, String> {
    let sources = migrate::find();
    for trouble in &sources.trouble {
        complain(trouble);
    }
    if sources.seen.is_empty() {
        return Err(
            "no kubelet runs here, and there is no kubelet.service: nothing to take over"
                .to_owned(),
        );
    }
    let file = config::settings_file();
    let now = read(&file)?;
    let plan = migrate::plan(&now, &sources);
    for problem in &plan.wrong {
        complain(problem);
    }
    let shown = file.display();
    if plan.added.is_empty() {
        say(&format!("unchanged: {shown}"));
    } else if write {
        put(&file, &now, &plan.text).map_err(|error| format!("cannot write {shown}: {error}"))?;
        say(&format!("written: {shown}"));
    } else {
        // What is in it already is none of this command's to show: it may be secret.
        say(&format!("# {shown} would get:"));
        say(plan.added.trim());
    }
    let all = plan.wrong.is_empty() && sources.trouble.is_empty();
    Ok(if all { Exit::Done } else { Exit::Failed })
}

/// What is in the file; nothing where there is none.
fn read(file: &Path) -> Result<String, String> {
    let failed = |why: &str| format!("{}: {why}", file.display());
    match plain_file::read(file, MAX_FILE) {
        Ok(text) => std::str::from_utf8(&text)
            .map(str::to_owned)
            .map_err(|_| failed("it is not UTF-8: mend it first")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// The file as it was before the first time stays beside. Whatever an administrator has put into it,
/// nobody may read it then who could not before.
fn put(file: &Path, now: &str, text: &str) -> io::Result<()> {
    let Some(mode) = mode(file)? else {
        return atomic_file::write(file, text.as_bytes(), MODE);
    };
    let before = before(file);
    if self::mode(&before)?.is_none() {
        atomic_file::write(&before, now.as_bytes(), mode)?;
    }
    atomic_file::replace(file, text.as_bytes(), mode)
}

/// Who may do what with a file; nothing where there is none.
fn mode(file: &Path) -> io::Result<Option<u32>> {
    match fs::symlink_metadata(file) {
        Ok(metadata) => Ok(Some(metadata.permissions().mode() & 0o777)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn before(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".before-migrate");
    name.into()
}
