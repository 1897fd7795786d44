//! Drivers that were replaced by force, kept for a rollback: outside every plugin directory, below one
//! that mirrors the places' paths.

use super::place::FILE;
use super::program::{Found, Program};
use super::{Place, Problem};
use crate::{atomic_file, root_own};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Not the agent's state directory, which is its user's.
const DIRECTORY: &str = "/var/lib/vaulttmpfs-driver";

/// The driver that was replaced in one place.
pub struct Kept {
    file: PathBuf,
}

impl Kept {
    pub(super) fn of(place: &Place) -> Result<Self, Problem> {
        let directory = Path::new(DIRECTORY);
        match root_own::directory(directory) {
            Ok(_) | Err(root_own::Error::Missing(_)) => {}
            Err(root_own::Error::Unsafe(why)) => return Err(Problem::Failed(why)),
            Err(root_own::Error::Io(path, error)) => {
                return Err(Problem::from_error("cannot look at", &path, &error));
            }
        }
        let mirrored = place
            .directory()
            .strip_prefix("/")
            .unwrap_or(place.directory());
        Ok(Self {
            file: directory.join(mirrored).join(FILE),
        })
    }

    /// Keeps a program; one that was kept before is kept no longer.
    pub(super) fn keep(&self, program: &Program) -> Result<(), Problem> {
        let failed = |error| {
            Problem::from_error(
                "cannot keep the driver that is there as",
                &self.file,
                &error,
            )
        };
        let directory = self.file.parent().unwrap_or(&self.file);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        atomic_file::write(&self.file, &program.bytes, program.mode).map_err(failed)
    }

    /// What is kept.
    pub(super) fn program(&self) -> Result<Option<Program>, Problem> {
        match Program::find(&self.file)? {
            Found::Ours(program, _) | Found::Foreign(program) => Ok(Some(program)),
            Found::Nothing | Found::Strange(_) => Ok(None),
        }
    }

    /// Keeps it no longer.
    pub(super) fn forget(&self) -> Result<(), Problem> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Problem::from_error("cannot remove", &self.file, &error));
            }
            _ => {}
        }
        for directory in self.file.ancestors().skip(1) {
            // Up to the first that holds another place's, and no higher than our own.
            if !directory.starts_with(DIRECTORY) || fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }
}
