//! `vaulttmpfs status`: how the running agent is.

use super::{client, complain, say};
use crate::duration::to_go;
use crate::exit::Exit;
use hyper::Method;
use serde::Deserialize;
use std::time::Duration;

/// What is shown of `GET /v1/status`. An older agent may leave any of it out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    ready: bool,
    degraded: bool,
    reasons: Vec<String>,
    concerns: Vec<String>,
    warnings: Vec<String>,
    version: String,
    generator: Option<Generator>,
    volumes: Option<Volumes>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generator {
    ttl_s: Option<u64>,
    next_renewal_s: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Volumes {
    live: u64,
    lost: u64,
    owed: u64,
}

/// Runs the command.
#[must_use]
pub fn run(json: bool) -> Exit {
    let body = match client::request(&Method::GET, "/v1/status", b"") {
        Ok((200, body)) => body,
        Ok((status, _)) => {
            complain(&format!("the agent answered with status {status}"));
            return Exit::Failed;
        }
        Err(problem) => {
            complain(&problem);
            return Exit::NotRunning;
        }
    };
    let Ok(status) = serde_json::from_slice::<Status>(&body) else {
        complain("what answers there is not a vaulttmpfs agent");
        return Exit::NotRunning;
    };
    if json {
        say(&String::from_utf8_lossy(&body));
    } else {
        status.lines().iter().for_each(|line| say(line));
    }
    if status.ready && !status.degraded {
        Exit::Done
    } else {
        Exit::Failed
    }
}

impl Status {
    fn lines(&self) -> Vec<String> {
        let state = match (self.ready, self.degraded) {
            (true, false) => "ready",
            (true, true) => "ready, but degraded",
            (false, _) => "not ready",
        };
        let mut lines = vec![format!("agent {}: {state}", self.version)];
        for (head, texts) in [
            ("not ready", &self.reasons),
            ("concern", &self.concerns),
            ("warning", &self.warnings),
        ] {
            lines.extend(texts.iter().map(|text| format!("{head}: {text}")));
        }
        lines.extend(self.generator.as_ref().map(Generator::line));
        if let Some(Volumes { live, lost, owed }) = self.volumes {
            lines.push(format!(
                "volumes: {live} live, {lost} of them with a token that Vault has lost; {owed} ended with a revocation owed"
            ));
        }
        lines
    }
}

impl Generator {
    fn line(&self) -> String {
        let duration = |seconds| to_go(Duration::from_secs(seconds));
        let ends = match self.ttl_s {
            Some(seconds) => format!("ends in {}", duration(seconds)),
            None => "never ends".to_owned(),
        };
        match self.next_renewal_s {
            Some(seconds) => {
                format!(
                    "generator token: {ends}, is renewed in {}",
                    duration(seconds)
                )
            }
            None => format!("generator token: {ends}, is not renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_few_lines() {
        let status: Status = serde_json::from_str(
            r#"{"ready":true,"degraded":true,"reasons":[],"version":"1","concerns":["the role"],
                "generator":{"ttl_s":7200,"period_s":86400,"next_renewal_s":null},
                "volumes":{"live":3,"lost":1,"owed":2,"strangers":0}}"#,
        )
        .unwrap();
        assert_eq!(
            status.lines(),
            [
                "agent 1: ready, but degraded",
                "concern: the role",
                "generator token: ends in 2h, is not renewed",
                "volumes: 3 live, 1 of them with a token that Vault has lost; 2 ended with a revocation owed",
            ]
        );
    }
}
