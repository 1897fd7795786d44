//! The work at Vault for the volumes: renewals, looks at wrapping tokens, revocations.
//!
//! A few workers take the most urgent task that is due. All of it is background work: mounts come
//! first, and the session bounds how many calls a second there are.

use super::plan::{self, Task};
use super::record::{Debt, Record, State};
use super::registry::{Known, Registry, Volumes};
use crate::clock::{self, Moment};
use crate::config::WatchUnwrap;
use crate::vault::session::BackgroundError;
use crate::vault::{Renewal, Session, VaultError, Verdict};
use std::convert::Infallible;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;

/// After a loss all volumes are looked at, but not more often than this.
const HURRY_PAUSE: Duration = Duration::from_secs(600);

/// What a call means for a volume, beyond success.
enum Outcome {
    Done,
    /// Vault does not know the accessor.
    Gone,
    /// It will never work, and why.
    Never(String),
    /// It may work later.
    Later(Option<String>),
}

impl Volumes {
    /// One worker. Several may run.
    pub(super) async fn tend(&self, session: &Session) -> Infallible {
        loop {
            session.until_ready().await;
            let Some((id, task)) = self.take() else {
                self.work.notified().await;
                continue;
            };
            // There may be more: another worker looks.
            self.work.notify_one();
            let outcome = match self.not_ours(session, id) {
                Some(why) => Outcome::Later(Some(why)),
                None => self.perform(session, id, task).await,
            };
            self.conclude(id, task, outcome);
        }
    }

    async fn perform(&self, session: &Session, id: VolumeId, task: Task) -> Outcome {
        match task {
            Task::Renew => self.renew(session, id).await,
            Task::LookUnwrapped => self.look_unwrapped(session, id).await,
            Task::Pay => self.pay(session, id).await,
            Task::GiveNotice | Task::Forget => Outcome::Done,
        }
    }

    fn take(&self) -> Option<(VolumeId, Task)> {
        let mut registry = self.lock();
        let held = registry.held.is_some();
        registry
            .agenda
            .take_ready(|task| !held || task != Task::Pay)
    }

    async fn renew(&self, session: &Session, id: VolumeId) -> Outcome {
        let Some(accessor) = self.of(id, |record| record.accessor.clone()) else {
            return Outcome::Done;
        };
        match session.renew(accessor.secret()).await {
            Ok(renewal) => {
                self.change(id, |record| renewed(record, &renewal));
                Outcome::Done
            }
            Err(error) => outcome(error, session),
        }
    }

    /// Looks once. After the wrapping token's end it could say nothing any more.
    async fn look_unwrapped(&self, session: &Session, id: VolumeId) -> Outcome {
        let Some(wrapping) = self.of(id, |record| record.wrapping.clone()) else {
            return Outcome::Done;
        };
        if wrapping.ends <= Moment::now() {
            return Outcome::Never("the wrapping token has expired meanwhile".into());
        }
        let unwrapped = match session.lookup(wrapping.accessor.secret()).await {
            Ok(_) => false,
            Err(error) => match outcome(error, session) {
                Outcome::Gone => true,
                failed => return failed,
            },
        };
        self.change(id, |record| {
            if let Some(wrapping) = &mut record.wrapping {
                wrapping.unwrapped = Some(unwrapped);
            }
            if !unwrapped {
                tracing::warn!(volume = %id, "{}: nobody has unwrapped its token, and its wrapping ends soon", record.name());
            }
        });
        if !unwrapped && self.rules.watch_unwrap == WatchUnwrap::Revoke {
            let mut registry = self.lock();
            self.end(&mut registry, id, "nobody has unwrapped its token", false);
        }
        Outcome::Done
    }

    /// Does what is owed for a volume that has ended, in order.
    async fn pay(&self, session: &Session, id: VolumeId) -> Outcome {
        while let Some((debt, accessor)) = self.of(id, owed) {
            let outcome = match accessor {
                None => Outcome::Done,
                Some(accessor) => match session.revoke(accessor.secret()).await {
                    Ok(()) => Outcome::Done,
                    Err(error) => outcome(error, session),
                },
            };
            match outcome {
                Outcome::Done | Outcome::Gone => {}
                Outcome::Never(why) => {
                    tracing::warn!(volume = %id, "Vault will not revoke its token: {why}");
                }
                later @ Outcome::Later(_) => return later,
            }
            self.change(id, |record| record.owed.retain(|owed| *owed != debt));
        }
        Outcome::Done
    }

    /// Why nothing is to be said to this Vault about a volume's token, if so.
    fn not_ours(&self, session: &Session, id: VolumeId) -> Option<String> {
        let Some(cluster_id) = session.cluster_id() else {
            return Some("the session with Vault has just ended".into());
        };
        self.of(id, |record| {
            let ours =
                record.origin.same_vault(&self.here) && record.origin.same_cluster(&cluster_id);
            (!ours).then(|| {
                format!(
                    "its token is of another Vault, {}",
                    record.origin.vault_addr
                )
            })
        })
    }

    fn conclude(&self, id: VolumeId, task: Task, outcome: Outcome) {
        let mut registry = self.lock();
        registry.agenda.give_back(id);
        if let Some(known) = registry.known.get_mut(&id) {
            known.conclude(task, outcome);
            if known.record.lost && known.record.state == State::Attached && task == Task::Renew {
                let name = known.record.name();
                registry.lost.push(name);
                self.hurry(&mut registry);
                self.losses.notify_one();
                // A failure is on the agenda.
                let _ = self.write(&mut registry, id);
                return;
            }
        }
        self.plan(&mut registry, id);
    }

    /// One lost token may be the first of many, as when Vault was restored from a backup: all are
    /// looked for now, so that it is one event, told at once.
    fn hurry(&self, registry: &mut Registry) {
        let now = clock::boottime_ms();
        let lately = clock::millis(HURRY_PAUSE);
        if registry.hurried.is_some_and(|at| now - at < lately) {
            return;
        }
        registry.hurried = Some(now);
        let ids: Vec<_> = registry.known.keys().copied().collect();
        for id in ids {
            if let Some(known) = registry.known.get_mut(&id) {
                known.hurry = known.record.state == State::Attached && !known.record.lost;
            }
            self.plan(registry, id);
        }
    }

    /// Something of a volume's record, for work outside the lock.
    fn of<T>(&self, id: VolumeId, get: impl FnOnce(&Record) -> Option<T>) -> Option<T> {
        let registry = self.lock();
        get(&registry.known.get(&id)?.record)
    }
}

impl Known {
    fn conclude(&mut self, task: Task, outcome: Outcome) {
        let name = self.record.name();
        let volume = self.record.id;
        if task == Task::Renew {
            self.hurry = false;
        }
        match (task, outcome) {
            (_, Outcome::Done) => {
                if self.failures > 0 {
                    tracing::info!(%volume, "{name}: {} done after {} failed tries", word(task), self.failures);
                }
                (self.failures, self.not_before) = (0, 0);
            }
            (Task::LookUnwrapped, Outcome::Never(why)) => {
                tracing::warn!(%volume, "{name}: {} failed for good: {why}", word(task));
                self.done.looked = true;
            }
            (Task::Renew, Outcome::Gone) => self.record.lost = true,
            (_, Outcome::Gone) => {}
            (_, Outcome::Never(why)) => {
                tracing::warn!(%volume, "{name}: Vault will not renew its token: {why}");
                self.record.unmanaged = Some(format!("Vault will not renew it: {why}"));
            }
            (_, Outcome::Later(why)) => {
                if let (0, Some(why)) = (self.failures, why) {
                    tracing::warn!(%volume, "{name}: {} failed and is tried again: {why}", word(task));
                }
                self.not_before = plan::retry(Moment::now(), self.failures, self.record.expires);
                self.failures += 1;
            }
        }
    }
}

/// Judges a failed call. The session itself says once what concerns all volumes, as a missing right
/// or a bad token does.
fn outcome(error: BackgroundError, session: &Session) -> Outcome {
    let error: VaultError = match error {
        BackgroundError::NotReady => return Outcome::Later(None),
        BackgroundError::Vault(error) => error,
    };
    match error.verdict() {
        Verdict::Gone => Outcome::Gone,
        Verdict::Denied => {
            session.doubt();
            Outcome::Later(None)
        }
        Verdict::Final => Outcome::Never(error.to_string()),
        Verdict::Later if error.concerns_all_calls() => {
            session.doubt();
            Outcome::Later(None)
        }
        Verdict::Later => Outcome::Later(Some(error.to_string())),
    }
}

/// Vault's answer to a renewal.
fn renewed(record: &mut Record, renewal: &Renewal) {
    let now = Moment::now();
    let expires = now.after(renewal.ttl);
    let before = record.ttl_ms;
    let ttl = clock::millis(renewal.ttl);
    // Less than before is what an explicit max TTL leaves: it will not grow again.
    if before.is_some_and(|before| ttl + 1500 < before) {
        record.ends = Some(expires);
    }
    if before.is_none_or(|before| ttl > before) || record.ends.is_none() {
        record.ttl_ms = Some(ttl);
    }
    record.expires = Some(expires);
    record.renewed = Some(now);
    if !renewal.renewable {
        record.unmanaged = Some("the token cannot be renewed".into());
    }
}

/// The next thing owed, and the accessor that it needs: none where it is not needed any more, as
/// for a wrapping token that has expired.
fn owed(record: &Record) -> Option<(Debt, Option<crate::volumes::Accessor>)> {
    let debt = *record.owed.first()?;
    let accessor = match debt {
        Debt::RevokeWrapping => record
            .wrapping
            .as_ref()
            .filter(|wrapping| wrapping.ends > Moment::now())
            .map(|wrapping| wrapping.accessor.clone()),
        Debt::Revoke => record.accessor.clone(),
    };
    Some((debt, accessor))
}

const fn word(task: Task) -> &'static str {
    match task {
        Task::Renew => "its renewal",
        Task::LookUnwrapped => "the look whether it was unwrapped",
        Task::Pay => "its revocation",
        Task::GiveNotice | Task::Forget => "its record",
    }
}
