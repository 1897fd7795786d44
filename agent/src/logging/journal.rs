//! journald, which takes an event with its fields.

use super::event::Said;
use nix::sys::stat::fstat;
use std::io;
use std::path::Path;
use systemd::journal;
use tracing::Level;

/// Where journald listens, a constant in libsystemd.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Device and inode of the stream that systemd connected to journald, as `DEVICE:INODE`
/// (`systemd.exec(5)`).
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// What `journalctl --identifier` asks for.
const IDENTIFIER: &str = "vaulttmpfs";

/// The program's own fields begin so (`systemd.journal-fields(7)`).
const PREFIX: &str = "VAULTTMPFS_";

/// Is there a journald to be reached from here?
pub(super) fn listens() -> bool {
    Path::new(SOCKET).exists()
}

/// Does standard error lead to journald?
pub(super) fn has_stderr() -> bool {
    let Some(stream) = std::env::var_os(JOURNAL_STREAM) else {
        return false;
    };
    // A parent's variable may be left while standard error leads elsewhere.
    fstat(io::stderr()).is_ok_and(|file| stream == *format!("{}:{}", file.st_dev, file.st_ino))
}

/// Hands an event over.
pub(super) fn send(said: &Said) -> Result<(), systemd::Error> {
    let fields = fields(said);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    journal::send(&fields)
}

/// `NAME=value` each. An event's texts have no line end, which would begin another field.
fn fields(said: &Said) -> Vec<String> {
    let mut fields = vec![
        format!("MESSAGE={}", said.message),
        format!("PRIORITY={}", priority(said.level)),
        format!("SYSLOG_IDENTIFIER={IDENTIFIER}"),
    ];
    let own = said.fields.iter();
    fields.extend(own.map(|(name, value)| format!("{PREFIX}{}={value}", name.to_uppercase())));
    fields
}

/// As `syslog(3)` counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Value;
    use super::*;

    #[test]
    fn an_event_is_sent_with_its_fields() {
        let said = |level| Said {
            level,
            message: "a volume = b".to_owned(),
            fields: vec![
                ("pod", Value::Text("web-0 PRIORITY=0".to_owned())),
                ("duration_ms", Value::Number(12)),
            ],
            place: "here",
            news: false,
        };
        for (level, priority) in [
            (Level::ERROR, "PRIORITY=3"),
            (Level::WARN, "PRIORITY=4"),
            (Level::INFO, "PRIORITY=6"),
            (Level::DEBUG, "PRIORITY=7"),
        ] {
            assert_eq!(
                fields(&said(level)),
                [
                    "MESSAGE=a volume = b",
                    priority,
                    "SYSLOG_IDENTIFIER=vaulttmpfs",
                    "VAULTTMPFS_POD=web-0 PRIORITY=0",
                    "VAULTTMPFS_DURATION_MS=12",
                ]
            );
        }
    }
}
