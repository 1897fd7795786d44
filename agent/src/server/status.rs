//! What the agent says of itself.

use super::answer::{self, Answer};
use super::health::LastTry;
use super::tcp::TcpAddress;
use crate::clock;
use crate::failure::{Failure, Reason};
use crate::metrics::{Failures, LATELY, LastCalls, Metrics, Newest};
use crate::mount::Mounter;
use crate::vault::session::Life;
use crate::vault::{Session, Sight, Standing};
use crate::volumes::{Condition as State, Counts, Volumes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use vaulttmpfs_api::{LOOK, VolumeId};

/// Who asks for a look waits so long for it at most.
const PATIENCE_TO_LOOK: Duration = Duration::from_secs(3);

/// The agent as the server sees it.
pub struct Agent {
    /// What it is at.
    pub duty: Duty,
    /// What it has counted.
    pub metrics: Arc<Metrics>,
    /// systemd runs it, and starts it anew when it ends.
    pub supervised: bool,
    /// It is to finish what it has accepted, end, and be started anew.
    pub restart: Notify,
    /// A call could not be served because of [`Duty::Misconfigured`].
    pub missed: Notify,
    pub(super) last_try: LastTry,
}

/// At work, or kept from it.
pub enum Duty {
    /// It serves.
    Working {
        /// Makes volumes.
        mounter: Arc<Mounter>,
        /// Knows them.
        volumes: Arc<Volumes>,
        /// Speaks to Vault.
        session: Arc<Session>,
        /// Where metrics are served beside the socket, if anywhere.
        tcp: Option<Arc<TcpAddress>>,
    },
    /// Its settings are bad, or its state directory: every call is answered with all that is wrong.
    Misconfigured(Failure),
}

/// What keeps the agent from serving, and what is wrong though it serves. The one source of all
/// that is said of it.
struct Condition {
    problem: Option<Failure>,
    concerns: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Status {
    ready: bool,
    /// Not ready, or with a concern.
    degraded: bool,
    /// Why it is not ready, and what to do.
    reasons: Vec<String>,
    version: &'static str,
    /// Its process id, in its own pid namespace.
    pid: u32,
    vault: Option<Vault>,
    volumes: Option<OfVolumes>,
    failures: OfFailures,
    /// What is wrong though it serves, and what to do.
    concerns: Vec<String>,
    /// What works, but not as well as it could.
    warnings: Vec<String>,
    generator: Option<Generator>,
    /// The file with the generator token that the agent reads itself.
    token_file: Option<String>,
}

/// The generator token's life, in seconds; nothing for ever, or never.
#[derive(Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the unit is part of the contract"
)]
struct Generator {
    ttl_s: Option<u64>,
    period_s: Option<u64>,
    next_renewal_s: Option<u64>,
}

#[derive(Serialize)]
struct Vault {
    address: String,
    /// Whether it answered when it was asked last how it is; nothing before.
    answering: Option<bool>,
    /// As it said then; nothing where it did not answer.
    sealed: Option<bool>,
    version: Option<String>,
    cluster_id: Option<String>,
    generator_policies: Vec<String>,
    calls: Option<Calls>,
}

/// The last calls that Vault answered.
#[derive(Serialize)]
struct Calls {
    count: usize,
    median_ms: u64,
    longest_ms: u64,
    ago_s: u64,
}

#[derive(Serialize)]
struct OfVolumes {
    #[serde(flatten)]
    counts: Counts,
    by_state: BTreeMap<State, usize>,
}

/// What failed within so many seconds.
#[derive(Serialize)]
struct OfFailures {
    within_s: u64,
    by_reason: BTreeMap<&'static str, u64>,
    newest: Option<NewestFailure>,
}

#[derive(Serialize)]
struct NewestFailure {
    reason: &'static str,
    message: String,
    ago_s: u64,
}

impl Agent {
    /// An agent that has not served yet.
    #[must_use]
    pub fn new(duty: Duty, metrics: Arc<Metrics>, supervised: bool) -> Self {
        Self {
            duty,
            metrics,
            supervised,
            restart: Notify::new(),
            missed: Notify::new(),
            last_try: LastTry::default(),
        }
    }

    /// What keeps the agent from mounting, or nothing.
    pub(super) fn problem(&self) -> Option<Failure> {
        match &self.duty {
            Duty::Misconfigured(failure) => Some(failure.clone()),
            Duty::Working { session, .. } => match session.standing() {
                Standing::Ready(_) => None,
                Standing::Degraded(failure) => Some(failure),
                Standing::Starting => Some(Failure::new(
                    Reason::VaultUnreachable,
                    format!("Vault at {} has not answered yet", session.address()),
                )),
            },
        }
    }

    fn condition(&self) -> Condition {
        let mut concerns = Vec::new();
        if let Duty::Working {
            session,
            volumes,
            tcp,
            ..
        } = &self.duty
        {
            concerns = session.concerns();
            concerns.extend(volumes.concerns());
            concerns.extend(tcp.iter().flat_map(|tcp| tcp.concerns()));
        }
        Condition {
            problem: self.problem(),
            concerns,
        }
    }

    /// Whether it is ready, and whether it is degraded.
    pub(super) fn health(&self) -> (bool, bool) {
        let Condition { problem, concerns } = self.condition();
        let ready = problem.is_none();
        (ready, !ready || !concerns.is_empty())
    }

    /// How it is, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Condition { problem, concerns } = self.condition();
        match problem {
            Some(failure) => format!("not ready: {failure}"),
            None if concerns.is_empty() => "ready".to_owned(),
            None => format!("ready, but degraded: {}", concerns.join("; ")),
        }
    }

    /// Waits until [`Self::summary`] may be another. Nothing wakes it in an idle agent.
    pub async fn stirred(&self) {
        match &self.duty {
            Duty::Working {
                session,
                volumes,
                tcp,
                ..
            } => {
                let address = async {
                    match tcp {
                        Some(tcp) => tcp.stirred().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = session.stirred() => {}
                    () = volumes.stirred() => {}
                    () = address => {}
                }
            }
            Duty::Misconfigured(_) => std::future::pending().await,
        }
    }

    fn status(&self) -> Status {
        let Condition { problem, concerns } = self.condition();
        let (mut vault, mut count, mut generator, mut token_file) = (None, None, None, None);
        let mut warnings = Vec::new();
        if let Duty::Working {
            session, volumes, ..
        } = &self.duty
        {
            let live = match session.standing() {
                Standing::Ready(live) => Some(live),
                _ => None,
            };
            generator = live.as_ref().map(|live| Generator::of(live.life()));
            let mut seen = Vault::of(session, self.metrics.last_calls());
            if let Some(live) = live {
                seen.generator_policies.clone_from(&live.generator.policies);
            }
            vault = Some(seen);
            count = Some(OfVolumes {
                counts: volumes.counts(),
                by_state: volumes.conditions(),
            });
            warnings = session.warnings();
            let path = session.token_file();
            token_file = path.map(|path| path.display().to_string());
        }
        Status {
            ready: problem.is_none(),
            degraded: problem.is_some() || !concerns.is_empty(),
            reasons: problem.into_iter().map(|failure| failure.message).collect(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            vault,
            volumes: count,
            failures: OfFailures::of(self.metrics.failures_lately()),
            concerns,
            warnings,
            generator,
            token_file,
        }
    }

    /// What serves, or why nothing does.
    fn parts(&self) -> Result<(&Arc<Mounter>, &Volumes, &Session), Failure> {
        match &self.duty {
            Duty::Working {
                mounter,
                volumes,
                session,
                ..
            } => Ok((mounter, volumes, session)),
            Duty::Misconfigured(failure) => Err(failure.clone()),
        }
    }

    pub(super) fn mounter(&self) -> Result<Arc<Mounter>, Failure> {
        let parts = self.parts().inspect_err(|_| self.missed.notify_one());
        parts.map(|(mounter, ..)| Arc::clone(mounter))
    }

    pub(super) fn volumes(&self) -> Result<&Volumes, Failure> {
        self.parts().map(|(_, volumes, _)| volumes)
    }

    pub(super) fn session(&self) -> Result<&Session, Failure> {
        self.parts().map(|(.., session)| session)
    }

    pub(super) fn session_and_volumes(&self) -> Result<(&Session, &Volumes), Failure> {
        self.parts().map(|(_, volumes, session)| (session, volumes))
    }

    /// The shim that was given this volume has closed its connection without a word.
    pub(super) fn hung_up(&self, id: VolumeId, shim: Option<i32>) {
        if let Ok(volumes) = self.volumes() {
            volumes.hung_up(id, shim);
        }
    }

    /// The answer with this volume reached nobody.
    pub(super) fn undelivered(&self, id: VolumeId) {
        if let Ok(volumes) = self.volumes() {
            volumes.undelivered(id);
        }
    }
}

impl Generator {
    fn of(life: Life) -> Self {
        Self {
            ttl_s: life.ttl,
            period_s: life.period,
            next_renewal_s: life.next_renewal,
        }
    }
}

impl Vault {
    fn of(session: &Session, calls: Option<LastCalls>) -> Self {
        let sight = session.sight();
        let health = match &sight {
            Sight::Answered(health) => Some(health),
            Sight::NoAnswer | Sight::NotAsked => None,
        };
        Self {
            address: session.address().to_owned(),
            answering: (sight != Sight::NotAsked).then_some(health.is_some()),
            sealed: health.map(|health| health.sealed),
            version: health.map(|health| health.version.clone()),
            cluster_id: health.map(|health| health.cluster_id.clone()),
            generator_policies: Vec::new(),
            calls: calls.map(|calls| Calls {
                count: calls.count,
                median_ms: clock::millis(calls.median),
                longest_ms: clock::millis(calls.longest),
                ago_s: calls.ago.as_secs(),
            }),
        }
    }
}

impl OfFailures {
    fn of(failures: Failures) -> Self {
        let newest = |newest: Newest| NewestFailure {
            reason: newest.reason,
            message: newest.message,
            ago_s: newest.ago.as_secs(),
        };
        Self {
            within_s: LATELY.as_secs(),
            by_reason: failures.by_reason,
            newest: failures.newest.map(newest),
        }
    }
}

/// `GET /v1/status`, with a look at Vault first where the query asks for one.
pub(super) async fn status(agent: &Agent, query: Option<&str>) -> Answer {
    let mut silent = None;
    if query == Some(LOOK)
        && let Ok(session) = agent.session()
        && !session.look_again(PATIENCE_TO_LOOK).await
    {
        silent = Some(format!(
            "Vault at {} has not answered within {} s: is it overloaded?",
            session.address(),
            PATIENCE_TO_LOOK.as_secs()
        ));
    }
    let mut status = agent.status();
    status.degraded |= silent.is_some();
    status.concerns.extend(silent);
    answer::json(&status)
}
