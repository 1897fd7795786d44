//! A support bundle: what there is to know of a node in one archive, and nothing secret in it.

mod scrub;
mod settings;

pub use settings::settings;

use crate::line::one_line;
use flate2::Compression;
use flate2::write::GzEncoder;
use scrub::without_tokens;
use std::io;
use tar::{Builder, Header};

/// The most that is kept of one part, in bytes.
pub const MAX_PART: usize = 16 * 1024 * 1024;

/// Longer reasons why a part is missing are cut, in bytes.
const LONGEST_REASON: usize = 1024;

/// One file of the bundle.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What is in it, or why it is not there.
    pub content: Result<String, String>,
}

impl Part {
    /// A part, whatever it came to. What looks like a token is taken out of it, though none should be
    /// there.
    #[must_use]
    pub fn new(name: &'static str, content: Result<Vec<u8>, String>) -> Self {
        let content = content
            .map(bounded)
            .map(|text| without_tokens(&text))
            .map_err(|why| without_tokens(&one_line(&why, LONGEST_REASON)));
        Self { name, content }
    }

    /// What there is to say of it in the bundle's table of contents.
    fn line(&self) -> String {
        match &self.content {
            Ok(text) => format!("{:14} {} bytes\n", self.name, text.len()),
            Err(why) => format!("{:14} left out: {why}\n", self.name),
        }
    }

    /// Why it is not there stands where it would be, too.
    fn text(&self) -> String {
        match &self.content {
            Ok(text) => text.clone(),
            Err(why) => format!("left out: {why}\n"),
        }
    }
}

/// The archive, compressed: a directory with a file for each part, and `about.txt`, which begins so
/// and lists them. `now` is in seconds since 1970.
///
/// # Errors
/// The archive cannot be made.
pub fn pack(directory: &str, about: &str, parts: &[Part], now: u64) -> io::Result<Vec<u8>> {
    let contents: String = parts.iter().map(Part::line).collect();
    let about = format!("{about}\n{contents}");
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut add = |name: &str, text: &str| {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("{directory}/{name}"), text.as_bytes())
    };
    add("about.txt", &about)?;
    for part in parts {
        add(part.name, &part.text())?;
    }
    archive.into_inner()?.finish()
}

fn bounded(mut bytes: Vec<u8>) -> String {
    let cut = bytes.len() > MAX_PART;
    bytes.truncate(MAX_PART);
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if cut {
        text.push_str("\n(cut here)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    const TOKEN: &str = "s.aaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn a_bundle_has_each_part_and_says_what_is_missing() {
        let parts = [
            Part::new("one.txt", Ok(b"one\xff".to_vec())),
            Part::new("two.txt", Err(format!("no\nlog: {TOKEN}"))),
            Part::new("large.txt", Ok(vec![b'x'; MAX_PART + 1])),
        ];
        let packed = pack("dir", "about this", &parts, 7).unwrap();
        assert!(packed.len() < MAX_PART / 100);
        let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let files: Vec<(String, String)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mode().unwrap(), 0o600);
                let (path, mut text) = (entry.path().unwrap().into_owned(), String::new());
                entry.read_to_string(&mut text).unwrap();
                (path.to_str().unwrap().to_owned(), text)
            })
            .collect();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dir/about.txt",
                "dir/one.txt",
                "dir/two.txt",
                "dir/large.txt"
            ]
        );
        let missing = "left out: no log: (a token was here)\n";
        assert_eq!(
            files[0].1,
            format!(
                "about this\none.txt        6 bytes\ntwo.txt        {missing}large.txt      {} bytes\n",
                MAX_PART + "\n(cut here)\n".len()
            )
        );
        assert_eq!(
            (files[1].1.as_str(), files[2].1.as_str()),
            ("one\u{fffd}", missing)
        );
        assert!(files[3].1.ends_with("x\n(cut here)\n"));
    }
}
