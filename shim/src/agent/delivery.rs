//! The agent's answer to a mount, checked before anything is made of it.

use super::Error;
use crate::answer::cut;
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use vaulttmpfs_api::{Directory, File, Owner, VolumeAnswer, VolumeId};

/// The longest name that Linux gives a file (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// The largest tmpfs that is made, in bytes: an answer holds at most 1 MiB, the rest is for later.
const MAX_SIZE: u64 = 1 << 30;

/// A volume as the agent delivers it: every name a single component and no two the same, every mode
/// nothing but permission bits.
pub struct Delivery<'a>(VolumeAnswer<'a>);

/// A file to write.
pub struct FileContent<'a> {
    /// A single path component.
    pub name: &'a str,
    /// Permission bits.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
    /// What is in it.
    pub bytes: Secret,
}

impl<'a> Delivery<'a> {
    /// Checks an answer's body. Errors never quote a content.
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        // serde_json's messages quote what they stumble over.
        let answer: VolumeAnswer = serde_json::from_slice(body)
            .map_err(|e| odd(format!("it is no volume (byte {} of its JSON)", e.column())))?;
        if !(1..=MAX_SIZE).contains(&answer.directory.size) {
            return Err(odd(format!("the size {} bytes", answer.directory.size)));
        }
        check_mode(answer.directory.mode)?;
        for file in &answer.files {
            check_name(&file.name)?;
            check_mode(file.mode)?;
        }
        check_twins(&answer.files)?;
        Ok(Self(answer))
    }

    /// The volume's id.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.0.id
    }

    /// After this it must not be attached: milliseconds on `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn attach_by(&self) -> u64 {
        self.0.attach_by
    }

    /// The volume's root.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.0.directory
    }

    /// How many files there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.files.len()
    }

    /// The files, decoded one after the other.
    pub fn files(&self) -> impl Iterator<Item = Result<FileContent<'_>, Error>> {
        self.0.files.iter().map(|file| {
            Ok(FileContent {
                name: &file.name,
                mode: file.mode,
                owner: file.owner,
                bytes: STANDARD
                    .decode(file.bytes.as_bytes())
                    .map(Secret::from)
                    .map_err(|_| odd(format!("the file {:?} is not base64", file.name)))?,
            })
        })
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let unclean = name.bytes().any(|b| b == b'/' || b.is_ascii_control());
    if name.is_empty() || name.len() > MAX_NAME || unclean || name == "." || name == ".." {
        return Err(odd(format!("the file name {:?}", cut(name, MAX_NAME))));
    }
    Ok(())
}

fn check_mode(mode: u32) -> Result<(), Error> {
    if mode > 0o777 {
        return Err(odd(format!("the mode {mode:o}")));
    }
    Ok(())
}

fn check_twins(files: &[File<'_>]) -> Result<(), Error> {
    let mut names: Vec<&str> = files.iter().map(|file| &*file.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(odd(format!("two files are named {:?}", pair[0]))),
        None => Ok(()),
    }
}

fn odd(why: String) -> Error {
    Error::Odd(Cow::Owned(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn answer() -> Value {
        json!({
            "id": "000102030405060708090a0b0c0d0eff", "attach_by": 5,
            "directory": {"mode": 0o755, "owner": {"uid": 0, "gid": 7}, "size": 4096},
            "files": [
                {"name": "token", "mode": 0o640, "owner": {"uid": 0, "gid": 7}, "bytes": "cy5hYmM="},
                {"name": "..token", "mode": 0, "owner": {"uid": 1, "gid": 2}, "bytes": ""},
            ],
        })
    }

    fn refusal(answer: &Value) -> String {
        let body = answer.to_string();
        let error = match Delivery::parse(body.as_bytes()) {
            Err(e) => e,
            Ok(delivery) => match delivery.files().find_map(Result::err) {
                Some(e) => e,
                None => panic!("{body} was taken"),
            },
        };
        error.to_string()
    }

    #[test]
    fn takes_a_volume() {
        let body = answer().to_string();
        let delivery = Delivery::parse(body.as_bytes()).unwrap();
        assert_eq!((delivery.attach_by(), delivery.count()), (5, 2));
        assert_eq!(delivery.directory().owner, Owner { uid: 0, gid: 7 });
        let files: Vec<_> = delivery.files().map(Result::unwrap).collect();
        assert_eq!((files[0].name, files[0].mode), ("token", 0o640));
        assert_eq!(&*files[0].bytes, b"s.abc");
        assert_eq!((files[1].name, files[1].bytes.len()), ("..token", 0));
    }

    #[test]
    fn refuses_hostile_ones_without_quoting_contents() {
        let long = "n".repeat(256);
        for (pointer, value, part) in [
            ("/files/0/name", json!(""), "file name"),
            ("/files/0/name", json!("."), "file name"),
            ("/files/0/name", json!(".."), "file name"),
            ("/files/0/name", json!("../x"), "file name"),
            ("/files/0/name", json!("/etc/passwd"), "file name"),
            ("/files/0/name", json!("a\u{0}b"), "file name"),
            ("/files/0/name", json!("a\nb"), "file name"),
            ("/files/0/name", json!(long), "file name"),
            ("/files/0/name", json!("..token"), "two files"),
            ("/files/0/mode", json!(0o4755), "mode 4755"),
            ("/files/0/mode", json!(-1), "no volume"),
            ("/files/0/owner/uid", json!(1_u64 << 32), "no volume"),
            ("/files/0/bytes", json!("cy5hYmM"), "not base64"),
            ("/files/0/bytes", json!("cy5 hYmM="), "not base64"),
            ("/files/0/bytes", json!(["cy5hYmM="]), "no volume"),
            ("/files", json!({}), "no volume"),
            ("/directory/size", json!(0), "size 0"),
            (
                "/directory/size",
                json!(u64::MAX),
                "size 18446744073709551615",
            ),
            ("/directory/mode", json!(0o1777), "mode 1777"),
            ("/id", json!("../../x"), "no volume"),
            ("/attach_by", json!("soon"), "no volume"),
        ] {
            let mut hostile = answer();
            *hostile.pointer_mut(pointer).unwrap() = value;
            let shown = refusal(&hostile);
            assert!(shown.contains(part), "{pointer}: {shown}");
            assert!(!shown.contains("cy5"), "{shown}");
        }
        assert!(Delivery::parse(b"").is_err());
        assert!(Delivery::parse(b"\xff").is_err());
        assert!(Delivery::parse("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_cannot_leave(name in "\\PC{0,8}|[./a\\x00]{0,4}") {
            let mut body = answer();
            body["files"][0]["name"] = json!(name);
            let body = body.to_string();
            if Delivery::parse(body.as_bytes()).is_ok() {
                let path = std::path::Path::new("/volume").join(&name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/volume")));
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
            }
        }
    }
}
