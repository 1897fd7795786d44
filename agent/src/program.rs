//! Running a program that may hang, or never stop talking.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// The most that is read of what a program complains of, in bytes.
const MAX_COMPLAINT: usize = 64 * 1024;

/// What a program writes to its standard output: one byte more than `most` at most, and no longer than
/// `patience`. Its exit status does not count.
///
/// # Errors
/// Why there is nothing, in a line.
pub async fn output(
    program: &str,
    arguments: &[&str],
    most: usize,
    patience: Duration,
) -> Result<Vec<u8>, String> {
    let failed = |why: &str| format!("{program}: {why}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error.to_string()))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        let said = async {
            let said = read(stdout, most).await;
            if said.len() > most {
                // It has more to say than is wanted. It may have ended by itself.
                let _ = child.start_kill();
            }
            said
        };
        tokio::join!(said, read(stderr, MAX_COMPLAINT))
    };
    let Ok((said, complaint)) = tokio::time::timeout(patience, reading).await else {
        return Err(failed(&format!("not done in {} s", patience.as_secs())));
    };
    if said.is_empty() {
        let complaint = String::from_utf8_lossy(&complaint);
        let first = complaint.lines().next().unwrap_or("it says nothing");
        return Err(failed(first));
    }
    Ok(said)
}

/// The same for whoever is in no runtime.
///
/// # Errors
/// As above.
pub fn output_here(
    program: &str,
    arguments: &[&str],
    most: usize,
    patience: Duration,
) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("{program}: {error}"))?;
    runtime.block_on(output(program, arguments, most, patience))
}

async fn read(from: Option<impl AsyncRead + Unpin>, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What was read before an error counts.
        let _ = from.take(most as u64 + 1).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn run(script: &str, most: usize, patience: Duration) -> Result<Vec<u8>, String> {
        output_here("sh", &["-c", script], most, patience)
    }

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_program_says_is_read_whatever_its_status() {
        assert_eq!(run("echo yes; exit 3", 9, SOON).unwrap(), b"yes\n");
        let complaint = run("echo no such unit >&2; echo more >&2", 9, SOON);
        assert_eq!(complaint.unwrap_err(), "sh: no such unit");
        assert_eq!(run("exit 0", 9, SOON).unwrap_err(), "sh: it says nothing");
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let begun = Instant::now();
        assert_eq!(run("exec yes", 9, SOON).unwrap().len(), 10);
        let hangs = run("exec sleep 600", 9, Duration::from_secs(1));
        assert_eq!(hangs.unwrap_err(), "sh: not done in 1 s");
        assert!(begun.elapsed() < SOON);
    }

    #[test]
    fn one_that_is_not_there() {
        let failed = output_here("/nowhere/it", &[], 9, SOON);
        assert!(failed.unwrap_err().starts_with("/nowhere/it: No such file"));
    }
}
