//! A look at files, processes or units, which may hang: a file system whose server is gone never answers,
//! and no call to it can be told to give up.

use super::report::Report;
use std::time::Duration;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

/// How long one subject may take on the node.
const PATIENCE: Duration = Duration::from_secs(8);

/// Looks in a thread of its own. What was found, and what came of it; where it hangs, that, and nothing.
pub(super) async fn aside<T: Send + 'static>(
    title: &'static str,
    look: impl FnOnce(&mut Report) -> T + Send + 'static,
) -> (Report, Option<T>) {
    let looking = spawn_blocking(move || {
        let mut report = Report::default();
        let seen = look(&mut report);
        (report, seen)
    });
    let mut hangs = Report::default();
    let why = match timeout(PATIENCE, looking).await {
        Ok(Ok((report, seen))) => return (report, Some(seen)),
        Ok(Err(error)) => defect(error),
        Err(_) => format!(
            "it could not be looked at within {} s: does a file system of the network hang? cat /proc/mounts, and df of each that is nfs, cifs or fuse",
            PATIENCE.as_secs()
        ),
    };
    hangs.group(title).failure(why);
    (hangs, None)
}

fn defect(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => error.to_string(),
    }
}
