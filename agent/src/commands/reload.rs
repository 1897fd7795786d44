//! `vaulttmpfs reload`: has the running agent take the generator token that is in its file now, and
//! the settings of this process where that is what they are for.

use super::{client, complain, say};
use crate::config::{self, Offer, ProcessEnvironment};
use crate::exit::Exit;
use crate::vault::read_token_file;
use hyper::Method;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::ErrorKind;
use zeroize::Zeroizing;

/// What is asked of `GET /v1/status`.
#[derive(Deserialize)]
struct Status {
    /// The file that the agent reads itself.
    token_file: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    restarting: bool,
}

/// Runs the command. The settings are this process's environment where a unit's `ExecReload=` says
/// so: a shell's is never taken for settings.
#[must_use]
pub fn run(settings_from_environment: bool) -> Exit {
    match client::request(&Method::GET, "/v1/status", b"") {
        Ok((_, status)) => reload(&status, settings_from_environment),
        Err(problem) => {
            complain(&problem);
            Exit::NotRunning
        }
    }
}

fn reload(status: &[u8], settings_from_environment: bool) -> Exit {
    let mut body = json!({});
    if settings_from_environment {
        body["settings"] = json!(Offer::own());
    }
    // Under systemd only root can read the file; elsewhere the agent knows better which it is.
    let reads_itself =
        serde_json::from_slice::<Status>(status).is_ok_and(|status| status.token_file.is_some());
    let path = config::generator_token_path(&ProcessEnvironment);
    let mut missing = None;
    if !reads_itself {
        match read_token_file(&path) {
            Ok(token) => body["token"] = Value::from(token.expose_secret()),
            Err(error) => missing = Some(error),
        }
    }
    let body = Zeroizing::new(body.to_string());
    let answer = match client::succeed(&Method::POST, "/v1/reload", body.as_bytes()) {
        Ok(answer) => serde_json::from_slice(&answer).unwrap_or_default(),
        Err(problem) => {
            complain(&problem);
            return Exit::Failed;
        }
    };
    match (answer, missing) {
        (Answer { restarting: true }, _) => {
            say("the settings are good: the agent finishes what it has accepted and starts anew");
            Exit::Done
        }
        (_, None) => {
            say("the agent uses the generator token that is in its file");
            Exit::Done
        }
        (_, Some(error)) => {
            complain(&format!(
                "no token in {}: {error}; the token in use stays (an encrypted credential is read when the service is restarted)",
                path.display()
            ));
            // Where the token comes another way, there need not be a file.
            if settings_from_environment && error.kind() == ErrorKind::NotFound {
                Exit::Done
            } else {
                Exit::Failed
            }
        }
    }
}
