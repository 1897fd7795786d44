//! The volumes that pods have, and what is owed of those that have ended.
//!
//! [`record`] is what is known of one volume, [`journal`] keeps the records over restarts,
//! [`registry`] leads each volume through its states, [`plan`] says what is next for it and when,
//! and the [`agenda`] holds all of that. [`settle`] does what comes due here, [`tend`] what is to be
//! done at Vault; [`mounts`] reads which volumes are mounted, [`watch`] follows that, [`hold`] keeps
//! revocations back, [`condition`] has a word for each volume, [`report`] sums up.

mod agenda;
mod condition;
mod hold;
mod journal;
mod mounts;
pub mod plan;
mod record;
mod registry;
mod report;
mod settle;
mod tend;
mod watch;

pub use condition::Condition;
pub use journal::{Journal, JournalError};
pub use record::{Accessor, Debt, FORMAT, Kind, Origin, Record, State, Wrapping};
pub use registry::{Attached, Volumes};
pub use report::Counts;

use crate::vault::Session;
use plan::Task;
use std::convert::Infallible;

impl Volumes {
    /// Everything that goes on beside the mounts, as long as the agent lives.
    pub async fn live(&self, session: &Session) -> Infallible {
        let worker = |first| self.tend(session, first);
        tokio::join!(
            self.settle(),
            self.watch(),
            self.tell_losses(),
            // As many as the session lets into the background at once.
            worker(Task::Renew),
            worker(Task::Renew),
            worker(Task::Renew),
            worker(Task::Pay),
        )
        .0
    }
}
