//! Directories that nobody but root can change, up to the root of the file system.

use nix::unistd::Uid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Group and others may write.
const OTHERS_WRITE: u32 = 0o022;

const STICKY: u32 = 0o1000;

/// Why a directory is not root's own.
#[derive(Debug)]
pub enum Error {
    /// There is none.
    Missing(PathBuf),
    /// Someone else could put something else there; what to do.
    Unsafe(String),
    /// It could not be looked at.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(out, "{} does not exist", path.display()),
            Self::Unsafe(why) => out.write_str(why),
            Self::Io(path, error) => write!(out, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// The directory's path without symbolic links, once it is sure that only root could change where the
/// path leads: then it stays so, and may be used as a path. Links are root's own, too; a directory above
/// may be like `/tmp`, where only its owner renames what is in it.
///
/// # Errors
/// It is not there, or not root's own.
pub fn directory(path: &Path) -> Result<PathBuf, Error> {
    directory_for(path, Uid::from_raw(0))
}

/// The same where this user, too, may be the owner: for what a user other than root puts at home.
///
/// # Errors
/// As [`directory`].
pub fn directory_for(path: &Path, user: Uid) -> Result<PathBuf, Error> {
    let mut todo: VecDeque<OsString> = parts(path);
    let mut sure = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            sure.pop();
            continue;
        }
        let next = sure.join(&part);
        let metadata = match fs::symlink_metadata(&next) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::Missing(next)),
            Err(error) => return Err(Error::Io(next, error)),
        };
        check(&next, &metadata, user, todo.is_empty())?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::Unsafe(format!(
                    "{}: too many symbolic links",
                    path.display()
                )));
            }
            let target = fs::read_link(&next).map_err(|error| Error::Io(next, error))?;
            if target.is_absolute() {
                sure = PathBuf::from("/");
            }
            let mut target = parts(&target);
            target.append(&mut todo);
            todo = target;
        } else {
            sure = next;
        }
    }
    Ok(sure)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn check(path: &Path, metadata: &Metadata, user: Uid, last: bool) -> Result<(), Error> {
    let shown = path.display();
    let owner = metadata.uid();
    if owner != 0 && owner != user.as_raw() {
        return Err(Error::Unsafe(format!(
            "{shown} belongs to user {owner}, who could put another file there: chown root {shown}"
        )));
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    if !metadata.is_dir() {
        return Err(Error::Unsafe(format!("{shown} is not a directory")));
    }
    let mode = metadata.permissions().mode();
    let held = mode & STICKY != 0 && !last;
    if mode & OTHERS_WRITE != 0 && !held {
        return Err(Error::Unsafe(format!(
            "others than its owner may write to {shown}, and put another file there: chmod go-w {shown}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, lchown, symlink};

    fn root() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        nix::unistd::geteuid().is_root().then_some(directory)
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_is_roots_alone_is_taken() {
        let Some(directory) = root() else {
            // Without root nothing here is root's.
            return;
        };
        let base = directory.path().canonicalize().unwrap();
        let path = |name| base.join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        symlink("../a/./b", path("a/link")).unwrap();
        symlink(path("a/link"), path("far")).unwrap();
        symlink("round", path("round")).unwrap();
        fs::write(path("file"), "").unwrap();
        for good in ["a/b", "a/link", "far"] {
            assert_eq!(directory_of(&path(good)).unwrap(), path("a/b"), "{good}");
        }
        for (bad, why) in [("round", "too many"), ("file", "not a directory")] {
            assert!(directory_of(&path(bad)).unwrap_err().contains(why), "{bad}");
        }
        assert!(
            matches!(super::directory(&path("a/none/b")), Err(Error::Missing(it)) if it == path("a/none"))
        );

        set(&path("a"), 0o775);
        assert!(
            directory_of(&path("a/b"))
                .unwrap_err()
                .contains("chmod go-w")
        );
        // Nobody renames another's directory there; but anybody may put one there.
        set(&path("a"), 0o1777);
        directory_of(&path("a/b")).unwrap();
        assert!(directory_of(&path("a")).unwrap_err().contains("chmod go-w"));
        set(&path("a"), 0o755);
        lchown(path("far"), Some(1), None).unwrap();
        assert!(directory_of(&path("far")).unwrap_err().contains("user 1"));
        chown(path("a"), Some(2), None).unwrap();
        assert!(directory_of(&path("a/b")).unwrap_err().contains("user 2"));
        directory_for(&path("a/b"), Uid::from_raw(2)).unwrap();
        assert!(directory_for(&path("a/b"), Uid::from_raw(3)).is_err());
    }

    fn directory_of(path: &Path) -> Result<PathBuf, String> {
        super::directory(path).map_err(|error| format!("{error:?}"))
    }
}
