//! `vaulttmpfs revocations`: holds all revocations, or lets them go on.

use super::{client, outcome};
use crate::exit::Exit;
use clap::Subcommand;
use hyper::Method;
use serde::Deserialize;

/// What is to be done about all revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Revocations {
    /// Revoke nothing until further notice, restarts included.
    Hold,
    /// Let revocations go on. Volumes that the mount table does not show are given up: `status` tells
    /// of those whose absence is doubtful.
    Release,
}

/// What a release answers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Released {
    given_up: usize,
}

/// Runs the command.
#[must_use]
pub fn run(wish: Revocations) -> Exit {
    let path = match wish {
        Revocations::Hold => "/v1/revocations/hold",
        Revocations::Release => "/v1/revocations/release",
    };
    outcome(client::succeed(&Method::POST, path, b"").map(|answer| done(wish, &answer)))
}

fn done(wish: Revocations, answer: &[u8]) -> String {
    let released: Released = serde_json::from_slice(answer).unwrap_or_default();
    match (wish, released.given_up) {
        (Revocations::Hold, _) => {
            "revocations are held; `vaulttmpfs revocations release` lets them go on".to_owned()
        }
        (Revocations::Release, 0) => "revocations go on".to_owned(),
        (Revocations::Release, many) => format!(
            "revocations go on; {many} volumes that the mount table does not show are given up"
        ),
    }
}
