//! Requests about all revocations: hold them, let them go on.

use super::answer::{self, Answer};
use super::status::Agent;
use crate::failure::Failure;

/// `POST /v1/revocations/hold`.
pub(super) fn hold(agent: &Agent) -> Result<Answer, Failure> {
    tracing::warn!(
        news = true,
        "all revocations are held, as an admin wants it"
    );
    if let Err(error) = agent.volumes()?.hold("an admin wants it so") {
        tracing::warn!("the hold will not outlive a restart: {error}");
    }
    Ok(answer::done())
}

/// `POST /v1/revocations/release`.
pub(super) fn release(agent: &Agent) -> Result<Answer, Failure> {
    tracing::info!("revocations go on, as an admin wants it");
    if let Err(error) = agent.volumes()?.release() {
        tracing::warn!("the hold will be back after a restart: {error}");
    }
    Ok(answer::done())
}
