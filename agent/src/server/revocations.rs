//! Requests about all revocations: hold them, let them go on.

use super::answer::{self, Answer};
use super::status::Agent;
use crate::failure::Failure;
use serde_json::json;

/// `POST /v1/revocations/hold`.
pub(super) fn hold(agent: &Agent) -> Result<Answer, Failure> {
    tracing::warn!(
        news = true,
        "all revocations are held, as an admin wants it"
    );
    agent.volumes()?.hold("an admin wants it so");
    Ok(answer::done())
}

/// `POST /v1/revocations/release`. Answers how many volumes are given up by it.
pub(super) fn release(agent: &Agent) -> Result<Answer, Failure> {
    let given_up = agent.volumes()?.release();
    tracing::info!(given_up, "revocations go on, as an admin wants it");
    Ok(answer::json(&json!({ "given_up": given_up })))
}
