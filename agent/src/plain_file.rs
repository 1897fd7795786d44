//! Reading a file that someone else may have put there: a pipe is not waited for, and no more is read
//! than may be.

use nix::fcntl::OFlag;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// What is in a plain file of at most `max` bytes. No symbolic link is followed at its end.
///
/// # Errors
/// It is longer, is no plain file, or cannot be read.
pub fn read(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    open(path, max, OFlag::O_NOFOLLOW)
}

/// [`read`], which follows symbolic links: for files that root names.
///
/// # Errors
/// As [`read`].
pub fn read_named(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    open(path, max, OFlag::empty())
}

fn open(path: &Path, max: u64, flags: OFlag) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((flags | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a plain file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let long = format!("longer than {max} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, long));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_that_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        std::fs::write(path("plain"), "four").unwrap();
        std::os::unix::fs::symlink(path("plain"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(*read(&path("plain"), 4).unwrap(), b"four");
        assert_eq!(*read_named(&path("link"), 4).unwrap(), b"four");
        for refused in [
            read(&path("plain"), 3),
            read(&path("link"), 4),
            read(&path("pipe"), 4),
            read(directory.path(), 4),
            read(&path("none"), 4),
        ] {
            assert!(refused.is_err());
        }
    }
}
