//! Which request is served where, and by whom it may be made.

use super::answer::{self, Answer};
use super::connection::Connection;
use super::status::Agent;
use super::{health, metrics, reload, renewal, revocations, settings, status, volumes};
use crate::failure::{Failure, Reason};
use hyper::body::Incoming;
use hyper::{Method, Request, Uri};
use std::sync::Arc;
use vaulttmpfs_api::{SETTINGS_PATH, STATUS_PATH, VOLUMES_PATH, VolumeId};

/// Where Prometheus looks for metrics.
const METRICS_PATH: &str = "/metrics";

/// Whether the agent lives.
const HEALTH_PATH: &str = "/healthz";

/// Whether it could serve a mount.
const READY_PATH: &str = "/readyz";

/// Answers one request; a failure is said to the caller here and nowhere else.
pub(super) async fn answer(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
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
    if let Some(answer) = observe(agent, request.method(), request.uri()) {
        return answer;
    }
    let path = request.uri().path();
    if let (&Method::POST, Some((id, verb))) = (request.method(), volume_and_verb(path)) {
        only_root(connection)?;
        let id = volume_id(id)?;
        return match verb {
            "attached" => volumes::attached(connection, id),
            "adopt" => volumes::adopt(connection, id, request).await,
            _ => Err(nothing_here()),
        };
    }
    match (request.method(), path) {
        (&Method::GET, STATUS_PATH) => Ok(status::status(agent, request.uri().query()).await),
        (&Method::GET, SETTINGS_PATH) => Ok(settings::settings()),
        (&Method::GET, VOLUMES_PATH) => volumes::list(agent),
        (&Method::POST, VOLUMES_PATH) => {
            only_root(connection)?;
            volumes::mount(connection, request).await
        }
        (&Method::DELETE, VOLUMES_PATH) => {
            only_root(connection)?;
            volumes::unmounted(agent, request.uri().query().unwrap_or_default())
        }
        (&Method::POST, "/v1/reload") => {
            only_root(connection)?;
            reload::reload(agent, request).await
        }
        (&Method::POST, "/v1/renew-token") => {
            only_root(connection)?;
            renewal::renew(agent).await
        }
        (&Method::POST, "/v1/revocations/hold") => {
            only_root(connection)?;
            revocations::hold(agent)
        }
        (&Method::POST, "/v1/revocations/release") => {
            only_root(connection)?;
            revocations::release(agent)
        }
        (_, STATUS_PATH | SETTINGS_PATH | VOLUMES_PATH) => Err(bad_method(request.method())),
        _ => Err(nothing_here()),
    }
}

/// What the metrics' TCP address serves as well as the socket, or nothing where it is no such path.
pub(super) fn observe(
    agent: &Agent,
    method: &Method,
    uri: &Uri,
) -> Option<Result<Answer, Failure>> {
    let answer: fn(&Agent) -> Result<Answer, Failure> = match uri.path() {
        HEALTH_PATH => |agent| Ok(health::alive(agent)),
        READY_PATH => |agent| Ok(health::ready(agent)),
        METRICS_PATH => metrics::scrape,
        _ => return None,
    };
    Some(if method == Method::GET {
        answer(agent)
    } else {
        Err(bad_method(method))
    })
}

fn bad_method(method: &Method) -> Failure {
    Failure::new(
        Reason::BadMethod,
        format!("{method} is not served for this path"),
    )
}

/// ID and VERB of `/v1/volumes/ID/VERB`.
fn volume_and_verb(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(VOLUMES_PATH)?
        .strip_prefix('/')?
        .split_once('/')
}

fn volume_id(text: &str) -> Result<VolumeId, Failure> {
    text.parse()
        .map_err(|error| Failure::new(Reason::BadRequest, format!("{error}")))
}

fn nothing_here() -> Failure {
    Failure::new(
        Reason::NotFound,
        "nothing is served here; see /v1/volumes, /v1/status and /metrics",
    )
}

fn only_root(connection: &Connection) -> Result<(), Failure> {
    if connection.peer.is_root() {
        return Ok(());
    }
    Err(Failure::new(
        Reason::Forbidden,
        "only root may change anything",
    ))
}
