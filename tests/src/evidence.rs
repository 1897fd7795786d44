//! What the whole suite made and showed, kept until its end: then no output of any test may have a
//! secret of any other in it. `tests/run` says where, and looks with [`find_leaks`].

use crate::Secrets;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names the directory. Without it nothing is kept.
const DIRECTORY: &str = "VAULTTMPFS_TESTS_EVIDENCE";

/// In the directory: a secret a line.
const SECRETS: &str = "secrets";

/// In the directory: what was shown, a file a kind.
const OUTPUTS: &str = "outputs";

/// Keeps what someone was shown.
pub(crate) fn keep_output(what: &str, text: &str) {
    if let Some(directory) = directory() {
        let name = what.replace(|it: char| !it.is_ascii_alphanumeric(), "-");
        append(&directory.join(OUTPUTS).join(name), text);
    }
}

/// Keeps what a Vault server made.
pub(crate) fn keep_secrets(secrets: &Secrets) {
    if let Some(directory) = directory() {
        append(&directory.join(SECRETS), &secrets.lines());
    }
}

/// Whether anything is kept.
pub(crate) fn is_kept() -> bool {
    directory().is_some()
}

/// Looks for every secret in everything that was shown. Says how much that was.
///
/// # Errors
/// A secret was shown, and where; or nothing was kept, which shows nothing.
pub fn find_leaks(directory: &Path) -> Result<String, String> {
    let secrets = read(&directory.join(SECRETS)).map(|text| Secrets::from_lines(&text));
    let secrets = secrets.unwrap_or_default();
    let (mut outputs, mut bytes) = (0, 0);
    for file in files(&directory.join(OUTPUTS)).map_err(|error| error.to_string())? {
        let text = read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        if let Some(line) = secrets.line_with_one(&text) {
            return Err(format!(
                "a secret in {}: {}",
                file.display(),
                secrets.shorten(line)
            ));
        }
        outputs += 1;
        bytes += text.len();
    }
    if secrets.is_empty() || bytes == 0 {
        return Err(format!(
            "{} secrets and {bytes} bytes of output were kept: nothing was looked at",
            secrets.len()
        ));
    }
    Ok(format!(
        "none of {} secrets in {} KiB of {outputs} kinds of output",
        secrets.len(),
        bytes / 1024
    ))
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Tests are many processes at once: each text is one write at the end of the file.
fn append(file: &Path, text: &str) {
    let folder = file.parent().expect("a file in the directory");
    fs::create_dir_all(folder).expect("the directory of what is kept");
    let file: io::Result<File> = OpenOptions::new().append(true).create(true).open(file);
    let written = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
    written.expect("what is kept can be written");
}

fn read(file: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_one_test_is_found_in_anothers_output() {
        const SECRET: &str = "s.aaaaaaaaaaaaaaaaaaaaaaaa";
        let directory = tempfile::tempdir().unwrap();
        let outputs = directory.path().join(OUTPUTS);
        let nothing = find_leaks(directory.path());
        assert!(nothing.is_err(), "{nothing:?}");
        append(&outputs.join("the-log"), "well");
        let nothing = find_leaks(directory.path());
        assert!(nothing.unwrap_err().contains("nothing was looked at"));
        append(&directory.path().join(SECRETS), SECRET);
        find_leaks(directory.path()).unwrap();
        append(&outputs.join("the-other"), &format!("well\ntoken={SECRET}"));
        let leak = find_leaks(directory.path()).unwrap_err();
        assert!(
            leak.contains("the-other: token=s.aaaa…") && !leak.contains(SECRET),
            "{leak}"
        );
    }
}
