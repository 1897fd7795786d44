//! An event as a line: text for people, JSON for programs.

use super::event::{Said, Value};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt::Write as _;
use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// `2026-11-21T13:59:28.123456Z  INFO a message pod=web-0`.
pub(super) fn text(said: &Said, time: &str) -> String {
    let mut line = format!("{time} {:>5} {}", said.level, said.message);
    // Writing to a String cannot fail.
    for (name, value) in &said.fields {
        let _ = match value {
            Value::Text(text) if !is_word(text) => write!(line, " {name}={text:?}"),
            value => write!(line, " {name}={value}"),
        };
    }
    line.push('\n');
    line
}

/// Does it end where it seems to, without quotes?
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', '"', '=', '\\'])
}

/// One object: `time`, `level`, `message`, and the event's own fields.
pub(super) fn json(said: &Said, time: &str) -> String {
    // A map of texts and numbers always is JSON.
    let mut line = serde_json::to_string(&Line { said, time }).unwrap_or_default();
    line.push('\n');
    line
}

struct Line<'a> {
    said: &'a Said,
    time: &'a str,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", self.time)?;
        object.serialize_entry("level", word(self.said.level))?;
        object.serialize_entry("message", &self.said.message)?;
        for (name, value) in &self.said.fields {
            match value {
                Value::Number(number) => object.serialize_entry(name, number)?,
                Value::Text(text) => object.serialize_entry(name, text)?,
            }
        }
        object.end()
    }
}

/// The level as the setting names it.
fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// This moment in UTC, as RFC 3339 has it.
#[must_use]
pub fn now() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T13:59:28.123456Z";

    fn said() -> Said {
        let text = |text: &str| Value::Text(text.to_owned());
        Said {
            level: Level::WARN,
            message: r#"no volume for "/a""#.to_owned(),
            fields: vec![
                ("pod", text("web-0")),
                ("role", text(r#"a b" pod=c"#)),
                ("duration_ms", Value::Number(12)),
            ],
            place: "here",
            news: false,
        }
    }

    #[test]
    fn text_is_a_line_whose_values_end_where_they_seem_to() {
        assert_eq!(
            text(&said(), NOW),
            "2026-11-21T13:59:28.123456Z  WARN no volume for \"/a\" pod=web-0 role=\"a b\\\" pod=c\" duration_ms=12\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = json(&said(), NOW);
        assert_eq!(
            line,
            concat!(
                r#"{"time":"2026-11-21T13:59:28.123456Z","level":"warn","message":"no volume for \"/a\"","#,
                r#""pod":"web-0","role":"a b\" pod=c","duration_ms":12}"#,
                "\n"
            )
        );
    }
}
