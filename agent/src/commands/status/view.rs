//! One look at the agent: what it says, or why it says nothing.

use crate::client::{self, Unseen};
use crate::exit::Exit;
use crate::screen::{Mood, Screen};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use vaulttmpfs_api::{LOOK, STATUS_PATH};

/// What was seen.
pub enum View {
    /// The agent says how it is; its own words come with it.
    Seen(Box<Said>, String),
    /// Nothing says how it is, and why.
    Unseen {
        /// Why, and what to do.
        problem: String,
        /// Something answers, though not with a status.
        answering: bool,
    },
}

/// What is shown of `GET /v1/status`. An older agent may leave any of it out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Said {
    pub(super) ready: bool,
    pub(super) degraded: bool,
    pub(super) reasons: Vec<String>,
    pub(super) concerns: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) version: String,
    pub(super) vault: Option<Vault>,
    pub(super) generator: Option<Generator>,
    pub(super) volumes: Option<Volumes>,
    pub(super) failures: Failures,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Vault {
    pub(super) address: String,
    pub(super) answering: Option<bool>,
    pub(super) sealed: Option<bool>,
    pub(super) version: Option<String>,
    pub(super) generator_policies: Vec<String>,
    pub(super) calls: Option<Calls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Calls {
    pub(super) count: u64,
    pub(super) median_ms: u64,
    pub(super) longest_ms: u64,
    pub(super) ago_s: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "as the agent names them")]
pub(super) struct Generator {
    pub(super) ttl_s: Option<u64>,
    pub(super) period_s: Option<u64>,
    pub(super) next_renewal_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Volumes {
    pub(super) live: u64,
    pub(super) owed: u64,
    pub(super) oldest_owed_s: Option<u64>,
    pub(super) overdue: u64,
    pub(super) oldest_overdue_s: Option<u64>,
    pub(super) held: bool,
    pub(super) by_state: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failures {
    pub(super) within_s: u64,
    pub(super) by_reason: BTreeMap<String, u64>,
    pub(super) newest: Option<Newest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Newest {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) ago_s: u64,
}

impl View {
    /// Looks at the agent, which looks at Vault unless it has just done so.
    pub async fn take() -> Self {
        let (problem, answering) = match client::look(&format!("{STATUS_PATH}?{LOOK}")).await {
            Ok(body) => return Self::of(&body),
            Err(Unseen::NoAnswer(problem)) => (problem, false),
            Err(Unseen::Refused(problem)) => (problem, true),
        };
        Self::Unseen { problem, answering }
    }

    pub(super) fn of(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(said) => Self::Seen(said, String::from_utf8_lossy(body).into_owned()),
            Err(_) => Self::Unseen {
                problem: "what answers there is not a vaulttmpfs agent".to_owned(),
                answering: false,
            },
        }
    }

    /// Why nothing was seen, if so.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Seen(..) => None,
            Self::Unseen { problem, .. } => Some(problem),
        }
    }

    /// What a script is told: ready, degraded, or not running.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Seen(said, _) if said.ready && !said.degraded => Exit::Done,
            Self::Seen(..)
            | Self::Unseen {
                answering: true, ..
            } => Exit::Failed,
            Self::Unseen { .. } => Exit::NotRunning,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self, screen: &Screen) -> String {
        match self {
            Self::Seen(said, _) => said.text(screen),
            Self::Unseen { problem, .. } => screen.paragraph(
                "vaulttmpfs: ",
                Mood::Bad,
                &format!("not running: {problem}"),
            ),
        }
    }

    /// For programs, on one line: what the agent says, or as much as can be said without it.
    #[must_use]
    pub fn json(&self) -> String {
        match self {
            Self::Seen(_, body) => format!("{}\n", body.trim_end()),
            Self::Unseen { problem, answering } => {
                let said = json!({
                    "ready": false,
                    "degraded": true,
                    "running": answering,
                    "reasons": [problem],
                });
                format!("{said}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_tells_the_three_apart() {
        for (body, exit) in [
            (r#"{"ready":true,"degraded":false}"#, Exit::Done),
            (r#"{"ready":true,"degraded":true}"#, Exit::Failed),
            (r#"{"ready":false,"degraded":false}"#, Exit::Failed),
            (r#"{"ready":"yes"}"#, Exit::NotRunning),
            ("<html>", Exit::NotRunning),
        ] {
            assert_eq!(View::of(body.as_bytes()).exit(), exit, "{body}");
        }
        let refused = View::Unseen {
            problem: "status 500".into(),
            answering: true,
        };
        assert_eq!(refused.exit(), Exit::Failed);
        assert_eq!(
            refused.json(),
            "{\"degraded\":true,\"ready\":false,\"reasons\":[\"status 500\"],\"running\":true}\n"
        );
    }
}
