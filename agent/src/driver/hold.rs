//! A directory is held by one command at a time.

use super::Problem;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another command may be at work there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits a while for another command.
pub(super) fn hold(directory: &Path) -> Result<Flock<File>, Problem> {
    let failed = |error: &io::Error| Problem::from_error("cannot hold", directory, error);
    let mut file = File::open(directory).map_err(|error| failed(&error))?;
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(held),
            Err((same, Errno::EWOULDBLOCK)) if begun.elapsed() < PATIENCE => file = same,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Problem::Failed(format!(
                    "another command holds {}: run this again when it has ended",
                    directory.display()
                )));
            }
            Err((_, error)) => return Err(failed(&error.into())),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
