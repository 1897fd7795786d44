//! Vault itself, and the node's clock by Vault's.

use super::network::milliseconds;
use super::report::{Group, Report};
use crate::clock;
use crate::config::Settings;
use crate::duration::to_go;
use crate::vault::{Health, Probe};
use std::time::{Duration, Instant};

pub(super) const TITLE: &str = "Vault";
pub(super) const CLOCK: &str = "clock";

/// So far off a clock may be: Vault's answer counts in whole seconds and takes its time.
const SMALL: Duration = Duration::from_secs(10);

/// So far off it is wrong: certificates and records of a reboot are judged by it.
const LARGE: Duration = Duration::from_secs(300);

/// Is Vault there to be asked?
pub(super) async fn check(report: &mut Report, probe: &Probe) -> bool {
    let begun = Instant::now();
    let answer = probe.health().await;
    let took = begun.elapsed();
    let health = match answer {
        Ok(health) => health,
        Err(error) => {
            report.group(TITLE).failure(probe.explained(&error));
            return false;
        }
    };
    clock(&mut report.group(CLOCK), &health, took);
    let mut group = report.group(TITLE);
    let version = &health.version;
    if !health.initialized {
        group.failure(format!(
            "Vault {version} is not initialised: vault operator init"
        ));
    } else if health.sealed {
        group.failure(format!("Vault {version} is sealed: vault operator unseal"));
    } else if health.standby {
        group.ok(format!(
            "Vault {version} is a standby, which asks the active one or redirects to it; it answered after {}",
            milliseconds(took)
        ));
        return true;
    } else {
        group.ok(format!(
            "Vault {version} is unsealed and answered after {}",
            milliseconds(took)
        ));
        return true;
    }
    false
}

/// Only the clock, of a Vault whose certificates are not valid now: is it the clock that is wrong? No
/// secret is sent to it.
pub(super) async fn clock_alone(report: &mut Report, settings: &Settings) {
    let mut untrusting = settings.clone();
    untrusting.vault.skip_verify = true;
    untrusting.vault.client_certificate = None;
    let begun = Instant::now();
    let answer = match Probe::new(&untrusting) {
        Ok(probe) => probe.health().await.ok(),
        Err(_) => None,
    };
    match answer {
        Some(health) => clock(&mut report.group(CLOCK), &health, begun.elapsed()),
        None => report
            .group(CLOCK)
            .not_checked("Vault, whose clock would be asked, gives no answer"),
    }
}

fn clock(group: &mut Group<'_>, health: &Health, took: Duration) {
    let Some(theirs) = health.server_time_utc else {
        return group.not_checked("Vault does not say its time");
    };
    // The answer was written at some time on the way.
    let ours = clock::wall_ms().saturating_sub(clock::millis(took) / 2);
    let theirs = theirs.saturating_mul(1000);
    let off = Duration::from_millis(ours.abs_diff(theirs));
    let shown = to_go(Duration::from_secs(off.as_secs()));
    let which = if ours > theirs { "ahead of" } else { "behind" };
    let text = format!(
        "this node's clock is {shown} {which} Vault's: see timedatectl, and that of Vault's machine"
    );
    if off > LARGE {
        group.failure(text);
    } else if off > SMALL {
        group.warning(text);
    } else {
        group.ok("this node's clock and Vault's agree");
    }
}
