//! The list of places: root's file, one directory a line.

use super::Problem;
use super::hold::hold;
use crate::{atomic_file, plain_file, root_own};
use nix::fcntl::Flock;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The list.
const FILE: &str = "/etc/vaulttmpfs/driver-dirs";

/// The largest list that is read, in bytes.
const MAX_LIST: u64 = 64 * 1024;

const HEAD: &str = "\
# The volume plugin directories that have the driver, one a line. `vaulttmpfs install-driver` keeps this list; upgrades
# of the package bring the driver up to date in each of them.
";

/// The list as it is.
#[derive(Debug, Default)]
pub struct List {
    text: String,
    /// The places, in order, each once.
    pub places: Vec<PathBuf>,
    /// What is wrong with each bad line.
    pub bad: Vec<String>,
}

impl List {
    /// Reads the list; one that is not there is empty.
    ///
    /// # Errors
    /// It cannot be read, or someone else than root could have written it.
    pub fn read() -> Result<Self, Problem> {
        let path = Path::new(FILE);
        let failed = |error| Problem::from_error("cannot read", path, &error);
        match root_own::directory(directory()) {
            Ok(_) => {}
            Err(root_own::Error::Missing(_)) => return Ok(Self::default()),
            Err(root_own::Error::Unsafe(why)) => return Err(Problem::Failed(why)),
            Err(root_own::Error::Io(_, error)) => return Err(failed(error)),
        }
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        if metadata.uid() != 0 || metadata.permissions().mode() & 0o022 != 0 {
            return Err(Problem::Failed(format!(
                "others than root may write to {FILE}: chown root {FILE} && chmod go-w {FILE}"
            )));
        }
        let bytes = plain_file::read(path, MAX_LIST).map_err(failed)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Problem::Failed(format!("{FILE} is not UTF-8")))?;
        Ok(Self::parse(text))
    }

    fn parse(text: &str) -> Self {
        let mut list = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match place(line) {
                Ok(place) if list.places.contains(&place) => {}
                Ok(place) => list.places.push(place),
                Err(why) => {
                    let shown: String = line.chars().take(200).collect();
                    list.bad
                        .push(format!("line {} of {FILE}, {shown:?}: {why}", index + 1));
                }
            }
        }
        list
    }

    fn has(&self, place: &Path) -> bool {
        self.places.iter().any(|it| it == place)
    }

    /// Adds a place, if it is not there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(place: &Path) -> Result<(), Problem> {
        let _held = hold_list()?;
        let mut list = Self::read()?;
        if list.has(place) {
            return Ok(());
        }
        if list.text.is_empty() {
            list.text.push_str(HEAD);
        }
        if !list.text.ends_with('\n') {
            list.text.push('\n');
        }
        list.text.push_str(&place.to_string_lossy());
        list.text.push('\n');
        list.write()
    }

    fn write(&self) -> Result<(), Problem> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory())
            .and_then(|()| atomic_file::write(Path::new(FILE), self.text.as_bytes(), 0o644))
            .map_err(|error| Problem::from_error("cannot write", Path::new(FILE), &error))
    }

    /// Takes a place out under all its names, if it is there, and the list away with its last place.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn take_out(gone: &Path) -> Result<(), Problem> {
        let _held = hold_list()?;
        let list = Self::read()?;
        if !list.places.iter().any(|it| is_same(it, gone)) {
            return Ok(());
        }
        let list = list.without(gone);
        if !list.places.is_empty() || !list.bad.is_empty() {
            return list.write();
        }
        fs::remove_file(FILE)
            .map_err(|error| Problem::from_error("cannot remove", Path::new(FILE), &error))?;
        // Where it holds nothing else.
        let _ = fs::remove_dir(directory());
        Ok(())
    }

    fn without(&self, gone: &Path) -> Self {
        let kept: String = self
            .text
            .lines()
            .filter(|line| !place(line.trim()).is_ok_and(|it| is_same(&it, gone)))
            .flat_map(|line| [line, "\n"])
            .collect();
        Self::parse(&kept)
    }
}

/// Whether two names are one place's: symbolic links may lead there.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Keeps other commands from changing the list: what one of them has added would be lost, or half of it
/// written by the other. Not by the list's own directory, which goes with its last place.
fn hold_list() -> Result<Flock<File>, Problem> {
    hold(directory().parent().unwrap_or(directory()))
}

fn directory() -> &'static Path {
    Path::new(FILE).parent().unwrap_or(Path::new("/"))
}

/// A place as a person names it.
///
/// # Errors
/// What is expected.
pub fn place(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let clean = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    if !path.is_absolute() || !clean || text.chars().any(char::is_control) {
        return Err("expected an absolute path without `..`".to_owned());
    }
    // Without slashes at its end, and none twice.
    Ok(path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_named_and_the_others_count() {
        let list = List::parse("# comment\n\n /a/b/ \n/a//b\nrelative\n/a/../b\n/c d\n/e\u{7}\n");
        assert_eq!(list.places, [PathBuf::from("/a/b"), PathBuf::from("/c d")]);
        assert_eq!(list.bad.len(), 3, "{:?}", list.bad);
        assert!(list.bad[0].contains("line 5 ") && list.bad[0].contains("\"relative\""));
        assert!(List::parse("").places.is_empty());
    }
}
