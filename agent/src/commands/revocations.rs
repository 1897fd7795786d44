//! `vaulttmpfs revocations`: holds all revocations, or lets them go on.

use super::{client, outcome};
use crate::exit::Exit;
use clap::Subcommand;
use hyper::Method;

/// What is to be done about all revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Revocations {
    /// Revoke nothing until further notice, restarts included.
    Hold,
    /// Let revocations go on.
    Release,
}

/// Runs the command.
#[must_use]
pub fn run(wish: Revocations) -> Exit {
    let (path, done) = match wish {
        Revocations::Hold => (
            "/v1/revocations/hold",
            "revocations are held; `vaulttmpfs revocations release` lets them go on",
        ),
        Revocations::Release => ("/v1/revocations/release", "revocations go on"),
    };
    outcome(client::succeed(&Method::POST, path, b"").map(|_| done))
}
