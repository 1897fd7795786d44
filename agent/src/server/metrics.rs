//! `GET /metrics`: what was counted, and what is read off now, in Prometheus' text format.

use super::answer::Answer;
use super::status::{Agent, Duty};
use crate::failure::{Failure, Reason};
use crate::metrics::{Readings, number, process};
use crate::vault::session::Life;
use crate::volumes::{Condition, Counts, Volumes};
use clap::ValueEnum;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prometheus::{Encoder, TextEncoder};

/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers a scrape.
pub(super) fn scrape(agent: &Agent) -> Result<Answer, Failure> {
    let readings = Readings::default();
    let (ready, degraded) = agent.health();
    readings.gauge(
        "vaulttmpfs_ready",
        "1 when a mount would find a warm session with Vault.",
        flag(ready),
    );
    readings.gauge(
        "vaulttmpfs_degraded",
        "1 when not ready, or with a concern that `vaulttmpfs status` names.",
        flag(degraded),
    );
    let version = env!("CARGO_PKG_VERSION");
    let help = "Always 1; the label says which version runs.";
    readings.gauges("vaulttmpfs_build_info", help, "version", &[(version, 1.0)]);
    if let Duty::Working {
        session,
        volumes,
        tcp,
        ..
    } = &agent.duty
    {
        if let Some(ends) = tcp.as_ref().and_then(|tcp| tcp.certificate_ends()) {
            let help = "When the metrics' certificate from Vault's PKI ends, in seconds since 1970. Missing without one.";
            let name = "vaulttmpfs_metrics_certificate_expiry_timestamp_seconds";
            readings.gauge(name, help, number(ends));
        }
        by_state(&readings, volumes);
        of_volumes(&readings, volumes.counts());
        if let Some(life) = session.life() {
            of_generator(&readings, life);
        }
    }
    process(&readings, agent.metrics.since());
    let mut families = agent.metrics.gather();
    families.extend(readings.gather());
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&families, &mut text)
        .map_err(|error| Failure::new(Reason::Internal, format!("the metrics: {error}")))?;
    let mut answer = Response::new(Full::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    Ok(answer)
}

fn by_state(readings: &Readings, volumes: &Volumes) {
    let conditions = volumes.conditions();
    for condition in Condition::value_variants() {
        let volumes = conditions.get(condition).copied().unwrap_or_default();
        readings.gauges(
            "vaulttmpfs_volumes",
            "Volumes, by the state that `vaulttmpfs volumes` shows.",
            "state",
            &[(&condition.word(), count(volumes))],
        );
    }
}

fn of_volumes(readings: &Readings, counts: Counts) {
    readings.gauge(
        "vaulttmpfs_volumes_unknown",
        "Mounted volumes that are not in the agent's journal.",
        count(counts.strangers),
    );
    readings.gauge(
        "vaulttmpfs_volume_oldest_age_seconds",
        "Age of the oldest live volume; 0 without one.",
        number(counts.oldest_s.unwrap_or(0)),
    );
    readings.gauge(
        "vaulttmpfs_renewals_overdue",
        "Volumes whose token is kept alive and has lived more than half of its TTL since its last renewal.",
        count(counts.overdue),
    );
    readings.gauge(
        "vaulttmpfs_revocations_owed",
        "Ended volumes whose token is not yet revoked.",
        count(counts.owed),
    );
    readings.gauge(
        "vaulttmpfs_revocation_oldest_owed_seconds",
        "Time since the end of the volume whose revocation is owed longest; 0 without one.",
        number(counts.oldest_owed_s.unwrap_or(0)),
    );
    readings.gauge(
        "vaulttmpfs_revocations_held",
        "1 while all revocations are held, by an administrator or after a mass of mounts vanished.",
        flag(counts.held),
    );
}

fn of_generator(readings: &Readings, life: Life) {
    if let Some(ttl) = life.ttl {
        let help = "What the generator token has left to live, as Vault told it last. Missing where it never ends, and before the first session.";
        readings.gauge("vaulttmpfs_generator_token_ttl_seconds", help, number(ttl));
    }
    if let Some(period) = life.period {
        let help = "Period of the generator token, as Vault grants it. Missing where it is not periodic, and before the first session.";
        let name = "vaulttmpfs_generator_token_period_seconds";
        readings.gauge(name, help, number(period));
    }
}

fn count(count: usize) -> f64 {
    number(count as u64)
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}
