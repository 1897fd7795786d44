//! The log: what this program says, to standard error.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Starts the log. Libraries are not heard: vaultrs and rustify say each failed call several times
/// over, with the values of what failed.
pub fn start() {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(Targets::new().with_target("vaulttmpfs", Level::INFO)))
        .init();
}
