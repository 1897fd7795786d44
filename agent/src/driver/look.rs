//! A look at a place that changes nothing there, and waits for no other command.

use super::place::{answers, found_in};
use super::program::{Found, MODE};
use super::{Problem, RELATIVE};
use crate::root_own;
use std::path::Path;

/// What a place has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is no such directory.
    NoPlace,
    /// It has no driver of this name.
    Nothing,
    /// Another driver of this name, which `install-driver` would leave alone.
    Foreign,
    /// Something that is no program, and what.
    Strange(&'static str),
    /// A driver of ours.
    Ours {
        /// Its version.
        version: String,
        /// It is root's and has the mode that `install-driver` gives.
        well_installed: bool,
    },
}

/// Looks at a place.
///
/// # Errors
/// It cannot be looked at, or someone else than root could change it.
pub fn look(place: &Path) -> Result<Look, Problem> {
    let directory = match root_own::directory(place) {
        Ok(directory) => directory,
        Err(root_own::Error::Missing(_)) => return Ok(Look::NoPlace),
        Err(root_own::Error::Unsafe(why)) => return Err(Problem::Failed(why)),
        Err(root_own::Error::Io(path, error)) => {
            return Err(Problem::from_error("cannot look at", &path, &error));
        }
    };
    Ok(match found_in(&directory)? {
        Found::Nothing => Look::Nothing,
        Found::Foreign(_) => Look::Foreign,
        Found::Strange(what) => Look::Strange(what),
        Found::Ours(program, version) => Look::Ours {
            version,
            well_installed: program.mode == MODE,
        },
    })
}

/// Runs the driver of a place as the kubelet does first, which changes nothing.
///
/// # Errors
/// It does not run there, or does not answer; why.
pub fn try_out(place: &Path) -> Result<(), String> {
    answers(&place.join(RELATIVE)).map_err(|error| error.to_string())
}
