//! Renewing the generator token out of turn.

use super::answer::{self, Answer};
use super::status::Agent;
use crate::failure::Failure;
use serde_json::json;

/// `POST /v1/renew-token`. Answers how long the token lives then, and its period, in seconds; nothing for
/// ever, or none.
pub(super) async fn renew(agent: &Agent) -> Result<Answer, Failure> {
    let life = agent.session()?.renew().await?;
    tracing::info!("the generator token is renewed, as an admin wants it");
    Ok(answer::json(
        &json!({ "ttl_s": life.ttl, "period_s": life.period }),
    ))
}
