//! One thing said: a level, a message, and fields for programs.

use crate::line::one_line;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// Longer messages are cut, in bytes.
const LONGEST_MESSAGE: usize = 8 * 1024;

/// Longer values of fields are cut, in bytes.
const LONGEST_VALUE: usize = 1024;

/// The field of a failure's class.
const REASON: &str = "reason";

/// `news = true` marks what is said only when something has changed, so that it is no repetition even
/// when it has been said before. It is not shown.
const NEWS: &str = "news";

/// An event as the log keeps it: each text is on one line and bounded, whatever came from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
    /// The place in the code that says it.
    pub(super) place: &'static str,
    pub(super) news: bool,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Text(String),
}

impl Said {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut said = Self {
            level: *event.metadata().level(),
            message: String::new(),
            fields: Vec::new(),
            place: event.metadata().name(),
            news: false,
        };
        event.record(&mut said);
        said
    }

    /// The class of the failure, where it has one.
    pub(super) fn reason(&self) -> Option<&str> {
        self.fields.iter().find_map(|(name, value)| match value {
            Value::Text(word) if *name == REASON => Some(word.as_str()),
            _ => None,
        })
    }
}

impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == NEWS {
            self.news = value;
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Number(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // A pod that names no namespace has none to show.
        if !value.is_empty() {
            let value = Value::Text(one_line(value, LONGEST_VALUE));
            self.fields.push((field.name(), value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = one_line(&text, LONGEST_MESSAGE);
        } else {
            self.record_str(field, &text);
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    struct Keep(Arc<Mutex<Vec<Said>>>);

    impl<S: tracing::Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(Said::of(event));
        }
    }

    fn said(speak: impl FnOnce()) -> Said {
        let heard = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Keep(Arc::clone(&heard)));
        tracing::subscriber::with_default(subscriber, speak);
        let mut heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 1);
        heard.remove(0)
    }

    #[test]
    fn an_event_is_kept_with_its_fields() {
        let volume = 7;
        let said = said(|| {
            tracing::warn!(
                news = true,
                %volume,
                pod = "web-0",
                namespace = "",
                reason = "vault-sealed",
                duration_ms = 12_u64,
                "no volume for {}",
                "/a"
            );
        });
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!((said.level, said.news), (Level::WARN, true));
        assert_eq!(said.message, "no volume for /a");
        assert_eq!(said.reason(), Some("vault-sealed"));
        assert!(said.place.contains("event.rs:"), "{}", said.place);
        assert_eq!(
            said.fields,
            [
                ("volume", text("7")),
                ("pod", text("web-0")),
                ("reason", text("vault-sealed")),
                ("duration_ms", Value::Number(12)),
            ]
        );
    }

    #[test]
    fn what_comes_from_outside_is_on_one_line_and_bounded() {
        let long = "ä".repeat(LONGEST_MESSAGE);
        let pod = format!("web\nPRIORITY=0\u{1b}[2J{long}");
        let said = said(|| tracing::info!(pod, "a\r\nb{long}"));
        assert!(said.message.starts_with("a  bä"), "{}", &said.message[..9]);
        assert!(said.message.len() <= LONGEST_MESSAGE + '…'.len_utf8());
        let [("pod", Value::Text(pod))] = &said.fields[..] else {
            panic!("{:?}", said.fields);
        };
        assert!(pod.starts_with(r"web PRIORITY=0\u{1b}[2Jä"), "{pod}");
        assert!(pod.len() <= LONGEST_VALUE + '…'.len_utf8());
    }
}
