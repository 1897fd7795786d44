//! Requests about volumes: ask for one, report it attached or unmounted, list them.

use super::answer::{self, Answer};
use super::connection::Connection;
use super::status::Agent;
use crate::adopt;
use crate::clock::Moment;
use crate::failure::{Failure, Reason};
use crate::mount::Mounter;
use crate::options::Pod;
use crate::volumes::{Attached, Condition, Origin, Record, State};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::USER_AGENT;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vaulttmpfs_api::{
    DRIVER_AGENT, MAX_ANSWER, MAX_REQUEST, MountDir, MountRequest, VolumeAnswer, VolumeId,
};
use zeroize::Zeroizing;

/// A request's body must be there in this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Room for what is around the files' contents in an answer: names, modes, owners.
const ANSWER_OVERHEAD: usize = 8 * 1024;

/// What a mount gets beyond its deadline to say why it failed.
const LAST_WORD: Duration = Duration::from_millis(200);

/// `POST /v1/volumes`.
pub(super) async fn mount(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let metrics = Arc::clone(&connection.agent.metrics);
    metrics.mount_asked(driver_version(&request));
    let outcome = make(connection, request).await;
    if let Err(failure) = &outcome {
        metrics.mount_failed(failure);
    }
    outcome
}

/// The version of a driver, as its `User-Agent` names it.
fn driver_version(request: &Request<Incoming>) -> Option<&str> {
    let agent = request.headers().get(USER_AGENT)?.to_str().ok()?;
    agent.strip_prefix(DRIVER_AGENT)
}

/// Makes a volume, in a task of its own: hyper drops a handler whose client has gone, and a token that
/// was asked for must be accounted for all the same.
async fn make(connection: &Arc<Connection>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let mounter = connection.agent.mounter()?;
    let body = read(request).await?;
    let busy = connection.busy();
    let left_ms = parse(&body)?.left_ms;
    let (result, outcome) = oneshot::channel();
    let started = std::time::Instant::now();
    let alive = connection.alive.clone();
    let agent = Arc::clone(&connection.agent);
    tokio::spawn(async move {
        let request = match parse(&body) {
            Ok(request) => request,
            Err(failure) => return drop(result.send(Err(failure))),
        };
        let outcome = mounter.mount(&request).await;
        let said = Said {
            request: &request,
            role: mounter.role_of(&request),
            duration_ms: crate::clock::millis(started.elapsed()),
            outcome: outcome
                .as_ref()
                .map(|volume| volume.id)
                .map_err(Failure::clone),
        };
        // Nobody there to take it? Then it ends as undelivered.
        drop(result.send(outcome.map(|volume| Undelivered::new(agent, volume))));
        // The answer goes out first.
        tokio::task::yield_now().await;
        said.log();
        mounter.prepare();
        drop((alive, busy));
    });
    // The mount itself knows better what it waited for: it is to notice the time first.
    let deadline = Mounter::deadline(left_ms) + LAST_WORD;
    match tokio::time::timeout_at(deadline, outcome).await {
        Ok(Ok(outcome)) => outcome?.deliver(connection),
        Ok(Err(_)) => Err(Failure::new(
            Reason::Internal,
            "the agent failed at this mount; its log says more",
        )),
        Err(_) => Err(Failure::new(
            Reason::TimedOut,
            "the mount was not done within its bound; the kubelet tries again",
        )),
    }
}

/// `POST /v1/volumes/ID/attached`.
pub(super) fn attached(connection: &Connection, id: VolumeId) -> Result<Answer, Failure> {
    connection.reported(id);
    match connection.agent.volumes()?.attached(id) {
        Ok(Attached::Taken) => Ok(answer::done()),
        Ok(Attached::Unknown) => Err(Failure::new(
            Reason::UnknownVolume,
            "the agent does not know this volume",
        )),
        Ok(Attached::Ended) => Err(Failure::new(
            Reason::Ended,
            "the volume has ended: its token is not kept any more",
        )),
        Err(error) => {
            tracing::warn!(volume = %id, "the journal cannot be written yet: {error}");
            Ok(answer::done())
        }
    }
}

/// `POST /v1/volumes/ID/adopt`, from an admin's command that has read the volume's own files.
pub(super) async fn adopt(
    connection: &Connection,
    id: VolumeId,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let body = read(request).await?;
    let adopt: AdoptRequest = serde_json::from_slice(&body)
        .map_err(|_| Failure::new(Reason::BadRequest, "not {mount_dir, accessor}"))?;
    let (session, volumes) = connection.agent.session_and_volumes()?;
    adopt::adopt(session, volumes, id, &adopt.mount_dir, adopt.accessor).await?;
    Ok(answer::done())
}

#[derive(Deserialize)]
struct AdoptRequest {
    mount_dir: String,
    accessor: SecretString,
}

/// `DELETE /v1/volumes?mount_dir=DIR`.
pub(super) fn unmounted(agent: &Agent, query: &str) -> Result<Answer, Failure> {
    let mount_dir = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "mount_dir")
        .map(|(_, value)| value)
        .ok_or_else(|| Failure::new(Reason::BadRequest, "mount_dir is missing"))?;
    let mount_dir = MountDir::parse(&mount_dir)
        .map_err(|error| Failure::new(Reason::BadRequest, format!("mount_dir: {error}")))?;
    agent.metrics.unmounted();
    if let Err(error) = agent.volumes()?.unmounted(mount_dir.as_str()) {
        tracing::warn!("the journal cannot be written yet: {error}");
    }
    Ok(answer::done())
}

/// `GET /v1/volumes`: everything but the accessors.
pub(super) fn list(agent: &Agent) -> Result<Answer, Failure> {
    let volumes = agent.volumes()?;
    let now = Moment::now();
    let mut listed: Vec<Listed> = Vec::new();
    let here = volumes.origin();
    volumes.for_each(|record| listed.push(Listed::of(record, &here, now)));
    listed.sort_by_key(|volume| (volume.created_wall_ms, volume.id));
    Ok(answer::json(&serde_json::json!({ "volumes": listed })))
}

#[derive(Serialize)]
struct Listed {
    id: VolumeId,
    state: State,
    condition: Condition,
    pod: Pod,
    volume: String,
    mount_dir: String,
    role: String,
    policies: Vec<String>,
    /// The token can be kept alive and ended.
    managed: bool,
    unmanaged_because: Option<String>,
    /// Vault does not know the token any more.
    lost: bool,
    /// The mount table has shown it.
    seen: bool,
    /// Nothing before the look shortly before the wrapping token's end.
    unwrapped: Option<bool>,
    created_wall_ms: u64,
    renewed_wall_ms: Option<u64>,
    expires_wall_ms: Option<u64>,
    /// Seconds since the token was made, whatever the clock was set to meanwhile.
    age_s: u64,
    /// Seconds since it was renewed.
    renewed_s: Option<u64>,
    /// Seconds until it expires; 0 where it has.
    expires_s: Option<u64>,
    owed: usize,
}

impl Listed {
    fn of(record: &Record, here: &Origin, now: Moment) -> Self {
        Self {
            id: record.id,
            state: record.state,
            condition: Condition::of(record, here),
            pod: record.pod.clone(),
            volume: MountDir::parse(&record.mount_dir)
                .map(|dir| dir.volume_name().to_owned())
                .unwrap_or_default(),
            mount_dir: record.mount_dir.clone(),
            role: record.role.clone(),
            policies: record.policies.clone(),
            managed: record.unmanaged.is_none(),
            unmanaged_because: record.unmanaged.clone(),
            lost: record.lost,
            seen: record.seen,
            unwrapped: record.wrapping.as_ref().and_then(|it| it.unwrapped),
            created_wall_ms: record.created.wall,
            renewed_wall_ms: record.renewed.map(|moment| moment.wall),
            expires_wall_ms: record.expires.map(|moment| moment.wall),
            age_s: now.since(record.created).as_secs(),
            renewed_s: record.renewed.map(|moment| now.since(moment).as_secs()),
            expires_s: record.expires.map(|moment| moment.since(now).as_secs()),
            owed: record.owed.len(),
        }
    }
}

/// A volume on its way to the shim. Dropped before it is delivered, it ends.
struct Undelivered {
    agent: Arc<Agent>,
    volume: Option<VolumeAnswer<'static>>,
}

impl Undelivered {
    fn new(agent: Arc<Agent>, volume: VolumeAnswer<'static>) -> Self {
        Self {
            agent,
            volume: Some(volume),
        }
    }

    /// Makes the answer. Its one copy here is wiped when it has been sent; what hyper and the kernel
    /// copied of it is theirs.
    fn deliver(mut self, connection: &Connection) -> Result<Answer, Failure> {
        let too_large = || {
            let message = format!(
                "the volume's files are larger than {MAX_ANSWER} bytes together: is the CA bundle too large?"
            );
            Failure::new(Reason::TooLarge, message)
        };
        let volume = self.volume.as_ref().ok_or_else(too_large)?;
        let contents: usize = volume.files.iter().map(|file| file.bytes.len()).sum();
        // Large enough at once: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(contents + ANSWER_OVERHEAD));
        if serde_json::to_writer(&mut *text, volume).is_err() || text.len() > MAX_ANSWER {
            return Err(too_large());
        }
        connection.handed_out(volume.id);
        if let Some(volume) = self.volume.take() {
            crate::files::wipe(volume.files);
        }
        Ok(Answer::new(Full::from(Bytes::from_owner(text))))
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if let Some(volume) = self.volume.take() {
            self.agent.undelivered(volume.id);
            crate::files::wipe(volume.files);
        }
    }
}

pub(super) async fn read(request: Request<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Failure::new(
            Reason::TooLarge,
            format!("a request is at most {MAX_REQUEST} bytes"),
        )),
        Ok(Err(_)) => Err(Failure::new(Reason::BadRequest, "half a request")),
        Err(_) => Err(Failure::new(
            Reason::BadRequest,
            "the request's body did not come in time",
        )),
    }
}

/// serde's own text may quote what it read, so only the place is passed on.
fn parse(body: &[u8]) -> Result<MountRequest<'_>, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "the request is not {{mount_dir, options, left_ms}} with texts as options (line {}, column {})",
            error.line(),
            error.column()
        );
        Failure::new(Reason::BadRequest, message)
    })
}

/// One line in the log for each mount.
struct Said<'a> {
    request: &'a MountRequest<'a>,
    role: &'a str,
    duration_ms: u64,
    outcome: Result<VolumeId, Failure>,
}

impl Said<'_> {
    fn log(&self) {
        let Self {
            request,
            role,
            duration_ms,
            outcome,
        } = self;
        let option = |key: &str| request.options.get(key).map_or("", |value| value.as_ref());
        let (pod, namespace) = (
            option("kubernetes.io/pod.name"),
            option("kubernetes.io/pod.namespace"),
        );
        let mount_dir = &request.mount_dir;
        match outcome {
            Ok(id) => {
                tracing::info!(volume = %id, pod, namespace, role, duration_ms, "a volume for {mount_dir}");
            }
            Err(failure) => {
                let reason = failure.reason.word();
                tracing::warn!(
                    reason,
                    pod,
                    namespace,
                    role,
                    duration_ms,
                    "no volume for {mount_dir}: {failure}"
                );
            }
        }
    }
}
