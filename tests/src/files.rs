//! The files that were written where an agent ran. A secret may be in a volume, in the journal, and in a
//! file that is known to be for one, is its owner's alone and holds nothing else: the generator token's,
//! or a login's.

use crate::Secrets;
use flate2::read::GzDecoder;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The journal, below the agent's state directory: it needs accessors.
pub const JOURNAL: [&str; 2] = ["volumes", "set-aside"];

/// How gzip's files begin, of which support bundles are.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Whom a file's owner shares it with.
const OTHERS: u32 = 0o077;

impl Secrets {
    /// Fails the test when a file below `top`, these aside, has one of them and is not meant to; those
    /// for one of them are `kept`. Mounts below it are left out: volumes are such. Returns how many
    /// files there were.
    #[track_caller]
    pub fn assert_in_no_file(&self, top: &Path, aside: &[PathBuf], kept: &[PathBuf]) -> usize {
        let any = self.any();
        let files = files(top, aside);
        for (path, metadata) in &files {
            // One may go while one looks.
            let Ok(bytes) = read(path) else { continue };
            let alone = kept.contains(path)
                && metadata.permissions().mode() & OTHERS == 0
                && str::from_utf8(&bytes).is_ok_and(|text| self.has(text.trim()));
            assert!(
                alone || !any.is_match(&bytes),
                "a secret in the file {}, mode {:04o}",
                path.display(),
                metadata.permissions().mode() & 0o7777
            );
        }
        files.len()
    }
}

/// The regular files below a directory and on its file system.
fn files(top: &Path, aside: &[PathBuf]) -> Vec<(PathBuf, Metadata)> {
    let device = fs::metadata(top).map(|metadata| metadata.dev());
    let (mut pending, mut files) = (vec![top.to_owned()], Vec::new());
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.path().symlink_metadata()) else {
                continue;
            };
            if aside.contains(&path) {
                continue;
            }
            if metadata.is_dir() {
                // An overlay's files have the device of the layer that they are in.
                if device.as_ref().ok() == Some(&metadata.dev()) {
                    pending.push(path);
                }
            } else if metadata.is_file() {
                files.push((path, metadata));
            }
        }
    }
    files
}

/// What is in a file, behind it unpacked: as far as that goes, for it may be cut short.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    let _ = GzDecoder::new(&*bytes).read_to_end(&mut unpacked);
    Ok([bytes, unpacked].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;
    use std::io::Write;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const SECRET: &str = "s.aaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn a_secret_is_alone_in_a_file_of_its_owners_or_nowhere() {
        let secrets = Secrets::of(&[json!({ "token": SECRET })]);
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        write!(packed, "token={SECRET}").unwrap();
        let packed = packed.finish().unwrap();
        // Without the checksum and the length at its end.
        let cut = &packed[..packed.len() - 8];
        let false_gzip = [&GZIP, SECRET.as_bytes()].concat();
        let with = format!("token={SECRET}");
        let kept = [top.join("a/b/kept")];
        for (name, content, mode, good) in [
            ("kept", SECRET.as_bytes(), 0o600, true),
            ("kept", SECRET.as_bytes(), 0o640, false),
            ("kept", with.as_bytes(), 0o600, false),
            ("file", SECRET.as_bytes(), 0o600, false),
            ("file", &packed, 0o600, false),
            ("file", cut, 0o600, false),
            ("file", &false_gzip, 0o600, false),
            ("file", b"nothing", 0o644, true),
        ] {
            let path = top.join("a/b").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let look = |aside: &[PathBuf]| {
                let look = AssertUnwindSafe(|| secrets.assert_in_no_file(top, aside, &kept));
                catch_unwind(look).ok()
            };
            assert_eq!(look(&[]), good.then_some(1), "{name} {mode:o}");
            assert_eq!(look(&[top.join("a/b")]), Some(0));
            fs::remove_file(&path).unwrap();
        }
    }
}
