//! Which request is served where, and by whom it may be made.

use super::answer::{self, Answer};
use super::connection::Connection;
use super::{status, volumes};
use crate::failure::{Failure, Reason};
use hyper::body::Incoming;
use hyper::{Method, Request};
use std::sync::Arc;
use vaulttmpfs_api::{VOLUMES_PATH, VolumeId};

/// Answers one request; a failure is said to the caller here and nowhere else.
pub(super) async fn answer(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let _busy = connection.busy();
    match route(&connection, request).await {
        Ok(answer) => answer,
        Err(failure) => answer::refusal(&failure),
    }
}

async fn route(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let agent = &connection.agent;
    let path = request.uri().path();
    if let (&Method::POST, Some(id)) = (request.method(), volume_to_attach(path)) {
        only_root(connection)?;
        return volumes::attached(connection, id);
    }
    match (request.method(), path) {
        (&Method::GET, "/healthz") => Ok(answer::json(&serde_json::json!({ "alive": true }))),
        (&Method::GET, "/readyz") => status::ready(agent),
        (&Method::GET, "/v1/status") => Ok(answer::json(&agent.status())),
        (&Method::GET, VOLUMES_PATH) => volumes::list(agent),
        (&Method::POST, VOLUMES_PATH) => {
            only_root(connection)?;
            volumes::mount(connection, request).await
        }
        (&Method::DELETE, VOLUMES_PATH) => {
            only_root(connection)?;
            volumes::unmounted(agent, request.uri().query().unwrap_or_default())
        }
        (_, "/healthz" | "/readyz" | "/v1/status" | VOLUMES_PATH) => Err(Failure::new(
            Reason::BadMethod,
            format!("{} is not served for this path", request.method()),
        )),
        _ => Err(Failure::new(
            Reason::NotFound,
            "nothing is served here; see /v1/volumes and /v1/status",
        )),
    }
}

/// The middle of `/v1/volumes/ID/attached`.
fn volume_to_attach(path: &str) -> Option<&str> {
    path.strip_prefix(VOLUMES_PATH)?
        .strip_prefix('/')?
        .strip_suffix("/attached")
}

/// Reads a volume's id from a path.
pub(super) fn volume_id(text: &str) -> Result<VolumeId, Failure> {
    text.parse()
        .map_err(|error| Failure::new(Reason::BadRequest, format!("{error}")))
}

fn only_root(connection: &Connection) -> Result<(), Failure> {
    if connection.peer.is_root() {
        return Ok(());
    }
    Err(Failure::new(
        Reason::Forbidden,
        "only root may mount, attach and unmount",
    ))
}
