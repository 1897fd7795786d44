//! The agent's socket: is it there, whose is it, and does the agent answer?

use super::report::{Group, Report};
use crate::client;
use crate::line::one_line;
use hyper::Method;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;
use vaulttmpfs_api::{STATUS_PATH, VOLUMES_PATH};

pub(super) const TITLE: &str = "agent";

/// An agent that is well answers in a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Others may connect.
const OTHERS_WRITE: u32 = 0o002;

/// Group and others may put another socket there.
const NOT_OWNER_WRITES: u32 = 0o022;

const STICKY: u32 = 0o1000;

/// The longest text of another agent that is shown, in bytes.
const LONGEST: usize = 500;

/// What is asked of `GET /v1/status`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Agent {
    /// Its version.
    pub(super) version: String,
    /// Its process id; 0 of an agent that does not say.
    pub(super) pid: u32,
    ready: bool,
    reasons: Vec<String>,
    concerns: Vec<String>,
}

/// What is asked of `GET /v1/volumes`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Volumes {
    volumes: Vec<Volume>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Volume {
    role: String,
}

/// Is there a socket, and whose? `installed`: one is expected.
pub(super) fn file(report: &mut Report, socket: &Path, installed: bool) -> bool {
    let mut group = report.group(TITLE);
    let metadata = match fs::symlink_metadata(socket) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound && !installed => {
            group.not_checked("the agent: it is not installed yet");
            return false;
        }
        Err(error) => {
            group.failure(format!(
                "there is no socket {} ({error}), so no pod gets a volume: systemctl enable --now vaulttmpfs-agent.socket",
                socket.display()
            ));
            return false;
        }
    };
    if !metadata.file_type().is_socket() {
        group.failure(format!(
            "{} is no socket: move it away, and systemctl restart vaulttmpfs-agent.socket",
            socket.display()
        ));
        return false;
    }
    rights(&mut group, socket, &metadata);
    true
}

/// The agent, where one answers.
pub(super) async fn check(report: &mut Report, socket: &Path) -> Option<Agent> {
    let mut group = report.group(TITLE);
    let agent = ask(&mut group, socket).await?;
    if agent.ready && agent.concerns.is_empty() {
        group.ok(format!("the agent {} is ready", agent.version));
    }
    for reason in &agent.reasons {
        group.failure(format!("the agent is not ready: {reason}"));
    }
    for concern in &agent.concerns {
        group.warning(format!("the agent says: {concern}"));
    }
    let own = env!("CARGO_PKG_VERSION");
    if agent.version != own {
        group.warning(format!(
            "the agent that runs is {}, this program {own}: systemctl restart vaulttmpfs-agent.service",
            agent.version
        ));
    }
    Some(agent)
}

fn rights(group: &mut Group<'_>, socket: &Path, metadata: &Metadata) {
    let shown = socket.display();
    let mode = metadata.mode();
    let before = group.failures();
    if mode & OTHERS_WRITE != 0 {
        group.failure(format!(
            "everybody may ask the agent at {shown} (mode {:04o}): chmod o-rwx {shown}, and SocketMode=0660 in vaulttmpfs-agent.socket",
            mode & 0o7777
        ));
    }
    let Some(directory) = socket.parent() else {
        return;
    };
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(metadata)
            if metadata.mode() & NOT_OWNER_WRITES != 0 && metadata.mode() & STICKY == 0 =>
        {
            group.failure(format!(
                "others than its owner may write to {shown}, and put another socket there, which the driver would trust: chmod go-w {shown}"
            ));
        }
        Ok(_) => {}
        Err(error) => group.failure(format!("{shown}: {error}")),
    }
    if group.failures() == before {
        group.ok(format!(
            "{} is its owner's and group's alone (mode {:04o})",
            socket.display(),
            mode & 0o7777
        ));
    }
}

async fn ask(group: &mut Group<'_>, socket: &Path) -> Option<Agent> {
    let asked = client::exchange(socket, &Method::GET, STATUS_PATH, b"");
    let body = match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => {
            group.failure(format!(
                "the agent at {} does not answer within {} s: journalctl -u vaulttmpfs-agent; systemctl restart vaulttmpfs-agent.service",
                socket.display(),
                PATIENCE.as_secs()
            ));
            return None;
        }
        Ok(Err(problem)) if problem.contains("not for this user") => {
            group.not_checked(format!("the agent: {problem}"));
            return None;
        }
        Ok(Err(problem)) => {
            group.failure(format!("{problem} systemctl status vaulttmpfs-agent"));
            return None;
        }
        Ok(Ok((_, body))) => body,
    };
    match serde_json::from_slice::<Agent>(&body) {
        Ok(mut agent) if !agent.version.is_empty() => {
            agent.version = one_line(&agent.version, LONGEST);
            Some(agent)
        }
        _ => {
            group.failure(format!(
                "what answers at {} is not a vaulttmpfs agent: whose socket is it?",
                socket.display()
            ));
            None
        }
    }
}

/// The roles of the volumes that the agent has; none where it does not say, or does not answer at all.
pub(super) async fn roles_in_use(socket: &Path, agent: Option<&Agent>) -> BTreeSet<String> {
    if agent.is_none() {
        return BTreeSet::new();
    }
    let asked = client::exchange(socket, &Method::GET, VOLUMES_PATH, b"");
    let Ok(Ok((200, body))) = tokio::time::timeout(PATIENCE, asked).await else {
        return BTreeSet::new();
    };
    let volumes: Volumes = serde_json::from_slice(&body).unwrap_or_default();
    volumes.volumes.into_iter().map(|it| it.role).collect()
}
