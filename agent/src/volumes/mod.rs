//! The volumes that pods have, and what is owed of those that have ended.
//!
//! [`record`] is what is known of one volume, [`journal`] keeps the records over restarts,
//! [`registry`] leads each volume through its states, [`mounts`] reads which volumes are mounted,
//! and [`settle`] finds out what became of volumes that nobody reported on.

mod journal;
mod mounts;
mod record;
mod registry;
mod settle;

pub use journal::{Journal, JournalError};
pub use record::{Accessor, Debt, FORMAT, Kind, Origin, Record, State};
pub use registry::{Attached, Counts, Volumes};
