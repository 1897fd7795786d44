//! The work at Vault for the volumes: renewals, looks at wrapping tokens, revocations.
//!
//! A few workers take the most urgent task that is due. All of it is background work: mounts come
//! first, and the session bounds how many calls a second there are.

use super::plan::{self, Task};
use super::record::{Accessor, Debt, Record, State};
use super::registry::{Known, Registry, Volumes};
use crate::clock::{self, Moment};
use crate::config::WatchUnwrap;
use crate::metrics;
use crate::vault::lease::SAME_MS;
use crate::vault::{Renewal, Session, VaultError, Verdict};
use std::convert::Infallible;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;

/// After a loss all volumes are looked at, but not more often than this.
const HURRY_PAUSE: Duration = Duration::from_secs(600);

/// What a call means for a volume, beyond success.
enum Outcome {
    Done,
    /// It is too late for it.
    Missed,
    /// There was nothing to do any more, or it may not be done now.
    Withdrawn,
    /// Vault does not know the accessor.
    Gone,
    /// It will never work, and why.
    Never(String),
    /// It may work later.
    Later(Option<String>),
}

impl Volumes {
    /// One worker. Several may run; each takes one kind of task first, so that none waits for ever
    /// where there is more to do than Vault is asked in time.
    pub(super) async fn tend(&self, session: &Session, first: Task) -> Infallible {
        loop {
            session.until_ready().await;
            if let Some(cluster_id) = session.cluster_id() {
                self.seen_cluster(&cluster_id);
            }
            let Some((id, task)) = self.take(first) else {
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

    fn take(&self, first: Task) -> Option<(VolumeId, Task)> {
        let mut registry = self.lock();
        let held = registry.held.is_some();
        let may = |task| !held || task != Task::Pay;
        let agenda = &mut registry.agenda;
        agenda
            .take_ready(|task| task == first && may(task))
            .or_else(|| agenda.take_ready(may))
    }

    async fn renew(&self, session: &Session, id: VolumeId) -> Outcome {
        let Some(turn) = session.turn().await else {
            return Outcome::Withdrawn;
        };
        let Some(accessor) = self.of(id, living_accessor) else {
            return Outcome::Withdrawn;
        };
        match turn.renew(accessor.secret()).await {
            Ok(renewal) => {
                self.change(id, |record| renewed(record, &renewal, Moment::now()));
                Outcome::Done
            }
            Err(error) => outcome(&error, session),
        }
    }

    /// Looks once. After the wrapping token's end it could say nothing any more: no volume whose look fell
    /// into an outage is worth a call, or a line at each start.
    async fn look_unwrapped(&self, session: &Session, id: VolumeId) -> Outcome {
        let in_time = |record: &Record| {
            let wrapping = record.wrapping.clone();
            wrapping.filter(|wrapping| wrapping.ends > Moment::now())
        };
        if self.of(id, in_time).is_none() {
            return Outcome::Missed;
        }
        let Some(turn) = session.turn().await else {
            return Outcome::Withdrawn;
        };
        let Some(wrapping) = self.of(id, in_time) else {
            return Outcome::Missed;
        };
        let unwrapped = match turn.lookup(wrapping.accessor.secret()).await {
            Ok(_) => false,
            Err(error) => match outcome(&error, session) {
                Outcome::Gone => true,
                failed => return failed,
            },
        };
        self.change(id, |record| {
            if let Some(wrapping) = &mut record.wrapping {
                wrapping.unwrapped = Some(unwrapped);
            }
            if !unwrapped {
                self.metrics.never_unwrapped();
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
                Some(_) => self.revoke(session, id, debt).await,
            };
            match outcome {
                Outcome::Done | Outcome::Gone => {}
                Outcome::Never(why) => {
                    tracing::warn!(volume = %id, "Vault will not revoke its token: {why}");
                }
                later @ (Outcome::Later(_) | Outcome::Withdrawn | Outcome::Missed) => return later,
            }
            self.change(id, |record| record.owed.retain(|owed| *owed != debt));
        }
        Outcome::Done
    }

    /// Whether it may is looked at once the call's turn has come: a hold holds from then on, and a
    /// volume that has shown itself again lives.
    async fn revoke(&self, session: &Session, id: VolumeId, debt: Debt) -> Outcome {
        let Some(turn) = session.turn().await else {
            return Outcome::Withdrawn;
        };
        if self.lock().held.is_some() {
            return Outcome::Withdrawn;
        }
        match self.of(id, owed) {
            Some((first, Some(accessor))) if first == debt => {
                match turn.revoke(accessor.secret()).await {
                    Ok(()) => Outcome::Done,
                    Err(error) => outcome(&error, session),
                }
            }
            _ => Outcome::Withdrawn,
        }
    }

    /// Why nothing is to be said to this Vault about a volume's token, if so.
    fn not_ours(&self, session: &Session, id: VolumeId) -> Option<String> {
        let Some(cluster_id) = session.cluster_id() else {
            return Some("the session with Vault has just ended".into());
        };
        self.seen_cluster(&cluster_id);
        let here = self.origin();
        self.of(id, |record| {
            let origin = &record.origin;
            (!origin.same_vault(&here)).then(|| {
                format!(
                    "its token is of another Vault, {}, cluster {}",
                    origin.vault_addr, origin.cluster_id
                )
            })
        })
    }

    fn conclude(&self, id: VolumeId, task: Task, outcome: Outcome) {
        self.count(id, task, &outcome);
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
                known.hurry = plan::is_renewed(&known.record, &self.rules);
            }
            self.plan(registry, id);
        }
    }

    fn count(&self, id: VolumeId, task: Task, outcome: &Outcome) {
        let (outcome, why) = match outcome {
            Outcome::Withdrawn | Outcome::Missed => return,
            Outcome::Done => (metrics::Outcome::Done, None),
            Outcome::Gone => (
                metrics::Outcome::Lost,
                Some("Vault does not know it any more"),
            ),
            Outcome::Never(why) => (metrics::Outcome::Refused, Some(why.as_str())),
            Outcome::Later(why) => (metrics::Outcome::Later, why.as_deref()),
        };
        let why = why.and_then(|why| {
            let name = self.of(id, |record| Some(record.name()))?;
            Some(format!("{name}: {} failed: {why}", word(task)))
        });
        match task {
            Task::Renew => self.metrics.renewed(outcome, why.as_deref()),
            Task::Pay => self.metrics.revoked(outcome, why.as_deref()),
            Task::LookUnwrapped | Task::GiveNotice | Task::Forget => {}
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
                let failures = self.progress.succeeded(task);
                if failures > 0 {
                    tracing::info!(%volume, "{name}: {} done after {failures} failed tries", word(task));
                }
            }
            (_, Outcome::Missed) => {
                self.progress.succeeded(task);
                self.progress.looked = true;
            }
            (Task::LookUnwrapped, Outcome::Never(why)) => {
                tracing::warn!(%volume, "{name}: {} failed for good: {why}", word(task));
                self.progress.looked = true;
            }
            (Task::Renew, Outcome::Gone) => self.record.lost = true,
            (_, Outcome::Gone | Outcome::Withdrawn) => {}
            (_, Outcome::Never(why)) => {
                tracing::warn!(%volume, "{name}: Vault will not renew its token: {why}");
                self.record.unmanaged = Some(format!("Vault will not renew it: {why}"));
            }
            (_, Outcome::Later(why)) => {
                let now = Moment::now();
                let before = self.progress.failed(task, now, self.record.expires);
                if let (0, Some(why)) = (before, why) {
                    tracing::warn!(%volume, "{name}: {} failed and is tried again: {why}", word(task));
                }
            }
        }
    }
}

/// Judges a failed call. The session itself says once what concerns all volumes, as a missing right
/// or a bad token does.
fn outcome(error: &VaultError, session: &Session) -> Outcome {
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
        // The session waits, and says so.
        Verdict::Later if error.is_throttled() => Outcome::Later(None),
        Verdict::Later => Outcome::Later(Some(error.to_string())),
    }
}

/// Vault's answer to a renewal. The next one counts from what it gives: a role's period may have been
/// made shorter. One that gives less *and* moves the expiry no further has met an explicit max TTL.
fn renewed(record: &mut Record, renewal: &Renewal, now: Moment) {
    let expires = now.after(renewal.ttl);
    let ttl = clock::millis(renewal.ttl);
    let less = record.ttl_ms.is_some_and(|before| ttl + SAME_MS < before);
    let unmoved = record
        .expires
        .is_some_and(|before| before.boottime.abs_diff(expires.boottime) <= SAME_MS);
    if less && unmoved {
        record.ends = Some(expires);
    }
    record.ttl_ms = Some(ttl);
    record.expires = Some(expires);
    record.renewed = Some(now);
    if !renewal.renewable {
        record.unmanaged = Some("the token cannot be renewed".into());
    }
}

/// The accessor of a token that is kept alive: none once its volume has ended.
fn living_accessor(record: &Record) -> Option<Accessor> {
    let lives = record.state != State::Ended;
    record.accessor.clone().filter(|_| lives)
}

/// The next thing owed, and the accessor that it needs: none where it is not needed any more, as
/// for a wrapping token that has expired.
fn owed(record: &Record) -> Option<(Debt, Option<Accessor>)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::record::tests::attached;
    use std::time::Duration;

    const HOUR: u64 = 3600;

    /// Renews a token that gave 24 h so far, and again some hours later.
    fn after(renewals: &[(u64, u64)]) -> Record {
        let mut record = attached(0);
        let made = record.created;
        record.ttl_ms = Some(24 * HOUR * 1000);
        record.expires = Some(made.after(Duration::from_secs(24 * HOUR)));
        for (at, ttl) in renewals {
            let renewal = Renewal {
                ttl: Duration::from_secs(*ttl),
                renewable: true,
            };
            renewed(&mut record, &renewal, made.after(Duration::from_secs(*at)));
        }
        record
    }

    #[test]
    fn a_roles_shorter_period_counts_at_once_and_is_no_end() {
        let record = after(&[(8 * HOUR, HOUR)]);
        assert_eq!(record.ttl_ms, Some(HOUR * 1000));
        assert_eq!(record.ends, None);
        let record = after(&[(8 * HOUR, HOUR), (8 * HOUR + HOUR / 3, HOUR)]);
        assert_eq!((record.ttl_ms, record.ends), (Some(HOUR * 1000), None));
    }

    #[test]
    fn an_explicit_max_ttl_is_an_end_however_it_comes_near() {
        // In seconds: the end, and when the token is renewed before.
        for (end, times) in [
            (30 * HOUR, [8 * HOUR, 15 * HOUR]),
            (24 * HOUR, [6 * HOUR, 12 * HOUR]),
            (20 * HOUR, [8 * HOUR, 12 * HOUR]),
        ] {
            let record = after(&times.map(|at| (at, end - at)));
            let expected = record.created.after(Duration::from_secs(end));
            assert_eq!(record.ends, Some(expected), "{end}");
        }
    }
}
