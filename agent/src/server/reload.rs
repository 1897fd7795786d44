//! Taking another generator token, or other settings, while pods are served.

use super::answer::{self, Answer};
use super::status::{Agent, Duty};
use super::volumes;
use crate::config::{self, Offer};
use crate::failure::{Failure, Reason};
use hyper::Request;
use hyper::body::Incoming;
use secrecy::SecretString;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What root wants. Both may be left out: then the agent reads its own files anew.
#[derive(Default, Deserialize)]
struct Wish {
    /// The generator token, which the agent may not be able to read itself.
    token: Option<SecretString>,
    /// The settings with which the agent would start now.
    settings: Option<BTreeMap<String, String>>,
}

/// `POST /v1/reload`. Answers whether the agent is about to start anew: that has the credentials
/// read, too.
pub(super) async fn reload(agent: &Agent, request: Request<Incoming>) -> Result<Answer, Failure> {
    let body = volumes::read(request).await?;
    let wish: Wish = if body.is_empty() {
        Wish::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|_| Failure::new(Reason::BadRequest, "not {token, settings}"))?
    };
    if let Some(settings) = wish.settings
        && start_anew(agent, &Offer::new(settings))?
    {
        return Ok(answer::json(&serde_json::json!({ "restarting": true })));
    }
    agent.session()?.reload(wish.token).await?;
    agent
        .mounter()?
        .refresh()
        .map_err(|error| Failure::new(Reason::BadSettings, format!("the pods' CA: {error}")))?;
    Ok(answer::json(&serde_json::json!({ "restarting": false })))
}

/// Ends the agent for another one, where that one would be better off. Bad settings never replace
/// good ones.
fn start_anew(agent: &Agent, offer: &Offer) -> Result<bool, Failure> {
    if !agent.supervised {
        let why = "no systemd runs this agent and would start it anew: do so by hand";
        return Err(Failure::new(Reason::BadRequest, why));
    }
    let judged = config::read(offer).map(drop).map_err(|errors| {
        let message = format!("the agent goes on as it is; the new settings are bad: {errors}");
        Failure::new(Reason::BadSettings, message)
    });
    let idle = matches!(agent.duty, Duty::Misconfigured(_));
    let restart = match &judged {
        Ok(()) => idle || offer.differs(),
        // So that it says what is wrong now.
        Err(_) => idle && offer.differs(),
    };
    if restart {
        tracing::info!("the settings have changed");
        agent.restart.notify_one();
    }
    judged.map(|()| restart)
}
