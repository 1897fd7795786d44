//! `vaulttmpfs renew-token`: renews the generator token once, through the agent where one runs.

use super::{client, complain, say};
use crate::config::{self, Installed, ProcessEnvironment};
use crate::duration::to_go;
use crate::exit::Exit;
use crate::vault::{Direct, VaultError, read_token_file};
use hyper::Method;
use secrecy::SecretString;
use serde::Deserialize;
use std::time::Duration;
use tokio::runtime::Builder;

/// What the agent answers to `POST /v1/renew-token`.
#[derive(Deserialize)]
struct Renewed {
    ttl_s: Option<u64>,
}

/// Runs the command.
#[must_use]
pub fn run() -> Exit {
    let socket = config::locations(&ProcessEnvironment).socket;
    let outcome = match client::is_served(&socket) {
        Ok(true) => by_the_agent(),
        Ok(false) => directly(),
        Err(problem) => Err((Exit::Failed, problem)),
    };
    match outcome {
        Ok(Some(ttl)) => {
            say(&format!(
                "renewed: the generator token has {} to live",
                to_go(ttl)
            ));
            Exit::Done
        }
        Ok(None) => {
            say("renewed: the generator token never ends");
            Exit::Done
        }
        Err((exit, problem)) => {
            complain(&problem);
            exit
        }
    }
}

/// What the token has to live, nothing for ever; or why it was not renewed.
type Outcome = Result<Option<Duration>, (Exit, String)>;

fn by_the_agent() -> Outcome {
    let answer = client::succeed(&Method::POST, "/v1/renew-token", b"")
        .map_err(|problem| (Exit::Failed, problem))?;
    let renewed: Renewed = serde_json::from_slice(&answer)
        .map_err(|_| (Exit::Failed, "the agent's answer is not one".to_owned()))?;
    Ok(renewed.ttl_s.map(Duration::from_secs))
}

/// With the settings that the agent would have.
fn directly() -> Outcome {
    let settings = Installed::read()
        .map_err(|error| error.to_string())
        .and_then(|installed| config::read(&installed).map_err(|errors| errors.to_string()))
        .map_err(|problem| (Exit::Usage, problem))?;
    let path = &settings.generator_token_path;
    let token = read_token_file(path).map_err(|error| {
        let problem = format!(
            "no agent runs, and there is no generator token in {}: {error} (an encrypted one is renewed by the agent alone: start it)",
            path.display()
        );
        (Exit::Failed, problem)
    })?;
    let vault = Direct::new(&settings.vault)
        .map_err(|failure| (Exit::of(failure.reason), failure.message))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (Exit::Failed, error.to_string()))?;
    runtime.block_on(renew(&vault, &token))
}

async fn renew(vault: &Direct, token: &SecretString) -> Outcome {
    if let Err(failure) = vault.health().await {
        return Err((Exit::of(failure.reason), failure.message));
    }
    match vault.renew(token).await {
        Ok(renewal) => Ok(Some(renewal.ttl)),
        Err(error) => Err(refused(vault, &error)),
    }
}

fn refused(vault: &Direct, error: &VaultError) -> (Exit, String) {
    if error.is_denied() {
        let problem = format!(
            "Vault at {} does not renew the generator token ({error}): it has ended, or its policies lack auth/token/renew-self; `vaulttmpfs bootstrap` makes another",
            vault.address()
        );
        return (Exit::Denied, problem);
    }
    let failure = vault.trouble(error);
    (Exit::of(failure.reason), failure.message)
}
