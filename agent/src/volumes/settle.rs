//! What became of volumes that nobody reported on: a shim that was killed, or hung up without a
//! word, may have attached its volume or not. The mount table tells, once the shim is surely gone.

use super::mounts;
use super::record::State;
use super::registry::Volumes;
use crate::clock;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;
use vaulttmpfs_api::VolumeId;

/// Reads of the mount table are at least this far apart.
const PAUSE: Duration = Duration::from_millis(200);

/// How long after a mount table that could not be read the next one is tried.
const BLIND_PAUSE: Duration = Duration::from_secs(5);

impl Volumes {
    /// Looks at what is due, when it is due, and sleeps in between.
    pub async fn settle(&self) -> Infallible {
        loop {
            self.until_due().await;
            let doubtful = self.due();
            if !doubtful.is_empty() {
                match tokio::task::spawn_blocking(mounts::mounted).await {
                    Ok(Ok(mounted)) => self.judge(&doubtful, &mounted),
                    Ok(Err(error)) => self.put_off(&doubtful, &error),
                    Err(error) => self.put_off(&doubtful, &std::io::Error::other(error)),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn until_due(&self) {
        loop {
            let now = clock::boottime_ms();
            let wait = match self.next_look() {
                Some(look_at) if look_at <= now => return,
                Some(look_at) => Duration::from_millis(look_at - now),
                None => Duration::MAX,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => return,
                () = self.changed.notified() => {}
            }
        }
    }

    /// Looks at what is due. Returns the delivered volumes whose shim is surely gone: it has hung
    /// up and has no process any more, or its time to attach is over.
    fn due(&self) -> Vec<VolumeId> {
        let now = clock::boottime_ms();
        let mut registry = self.lock();
        let mut doubtful = Vec::new();
        for id in registry.take_due(now) {
            let Some(known) = registry.get_mut(id) else {
                continue;
            };
            let last_look = known.last_look();
            match (known.record.state, &mut known.hung_up) {
                (State::Attached, _) => {
                    // Only a record that could not be written brings an attached volume here.
                    let _ = self.write(&mut registry, id);
                }
                (State::Ended, _) => self.look_at_ended(&mut registry, id),
                (State::Delivered, Some((pid, wait))) if now < last_look && !is_gone(*pid) => {
                    *wait *= 2;
                    let again = (now + clock::millis(*wait)).min(last_look);
                    self.look(&mut registry, id, again);
                }
                (State::Delivered, _) => doubtful.push(id),
            }
        }
        doubtful
    }

    fn judge(&self, doubtful: &[VolumeId], mounted: &HashSet<VolumeId>) {
        let mut registry = self.lock();
        let blind = registry.is_blind(mounted);
        for &id in doubtful {
            let Some(known) = registry.get_mut(id) else {
                continue;
            };
            if known.record.state != State::Delivered {
                continue;
            }
            if mounted.contains(&id) || blind {
                known.record.state = State::Attached;
                // A failure has put it on the agenda again.
                let _ = self.write(&mut registry, id);
            } else {
                self.end(&mut registry, id, "it was never attached");
            }
        }
    }

    /// Nothing is ended by an agent that cannot see.
    fn put_off(&self, doubtful: &[VolumeId], error: &std::io::Error) {
        tracing::warn!("the mount table cannot be read: {error}");
        let again = clock::boottime_ms() + clock::millis(BLIND_PAUSE);
        let mut registry = self.lock();
        for &id in doubtful {
            self.look(&mut registry, id, again);
        }
    }
}

/// Is there no process of this id any more? One that may not be signalled is there; an id in use
/// again by another only delays the answer.
fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}
