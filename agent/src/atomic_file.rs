//! Writing a file so that whoever reads it has the old one or the new one, whole.

use crate::root_own;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Puts a file in place by rename, on disk when this returns: after a power cut there is the old one or
/// the new one. Its directory must be the caller's alone.
///
/// # Errors
/// It cannot be written, or something that is no regular file has the name; then what was there stands.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put(path, |new| write_new(new, content, mode))
}

/// The same for a file that belongs to whoever its forerunner belonged to, where there was one. That is
/// believed only where nobody but root could have put the forerunner there; elsewhere the file is the
/// caller's.
///
/// # Errors
/// As [`write()`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let before = forerunner(path)?.filter(|_| root_own::directory(directory(path)).is_ok());
    put(path, |new| {
        write_new(new, content, mode)?;
        before.map_or(Ok(()), |it| chown(new, Some(it.uid()), Some(it.gid())))
    })
}

/// The regular file that a new one would take the place of, or nothing.
///
/// # Errors
/// There is something else, like a device or a symbolic link, which is not to be replaced by a file; or
/// it cannot be looked at.
pub fn forerunner(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(before) if before.is_file() => Ok(Some(before)),
        Ok(_) => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "there is something that is no regular file: name another path",
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A relative path's parent may be the empty path, which cannot be opened.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn put(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    forerunner(path)?;
    let new = new_file(path);
    let placed = write(&new).and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        // One that a full disk left half written takes room from the next.
        let _ = fs::remove_file(&new);
    }
    placed?;
    // The new one is in place, whatever the directory says: a failure would have the caller take back
    // what is in use. The worst is that a power cut brings back the old one, whole.
    let _ = sync_directory(directory(path));
    Ok(())
}

/// One name, so that what a killed process left behind is written over by the next.
fn new_file(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Writes a new file, on disk when this returns.
///
/// # Errors
/// It cannot be written; a part of it may be there.
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Has what was renamed in a directory stay so over a power cut.
///
/// # Errors
/// The disk says so.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::{Uid, geteuid, mkfifo, setfsuid};
    use std::os::unix::fs::symlink;
    use std::thread;

    #[test]
    fn what_is_written_is_there_with_its_mode_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(new_file(&path), "left behind").unwrap();
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two", 0o755).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write(&directory.path().join("none/file"), b"", 0o644).is_err());
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("plain"), "stays").unwrap();
        symlink(path("plain"), path("link")).unwrap();
        symlink(path("none"), path("dangling")).unwrap();
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir(path("directory")).unwrap();
        let listed = fs::read_dir(directory.path()).unwrap().count();
        for name in ["link", "dangling", "pipe", "directory"] {
            let before = fs::symlink_metadata(path(name)).unwrap().ino();
            for put in [write, replace] {
                let refused = put(&path(name), b"new", 0o600).unwrap_err().to_string();
                assert!(refused.contains("no regular file"), "{name}: {refused}");
            }
            assert_eq!(fs::symlink_metadata(path(name)).unwrap().ino(), before);
        }
        assert_eq!(fs::read(path("plain")).unwrap(), b"stays");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), listed);
    }

    #[test]
    fn an_owner_is_kept_only_where_root_alone_could_have_set_it() {
        if !geteuid().is_root() {
            // Without root no file can be given away.
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (mode, expected) in [(0o755, 1), (0o775, 0), (0o1777, 0)] {
            fs::write(&path, "planted").unwrap();
            chown(&path, Some(1), Some(1)).unwrap();
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            replace(&path, b"new", 0o600).unwrap();
            let owner = fs::metadata(&path).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (expected, expected), "{mode:o}");
        }
    }

    #[test]
    fn what_is_in_place_is_no_failure() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        fs::set_permissions(base, Permissions::from_mode(0o755)).unwrap();
        let unread = base.join("unread");
        fs::create_dir(&unread).unwrap();
        // It can be written to, but not be opened to be synced.
        fs::set_permissions(&unread, Permissions::from_mode(0o300)).unwrap();
        let user = if geteuid().is_root() {
            Uid::from_raw(1)
        } else {
            geteuid()
        };
        chown(&unread, Some(user.as_raw()), None).unwrap();
        let path = unread.join("file");
        let written = thread::spawn(move || {
            // Of this thread alone.
            setfsuid(user);
            assert!(sync_directory(&unread).is_err());
            write(&unread.join("file"), b"new", 0o600)
        });
        written.join().unwrap().unwrap();
        fs::set_permissions(base.join("unread"), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"new");
    }
}
