//! What journald hears from the programs of a node, without one: its socket, on a tmpfs that only
//! the node sees. That a real journald keeps it is for the tests that boot a systemd.

use crate::inbox::Inbox;
use crate::{Node, eventually};
use nix::mount::{MsFlags, mount};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

/// Where libsystemd looks for it.
const DIRECTORY: &str = "/run/systemd/journal";

/// Somebody who listens in journald's place.
pub struct Journald {
    inbox: Inbox,
    /// What it has heard and nobody has asked for.
    heard: Mutex<VecDeque<Entry>>,
}

/// An entry's fields by name.
pub type Entry = BTreeMap<String, String>;

impl Journald {
    /// Listens to whatever is started on this node from now on.
    #[must_use]
    pub fn start(_: &Node) -> Self {
        let plain = MsFlags::empty();
        mount(Some("run"), "/run", Some("tmpfs"), plain, Some("mode=0755")).expect("a tmpfs");
        fs::create_dir_all(DIRECTORY).expect("journald's directory");
        let path = format!("{DIRECTORY}/socket");
        let socket = UnixDatagram::bind(&path).expect("journald's socket");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("its mode");
        Self {
            inbox: Inbox::of(socket),
            heard: Mutex::default(),
        }
    }

    /// Everything heard since the last question.
    pub fn heard(&self) -> Vec<Entry> {
        let mut heard = self.heard.lock().expect("no panic meanwhile");
        heard.extend(self.inbox.take().iter().map(|message| entry(message)));
        heard.drain(..).collect()
    }

    /// Waits for an entry whose message begins so; others are forgotten.
    #[track_caller]
    pub fn hears(&self, begin: &str) -> Entry {
        eventually(&format!("journald to hear {begin}"), || {
            let mut heard = VecDeque::from(self.heard());
            let place = heard
                .iter()
                .position(|entry| entry["MESSAGE"].starts_with(begin))?;
            let rest = heard.split_off(place + 1);
            let mut kept = self.heard.lock().expect("no panic meanwhile");
            *kept = rest.into_iter().chain(kept.drain(..)).collect();
            heard.pop_back()
        })
    }
}

/// journald's own protocol: `NAME=value` a line, or a name alone, followed by the length of what may
/// have line ends (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).
fn entry(mut bytes: &[u8]) -> Entry {
    const LENGTH: usize = size_of::<u64>();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut entry = Entry::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        bytes = rest;
        let sign = line.iter().position(|byte| *byte == b'=');
        let (name, value) = if let Some(sign) = sign {
            (&line[..sign], &line[sign + 1..])
        } else {
            let (length, rest) = bytes.split_at(LENGTH);
            let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
            let (value, rest) = rest.split_at(usize::try_from(length).expect("a length"));
            bytes = &rest[1..];
            (line, value)
        };
        entry.insert(text(name), text(value));
    }
    assert!(bytes.is_empty(), "half a field: {bytes:?}");
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_field_are_read() {
        let entry = entry(b"A=1=2\nB\n\x03\0\0\0\0\0\0\0x\ny\nC=\n");
        let fields = [("A", "1=2"), ("B", "x\ny"), ("C", "")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(entry, Entry::from(fields));
    }
}
