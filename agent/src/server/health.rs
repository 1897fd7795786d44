//! Whether the agent lives, and whether it could serve a mount: for whoever watches over it.

use super::answer::{self, Answer};
use super::status::Agent;
use crate::failure::{Failure, Reason};
use hyper::StatusCode;
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A try whether the journal has room holds for so long.
const HOLDS: Duration = Duration::from_secs(1);

/// `GET /healthz`: 503 where a new start may mend something. That there is an answer shows that the
/// one thread turns which does everything; the journal has another.
pub(super) fn alive(agent: &Agent) -> Answer {
    match agent.volumes() {
        Ok(volumes) if !volumes.journal_is_alive() => unavailable(&Failure::new(
            Reason::Journal,
            "the journal is not brought to the disk any more: does the disk of its state directory hang?",
        )),
        // Bad settings are no matter of a new start.
        _ => answer::json(&json!({ "alive": true })),
    }
}

/// `GET /readyz`: 200 where a mount could be served: the session with Vault is warm, and the journal
/// has room. Else 503 and why.
pub(super) fn ready(agent: &Agent) -> Answer {
    match mountable(agent) {
        Ok(()) => answer::json(&json!({ "ready": true })),
        Err(failure) => unavailable(&failure),
    }
}

fn mountable(agent: &Agent) -> Result<(), Failure> {
    let mounter = agent.mounter()?;
    match agent.problem() {
        Some(failure) => Err(failure),
        None => agent.last_try.or(|| mounter.could_record()),
    }
}

/// The last try whether the journal has room. It writes a file, and anyone may ask.
#[derive(Default)]
pub(super) struct LastTry(Mutex<Option<(Instant, Result<(), Failure>)>>);

impl LastTry {
    /// What came of it, where it still holds, else of another.
    fn or(&self, another: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, outcome)) = &*last
            && at.elapsed() < HOLDS
        {
            return outcome.clone();
        }
        let outcome = another();
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }
}

/// 503 whatever the reason's own status is: those who ask know two answers.
fn unavailable(failure: &Failure) -> Answer {
    let mut answer = answer::refusal(failure);
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::mount::Mounter;
    use crate::server::Duty;
    use crate::vault::Session;
    use crate::volumes::{Journal, Origin, Volumes};
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::path::Path;
    use std::sync::Arc;

    /// An agent with the journal of this directory, which no Vault has answered yet.
    fn agent(state_dir: &Path, spoil: fn(Journal) -> Journal) -> Agent {
        let nothing: HashMap<&str, OsString> = HashMap::new();
        let settings = config::read(&nothing).unwrap();
        let delivered = settings.delivered.files().unwrap();
        let (metrics, here) = (Arc::default(), Origin::default());
        let session = Session::new(&settings, Arc::clone(&metrics));
        let (journal, records) = Journal::open(state_dir, &here).unwrap();
        let volumes = Arc::new(Volumes::new(
            spoil(journal),
            records,
            here,
            &settings.lifecycle,
            Arc::clone(&metrics),
        ));
        let mounter = Arc::new(Mounter::new(
            settings,
            delivered,
            Arc::clone(&session),
            Arc::clone(&volumes),
            Arc::clone(&metrics),
        ));
        let duty = Duty::Working {
            mounter,
            volumes,
            session,
            tcp: None,
        };
        Agent::new(duty, metrics, false)
    }

    #[test]
    fn it_does_not_live_without_the_thread_that_writes_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let well = agent(directory.path(), |journal| journal);
        assert_eq!(alive(&well).status(), StatusCode::OK);
        drop(well);
        let dead = agent(directory.path(), Journal::without_thread);
        assert_eq!(alive(&dead).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn the_journal_is_not_tried_for_each_who_asks() {
        let last = LastTry::default();
        let mut tries = 0;
        for _ in 0..1000 {
            let outcome = last.or(|| {
                tries += 1;
                Err(Failure::new(Reason::Journal, "no room"))
            });
            assert!(outcome.is_err());
        }
        assert!(tries < 100, "{tries} tries");
    }

    #[test]
    fn bad_settings_are_no_reason_to_start_anew() {
        let failure = Failure::new(Reason::BadSettings, "VAULT_ADDR");
        let agent = Agent::new(Duty::Misconfigured(failure), Arc::default(), true);
        assert_eq!(alive(&agent).status(), StatusCode::OK);
        assert_eq!(ready(&agent).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
