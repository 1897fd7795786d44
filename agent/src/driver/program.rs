//! A driver's program: whose it is, told without running it.

use crate::plain_file;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use vaulttmpfs_api::{DRIVER_MARK, DRIVER_MARK_END};

use super::Problem;

/// The largest program that is read, in bytes. The driver has about one million.
const MAX_PROGRAM: u64 = 256 * 1024 * 1024;

/// The longest version that is taken for one, in bytes.
const MAX_VERSION: usize = 64;

/// The mode of an installed driver.
pub(super) const MODE: u32 = 0o755;

/// A program, whole.
#[derive(Debug)]
pub struct Program {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

/// What is where the driver should be.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A driver of ours.
    Ours(Program, String),
    /// The program of someone else.
    Foreign(Program),
    /// Not even a program.
    Strange(&'static str),
}

impl Program {
    /// Reads a driver of ours, to be installed.
    ///
    /// # Errors
    /// It is not there, or is not one.
    pub fn ours(path: &Path) -> Result<Self, Problem> {
        let bytes = plain_file::read_named(path, MAX_PROGRAM)
            .map_err(|error| Problem::from_error("cannot read the driver", path, &error))?;
        let program = Self {
            bytes: bytes.to_vec(),
            mode: MODE,
        };
        match program.version() {
            Some(_) => Ok(program),
            None => Err(Problem::Failed(format!(
                "{} is not the vaulttmpfs driver: --from must name what packaging/build-driver made",
                path.display()
            ))),
        }
    }

    /// Reads whatever program is there.
    pub(super) fn find(path: &Path) -> Result<Found, Problem> {
        let failed = |error| Problem::from_error("cannot read", path, &error);
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() {
            return Ok(Found::Strange(if metadata.is_symlink() {
                "a symbolic link"
            } else {
                "no file"
            }));
        }
        let bytes = plain_file::read(path, MAX_PROGRAM)
            .map_err(failed)?
            .to_vec();
        let mut mode = metadata.permissions().mode() & 0o7777;
        if metadata.uid() != 0 {
            // Not to be taken for one that is installed well.
            mode = 0;
        }
        let program = Self { bytes, mode };
        Ok(match program.version() {
            Some(version) => Found::Ours(program, version),
            None => Found::Foreign(program),
        })
    }

    /// The version, of a driver of ours: it stands in the program between two texts, as its
    /// `--version` says it.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        self.bytes
            .utf8_chunks()
            .flat_map(|chunk| chunk.valid().split(DRIVER_MARK).skip(1))
            .filter_map(|rest| rest.split_once(DRIVER_MARK_END))
            .map(|(version, _)| version)
            .find(|version| is_version(version))
            .map(str::to_owned)
    }

    /// Is it installed as this one would be?
    pub(super) fn is(&self, other: &Self) -> bool {
        self.mode == other.mode && self.bytes == other.bytes
    }
}

fn is_version(text: &str) -> bool {
    text.len() <= MAX_VERSION
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-+~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(bytes: &[u8]) -> Option<String> {
        let program = Program {
            bytes: bytes.to_vec(),
            mode: MODE,
        };
        program.version()
    }

    #[test]
    fn a_driver_of_ours_says_its_version() {
        let mark = |version: &str| format!("{DRIVER_MARK}{version}{DRIVER_MARK_END}");
        let long = "1".repeat(MAX_VERSION + 1);
        for (text, expected) in [
            (mark("0.1.0"), Some("0.1.0")),
            (
                format!("\x7fELF{}\0", mark("1.0.0-rc1+x~2")),
                Some("1.0.0-rc1+x~2"),
            ),
            (format!("{DRIVER_MARK}{}", mark("2.0.0")), Some("2.0.0")),
            (format!("{DRIVER_MARK}\0{DRIVER_MARK_END}"), None),
            (mark(""), None),
            (mark("%s"), None),
            (mark(&long), None),
            (DRIVER_MARK.to_owned(), None),
            ("#!/bin/sh\nexec vaulttmpfs-shim \"$@\"\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(version(text.as_bytes()).as_deref(), expected, "{text:?}");
        }
    }
}
