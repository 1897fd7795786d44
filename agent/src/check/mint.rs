//! A trial: a token made as for a pod, and ended at once.
//!
//! It is made with an explicit max TTL of a minute, so that one which cannot be ended, because the
//! answer was torn, Vault took too long or this process was killed, ends by itself.

use super::Reached;
use super::report::{Group, Report};
use crate::config::Settings;
use crate::duration::to_go;
use crate::options::{Delivery, Pod};
use crate::vault::{CreateToken, Generator, Minted, Probe, Role, VaultError};
use secrecy::SecretString;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout_at;

pub(super) const TITLE: &str = "trial token";

/// So long it lives at most.
const LIFE: Duration = Duration::from_secs(60);

/// A trial is not begun with less time than this: Vault would be blamed for what took it.
const LEAST: Duration = Duration::from_secs(3);

/// What the trial is called in Vault's audit log.
const NAME: &str = "vaulttmpfs-check";

/// Makes a token of the default role and ends it, or gives up at this time.
pub(super) async fn check(
    report: &mut Report,
    settings: &Settings,
    with: &Reached,
    until: tokio::time::Instant,
) {
    let mut group = report.group(TITLE);
    if until.duration_since(tokio::time::Instant::now()) < LEAST {
        return group.not_checked("what was looked at before has taken all the time that there is");
    }
    let trial = make_and_end(&mut group, settings, with);
    if timeout_at(until, trial).await.is_err() {
        group.failure(format!(
            "Vault took too long; should there be a token, it ends by itself within {}",
            to_go(LIFE)
        ));
    }
}

/// An interruption waits for that.
async fn make_and_end(group: &mut Group<'_>, settings: &Settings, with: &Reached) {
    let probe = &with.probe;
    let policies = policies(&with.generator, with.role.as_ref());
    let pod = Pod {
        name: NAME.to_owned(),
        uid: String::new(),
        namespace: String::new(),
        service_account: String::new(),
    };
    let create = CreateToken {
        role: &settings.pod_defaults.role,
        policies: &policies,
        delivery: Delivery::Wrapped {
            ttl: settings.pod_defaults.wrap_ttl,
        },
        ttl: None,
        max_ttl: Some(LIFE),
        pod: &pod,
        node: &settings.node,
        cluster: settings.cluster.as_deref(),
    };
    // From here on they end nothing: they are only waited for.
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let held = kinds.map(signal);
    if held.iter().any(Result::is_err) {
        return group.not_checked("signals cannot be held back, so none is made");
    }
    let begun = Instant::now();
    match probe.create(&create).await {
        Err(error) => {
            let surely_none = error.create_may_be_repeated() || error.is_denied();
            let afterwards = if surely_none {
                String::new()
            } else {
                format!(
                    "; should there be one all the same, it ends by itself within {}",
                    to_go(LIFE)
                )
            };
            group.failure(format!(
                "no token could be made with the role `{}`: {}{afterwards}",
                settings.pod_defaults.role,
                probe.explained(&error)
            ));
        }
        Ok(minted) => {
            let made = begun.elapsed();
            end(group, probe, minted, made).await;
        }
    }
}

/// Those of the role that a pod gets that names none; else only what everybody has.
fn policies(generator: &Generator, role: Option<&Role>) -> Vec<String> {
    let allowed = role.map(Role::allowed_policies).unwrap_or_default();
    let given = |policy: &&String| !generator.is_own_policy(policy) && *policy != "root";
    let policies: Vec<String> = allowed.iter().filter(given).cloned().collect();
    if policies.is_empty() {
        vec!["default".to_owned()]
    } else {
        policies
    }
}

/// The wrapping token first, then the one inside.
async fn end(group: &mut Group<'_>, probe: &Probe, minted: Minted, took: Duration) {
    let (accessors, wrapped): (Vec<SecretString>, bool) = match minted {
        Minted::Wrapped {
            accessor,
            wrapped_accessor,
            ..
        } => {
            let inside = wrapped_accessor.is_some();
            if !inside {
                group.warning("the trial token has no accessor: it cannot be kept alive and ended");
            }
            (
                std::iter::once(accessor).chain(wrapped_accessor).collect(),
                true,
            )
        }
        Minted::Unwrapped { accessor, .. } => (accessor.into_iter().collect(), false),
    };
    if !wrapped {
        group.failure("Vault gave a plain token where a wrapped one was asked for: does something in front of it take the header X-Vault-Wrap-TTL away?");
    }
    let mut failed = None;
    for accessor in &accessors {
        // Once more: the first try may have met a connection that had just ended.
        let ended = match probe.revoke(accessor).await {
            Err(VaultError::NoConnection(_) | VaultError::NoAnswer(_)) => {
                probe.revoke(accessor).await
            }
            ended => ended,
        };
        failed = ended.err().or(failed);
    }
    match failed {
        None => group.ok(format!(
            "a token was made after {}, wrapped, and ended",
            super::network::milliseconds(took)
        )),
        Some(error) => group.failure(format!(
            "the trial token could not be ended: {}; it ends by itself within {}",
            probe.explained(&error),
            to_go(LIFE)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Screen;
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::net::TcpListener;

    #[tokio::test(start_paused = true)]
    async fn a_trial_is_given_up_when_its_time_is_over_and_not_begun_with_too_little() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", silent.local_addr().unwrap());
        let variables = HashMap::from([("VAULT_ADDR", OsString::from(address))]);
        let settings = crate::config::read(&variables).unwrap();
        let reached = Reached {
            probe: Probe::new(&settings).unwrap(),
            generator: Generator::default(),
            role: None,
        };
        for (left, words) in [
            (
                LEAST * 7 / 6,
                &["took too long", "ends by itself within 1m"][..],
            ),
            (LEAST / 2, &["has taken all the time"]),
        ] {
            let mut report = Report::default();
            let end = tokio::time::Instant::now() + left;
            check(&mut report, &settings, &reached, end).await;
            let text = report.text(&Screen::default());
            for words in words {
                assert!(text.contains(words), "{text}");
            }
            assert_eq!(report.findings().len(), 1, "{text}");
        }
    }
}
