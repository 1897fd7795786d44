//! What there is to say of all volumes together.

use super::record::{Record, State};
use super::registry::{Known, Registry, Volumes};
use crate::clock::{self, Moment};
use crate::timer;
use serde::Serialize;
use std::io;
use std::time::Duration;

/// An attached volume that the mount table has not shown by now is in another namespace.
const SEEN_BY_NOW: Duration = Duration::from_secs(15);

/// How many volumes there are, beside [`Volumes::conditions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Delivered or attached.
    pub live: usize,
    /// Ended, with something still owed.
    pub owed: usize,
    /// Mounted, but unknown to the agent.
    pub strangers: usize,
    /// Live, with a token that is kept alive, half of whose TTL is over: renewal is late.
    pub overdue: usize,
    /// How long ago that half was over for the one of these that waits longest, in seconds.
    pub oldest_overdue_s: Option<u64>,
    /// All revocations are held.
    pub held: bool,
    /// The age of the oldest live volume, in seconds.
    pub oldest_s: Option<u64>,
    /// How long ago the volume ended whose revocation is owed longest, in seconds.
    pub oldest_owed_s: Option<u64>,
}

impl Volumes {
    /// How many volumes there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let registry = self.lock();
        let now = Moment::now();
        let mut counts = Counts {
            strangers: registry.strangers,
            held: registry.held.is_some(),
            ..Counts::default()
        };
        for record in registry.known.values().map(|known| &known.record) {
            if let (State::Ended, Some(ended)) = (record.state, record.ended) {
                counts.owed += 1;
                let ago = now.since(ended.at).as_secs();
                counts.oldest_owed_s = counts.oldest_owed_s.max(Some(ago));
                continue;
            }
            counts.live += 1;
            let age = now.since(record.created).as_secs();
            counts.oldest_s = counts.oldest_s.max(Some(age));
            if let Some(late) = overdue(record, now) {
                counts.overdue += 1;
                counts.oldest_overdue_s = counts.oldest_overdue_s.max(Some(late.as_secs()));
            }
        }
        counts
    }

    /// Whether the journal is still brought to the disk.
    #[must_use]
    pub fn journal_is_alive(&self) -> bool {
        self.journal.is_alive()
    }

    /// Whether another volume could be recorded, by a try.
    ///
    /// # Errors
    /// It could not, and why.
    pub fn could_record(&self) -> io::Result<()> {
        self.journal.has_room()
    }

    /// What is wrong with the volumes as a whole, and what to do: each a line. Any makes the agent
    /// degraded, though it serves.
    #[must_use]
    pub fn concerns(&self) -> Vec<String> {
        let mut concerns = Vec::new();
        let registry = self.lock();
        if let Some(why) = &registry.held {
            concerns.push(format!(
                "all revocations are held: {why}; `vaulttmpfs revocations release` lets them go on"
            ));
        }
        let unseen = registry.unseen();
        if unseen > 0 {
            concerns.push(format!(
                "{unseen} volumes are mounted where this agent cannot see them: does its mount namespace get the kubelet's mounts? Only unmount calls end such volumes"
            ));
        }
        let missing = Self::missing(&registry);
        if missing > 0 {
            concerns.push(format!(
                "{missing} volumes that an earlier agent saw are nowhere in this one's mount table, and no other volume is: were they unmounted while no agent ran, or does its mount namespace not get the kubelet's mounts? They are kept until another volume is seen; `vaulttmpfs revocations release` gives them up"
            ));
        }
        let elsewhere = self.elsewhere(&registry);
        if elsewhere > 0 {
            concerns.push(format!(
                "{elsewhere} volumes have tokens of another Vault than the one at {}: those are neither renewed nor revoked until VAULT_ADDR and VAULT_NAMESPACE name theirs again",
                self.here.vault_addr
            ));
        }
        if registry.strangers > 0 {
            concerns.push(format!(
                "{} mounted volumes are not in the journal: was the state directory lost? `vaulttmpfs adopt` takes them up",
                registry.strangers
            ));
        }
        if !registry.unwritten.is_empty() {
            concerns.push(format!(
                "the journal cannot be written for {} volumes: is the disk of the state directory full?",
                registry.unwritten.len()
            ));
        }
        concerns
    }

    /// Volumes that an earlier process saw, and whose absence means nothing to this one.
    fn missing(registry: &Registry) -> usize {
        let attached = |known: &&Known| known.record.state == State::Attached && known.record.seen;
        registry
            .known
            .values()
            .filter(attached)
            .filter(|known| known.absent_since.is_some() && known.doubtful)
            .count()
    }

    /// Volumes with tokens of another Vault.
    fn elsewhere(&self, registry: &Registry) -> usize {
        let here = self.origin();
        let records = registry.known.values().map(|known| &known.record);
        records
            .filter(|record| !record.origin.same_vault(&here))
            .count()
    }

    /// Waits until [`Self::concerns`] may be others.
    pub async fn stirred(&self) {
        let next_doubt = self.lock().next_doubt();
        let doubt = async {
            match next_doubt {
                Some(at) => timer::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stirred.notified() => {}
            () = doubt => {}
        }
    }
}

impl Registry {
    /// Volumes that have not ended.
    pub(super) fn live_count(&self) -> usize {
        let live = |record: &Record| record.state != State::Ended;
        self.known
            .values()
            .filter(|known| live(&known.record))
            .count()
    }

    fn unseen(&self) -> usize {
        let now = clock::boottime_ms();
        self.doubtful_since().filter(|at| *at <= now).count()
    }

    /// When the next volume becomes an unseen one, unless it is seen before: milliseconds on
    /// `CLOCK_BOOTTIME`.
    fn next_doubt(&self) -> Option<u64> {
        let now = clock::boottime_ms();
        self.doubtful_since().filter(|at| *at > now).min()
    }

    /// From when on each attached volume counts as unseen that the mount table has not yet shown.
    fn doubtful_since(&self) -> impl Iterator<Item = u64> {
        self.known
            .values()
            .map(|known| &known.record)
            .filter(|record| record.state == State::Attached && !record.seen)
            .map(|record| record.created.boottime + clock::millis(SEEN_BY_NOW))
    }
}

/// How late a token's renewal is, if it is: half of its TTL is over, and it was due at a third.
fn overdue(record: &Record, now: Moment) -> Option<Duration> {
    let kept = record.unmanaged.is_none() && !record.lost && record.wishes.renew;
    let since = record.renewed.unwrap_or(record.created);
    let half = Duration::from_millis(record.ttl_ms.filter(|_| kept)? / 2);
    now.since(since)
        .checked_sub(half)
        .filter(|late| !late.is_zero())
}

pub(super) fn never_unwrapped(record: &Record) -> bool {
    let unwrapped = record
        .wrapping
        .as_ref()
        .and_then(|wrapping| wrapping.unwrapped);
    unwrapped == Some(false)
}
