//! Writing a file so that whoever reads it has the old one or the new one, whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Puts a file in place by rename, on disk when this returns. Its directory must be the caller's alone.
///
/// # Errors
/// It cannot be written; then the old one stands.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put(path, |new| write_new(new, content, mode))
}

/// The same for a file that belongs to whoever its forerunner belonged to, where there was one.
///
/// # Errors
/// As [`write()`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let before = match fs::metadata(path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    put(path, |new| {
        write_new(new, content, mode)?;
        before.map_or(Ok(()), |it| chown(new, Some(it.uid()), Some(it.gid())))
    })
}

fn put(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = new_file(path);
    let placed = write(&new).and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        // One that a full disk left half written takes room from the next.
        let _ = fs::remove_file(&new);
    }
    placed?;
    path.parent().map_or(Ok(()), sync_directory)
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
}
