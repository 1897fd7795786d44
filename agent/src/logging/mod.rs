//! The log: what this program says, to standard error or to journald.
//!
//! [`event`] is one thing said, [`repeats`] keeps a failure that goes on from being said each time,
//! [`format`](mod@format) makes a line of it, [`journal`] speaks to journald.

mod event;
mod format;
mod journal;
mod repeats;

pub use format::now;

use crate::config::{LogFormat, Logging};
use event::Said;
use repeats::Repeats;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

/// Starts the log. Libraries are not heard: vaultrs and rustify say each failed call several times
/// over, with the values of what failed.
#[must_use]
pub fn start(wish: Logging) -> Log {
    let log = Arc::new(Writer {
        output: Output::choose(wish.format),
        repeats: Mutex::default(),
    });
    let heard = Targets::new().with_target("vaulttmpfs", wish.level);
    tracing_subscriber::registry()
        .with(Listener(Arc::clone(&log)).with_filter(heard))
        .init();
    if wish.format == LogFormat::Journal && log.output == Output::Text {
        tracing::warn!("journald does not listen here: the log goes to standard error as text");
    }
    Log(log)
}

/// The log as long as the program runs. Dropped, it says what it has only counted so far.
pub struct Log(Arc<Writer>);

impl Drop for Log {
    fn drop(&mut self) {
        for said in self.0.repeats().rest(Instant::now()) {
            self.0.output.write(&said);
        }
    }
}

struct Writer {
    output: Output,
    repeats: Mutex<Repeats>,
}

impl Writer {
    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What takes up each event of this program.
struct Listener(Arc<Writer>);

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut repeats = self.0.repeats();
        for said in repeats.admit(Said::of(event), Instant::now()) {
            self.0.output.write(&said);
        }
    }
}

/// Where the log goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
    Journal,
}

impl Output {
    /// libsystemd drops without a word what no journald takes, so it must be there.
    fn choose(wish: LogFormat) -> Self {
        match wish {
            LogFormat::Json => Self::Json,
            LogFormat::Journal if journal::listens() => Self::Journal,
            LogFormat::Auto if journal::has_stderr() && journal::listens() => Self::Journal,
            LogFormat::Auto | LogFormat::Journal | LogFormat::Text => Self::Text,
        }
    }

    fn write(self, said: &Said) {
        let line = match self {
            Self::Journal if journal::send(said).is_ok() => return,
            Self::Journal | Self::Text => format::text(said, &format::now()),
            Self::Json => format::json(said, &format::now()),
        };
        // Where standard error is gone there is nobody to tell.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}
