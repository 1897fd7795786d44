//! `vaulttmpfs reload`: has the running agent take the generator token that is in its file now.

use super::{client, outcome};
use crate::exit::Exit;
use hyper::Method;

/// Runs the command.
#[must_use]
pub fn run() -> Exit {
    let reloaded = client::succeed(&Method::POST, "/v1/reload", b"");
    outcome(reloaded.map(|_| "the agent uses the generator token that is in its file"))
}
