//! Whether the agent lives, and whether it could serve a mount: for whoever watches over it.

use super::answer::{self, Answer};
use super::status::Agent;
use crate::failure::{Failure, Reason};
use hyper::StatusCode;
use serde_json::json;

/// `GET /healthz`: 503 where a new start may mend something. That there is an answer shows that the
/// one thread turns which does everything; the journal has another.
pub(super) fn alive(agent: &Agent) -> Answer {
    match agent.volumes() {
        Ok(volumes) if !volumes.journal_is_alive() => unavailable(&Failure::new(
            Reason::Journal,
            "the journal is not brought to the disk any more: does the disk of its state directory hang?",
        )),
        // Bad settings are no matter of a new start.
        _ => answer::json(&json!({ "alive": true })),
    }
}

/// `GET /readyz`: 200 where a mount could be served: the session with Vault is warm, and the journal
/// has room. Else 503 and why.
pub(super) fn ready(agent: &Agent) -> Answer {
    match mountable(agent) {
        Ok(()) => answer::json(&json!({ "ready": true })),
        Err(failure) => unavailable(&failure),
    }
}

fn mountable(agent: &Agent) -> Result<(), Failure> {
    let mounter = agent.mounter()?;
    match agent.problem() {
        Some(failure) => Err(failure),
        None => mounter.could_record(),
    }
}

/// 503 whatever the reason's own status is: those who ask know two answers.
fn unavailable(failure: &Failure) -> Answer {
    let mut answer = answer::refusal(failure);
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}
