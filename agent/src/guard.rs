//! Keeps the process's memory to itself.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// No core dump, and no look into the memory by another process of the same user: it holds tokens.
pub fn no_traces() {
    if let Err(error) = set_dumpable(false).and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0)) {
        tracing::warn!("the process's memory cannot be kept from core dumps: {error}");
    }
}
