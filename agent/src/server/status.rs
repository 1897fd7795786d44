//! What the agent says of itself.

use super::answer::{self, Answer};
use crate::failure::{Failure, Reason};
use crate::mount::Mounter;
use crate::vault::session::Life;
use crate::vault::{Session, Standing};
use crate::volumes::{Counts, Volumes};
use serde::Serialize;
use std::sync::Arc;
use vaulttmpfs_api::VolumeId;

/// The agent as the server sees it: at work, or kept from it by its settings.
pub enum Agent {
    /// It serves.
    Working {
        /// Makes volumes.
        mounter: Arc<Mounter>,
        /// Knows them.
        volumes: Arc<Volumes>,
        /// Speaks to Vault.
        session: Arc<Session>,
    },
    /// Its settings are bad: every call is answered with all that is wrong.
    Misconfigured(Failure),
}

#[derive(Serialize)]
pub(super) struct Status {
    ready: bool,
    /// Not ready, or with a concern.
    degraded: bool,
    /// Why it is not ready, and what to do.
    reasons: Vec<String>,
    version: &'static str,
    vault: Option<Vault>,
    volumes: Option<Counts>,
    /// What is wrong though it serves, and what to do.
    concerns: Vec<String>,
    /// What works, but not as well as it could.
    warnings: Vec<String>,
    generator: Option<Generator>,
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
    version: Option<String>,
    cluster_id: Option<String>,
    generator_policies: Vec<String>,
}

impl Agent {
    /// What keeps the agent from mounting, or nothing.
    fn problem(&self) -> Option<Failure> {
        match self {
            Self::Misconfigured(failure) => Some(failure.clone()),
            Self::Working { session, .. } => match session.standing() {
                Standing::Ready(_) => None,
                Standing::Degraded(failure) => Some(failure),
                Standing::Starting => Some(Failure::new(
                    Reason::VaultUnreachable,
                    format!("Vault at {} has not answered yet", session.address()),
                )),
            },
        }
    }

    pub(super) fn status(&self) -> Status {
        let problem = self.problem();
        let (mut vault, mut count, mut generator) = (None, None, None);
        let (mut concerns, mut warnings) = (Vec::new(), Vec::new());
        if let Self::Working {
            session, volumes, ..
        } = self
        {
            let live = match session.standing() {
                Standing::Ready(live) => Some(live),
                _ => None,
            };
            generator = live.as_ref().map(|live| Generator::of(live.life()));
            vault = Some(Vault {
                address: session.address().to_owned(),
                version: live.as_ref().map(|live| live.health.version.clone()),
                cluster_id: live.as_ref().map(|live| live.health.cluster_id.clone()),
                generator_policies: live
                    .map(|live| live.generator.policies.clone())
                    .unwrap_or_default(),
            });
            count = Some(volumes.counts());
            concerns = session.concerns();
            concerns.extend(volumes.concerns());
            warnings = session.warnings();
        }
        Status {
            ready: problem.is_none(),
            degraded: problem.is_some() || !concerns.is_empty(),
            reasons: problem.into_iter().map(|failure| failure.message).collect(),
            version: env!("CARGO_PKG_VERSION"),
            vault,
            volumes: count,
            concerns,
            warnings,
            generator,
        }
    }

    /// What serves, or why nothing does.
    fn parts(&self) -> Result<(&Arc<Mounter>, &Volumes, &Session), Failure> {
        match self {
            Self::Working {
                mounter,
                volumes,
                session,
            } => Ok((mounter, volumes, session)),
            Self::Misconfigured(failure) => Err(failure.clone()),
        }
    }

    pub(super) fn mounter(&self) -> Result<Arc<Mounter>, Failure> {
        self.parts().map(|(mounter, ..)| Arc::clone(mounter))
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

/// `GET /readyz`: 200 when a mount would find a warm session, else why not.
pub(super) fn ready(agent: &Agent) -> Result<Answer, Failure> {
    match agent.problem() {
        None => Ok(answer::json(&agent.status())),
        Some(failure) => Err(failure),
    }
}
