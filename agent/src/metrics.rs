//! What the agent counts and measures, for Prometheus. A leaf: whoever does the work counts it here.
//!
//! What is only read off, as how many volumes there are, is made at each scrape: see
//! `server::metrics`. Nothing here holds a token, an accessor, or a pod's name.

mod lately;
mod process;

pub use lately::{Failures, LATELY, LastCalls, Newest};
pub use process::process;

use crate::clock;
use crate::failure::{Failure, Reason};
use lately::Lately;
use prometheus::core::Collector;
use prometheus::proto::{LabelPair, Metric, MetricFamily};
use prometheus::{
    Counter, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};
use std::time::Duration;

/// Upper bounds in seconds: a mount beside a warm Vault takes some milliseconds, and is given up
/// after 100 s.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 100.0,
];

/// So many versions of drivers are told apart; a peer could invent more.
const MOST_VERSIONS: usize = 8;

/// The reason of a failure that was a renewal's.
pub const RENEWAL: &str = "renewal";

/// The reason of a failure that was a revocation's.
pub const REVOCATION: &str = "revocation";

/// The reason of a failure that was the renewal of the generator token.
pub const GENERATOR_RENEWAL: &str = "generator-token-renewal";

/// All that is counted as it happens.
pub struct Metrics {
    registry: Registry,
    lately: Lately,
    /// When counting began: seconds since 1970.
    since: f64,
    mounts: IntCounter,
    mount_failures: IntCounterVec,
    mount_seconds: HistogramVec,
    unmounts: IntCounter,
    driver_calls: IntCounterVec,
    vault_requests: IntCounterVec,
    vault_seconds: HistogramVec,
    renewals: IntCounterVec,
    revocations: IntCounterVec,
    never_unwrapped: IntCounter,
    generator_renewals: IntCounterVec,
    certificate_renewals: IntCounterVec,
}

/// Where a mount spends its time in the agent.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// Before the token was asked for: the request's reading and checks, the wait for the session and
    /// for a place among the calls to Vault.
    pub queue: Duration,
    /// Vault's work on the token, with the network and retries.
    pub vault: Duration,
    /// After it: the journal and the volume's files.
    pub reply: Duration,
}

/// How a piece of background work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It is tried again.
    Later,
    /// Vault does not know the token any more.
    Lost,
    /// It will never work.
    Refused,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Done, Self::Later, Self::Lost, Self::Refused];

    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Later => "later",
            Self::Lost => "lost",
            Self::Refused => "refused",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let made = Self {
            registry: Registry::new(),
            lately: Lately::default(),
            since: number(clock::wall_ms()) / 1000.0,
            mounts: counter("vaulttmpfs_mounts_total", "Mounts asked for by the driver."),
            mount_failures: counters(
                "vaulttmpfs_mount_failures_total",
                "Mounts that failed, by reason.",
                &["reason"],
            ),
            mount_seconds: histograms(
                "vaulttmpfs_mount_duration_seconds",
                "Time of a successful mount in the agent, by stage: queue (until the token is asked for), vault, reply (journal and files).",
                &["stage"],
            ),
            unmounts: counter(
                "vaulttmpfs_unmounts_total",
                "Unmounts reported by the driver.",
            ),
            driver_calls: counters(
                "vaulttmpfs_driver_requests_total",
                "Mounts asked for, by the version of the driver that asked.",
                &["version"],
            ),
            vault_requests: counters(
                "vaulttmpfs_vault_requests_total",
                "Calls to Vault, by path template and by HTTP status or what came instead.",
                &["path", "status"],
            ),
            vault_seconds: histograms(
                "vaulttmpfs_vault_request_duration_seconds",
                "Time of a call to Vault, by path template.",
                &["path"],
            ),
            renewals: counters(
                "vaulttmpfs_renewals_total",
                "Tries to renew a volume's token, by outcome.",
                &["outcome"],
            ),
            revocations: counters(
                "vaulttmpfs_revocations_total",
                "Tries to revoke an ended volume's token, by outcome.",
                &["outcome"],
            ),
            never_unwrapped: counter(
                "vaulttmpfs_never_unwrapped_total",
                "Tokens that nobody had unwrapped shortly before their wrapping ended.",
            ),
            generator_renewals: counters(
                "vaulttmpfs_generator_token_renewals_total",
                "Tries to renew the generator token, by outcome.",
                &["outcome"],
            ),
            certificate_renewals: counters(
                "vaulttmpfs_metrics_certificate_renewals_total",
                "Tries to have the metrics' certificate issued by Vault's PKI, by outcome.",
                &["outcome"],
            ),
        };
        // Present from the start, so that the first failure is an increase.
        for reason in Reason::OF_MOUNTS {
            let _ = made.mount_failures.with_label_values(&[reason.word()]);
        }
        for outcome in Outcome::ALL {
            for by_outcome in [&made.renewals, &made.revocations, &made.generator_renewals] {
                let _ = by_outcome.with_label_values(&[outcome.word()]);
            }
        }
        let all: [Box<dyn Collector>; 12] = [
            Box::new(made.mounts.clone()),
            Box::new(made.mount_failures.clone()),
            Box::new(made.mount_seconds.clone()),
            Box::new(made.unmounts.clone()),
            Box::new(made.driver_calls.clone()),
            Box::new(made.vault_requests.clone()),
            Box::new(made.vault_seconds.clone()),
            Box::new(made.renewals.clone()),
            Box::new(made.revocations.clone()),
            Box::new(made.never_unwrapped.clone()),
            Box::new(made.generator_renewals.clone()),
            Box::new(made.certificate_renewals.clone()),
        ];
        for one in all {
            add(&made.registry, one);
        }
        made
    }
}

impl Metrics {
    /// When counting began, with the process: seconds since 1970.
    #[must_use]
    pub fn since(&self) -> f64 {
        self.since
    }

    /// What was counted so far, to be encoded with what is read off.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The last calls that Vault answered.
    #[must_use]
    pub fn last_calls(&self) -> Option<LastCalls> {
        self.lately.last_calls()
    }

    /// What failed within [`LATELY`]: mounts by their reason's word, [`RENEWAL`], [`REVOCATION`] and
    /// [`GENERATOR_RENEWAL`].
    #[must_use]
    pub fn failures_lately(&self) -> Failures {
        self.lately.failures()
    }

    /// A mount was asked for, by a driver of this version where it said so.
    pub fn mount_asked(&self, driver: Option<&str>) {
        self.mounts.inc();
        let version = driver
            .filter(|version| is_version(version))
            .unwrap_or("unknown");
        if self.is_known_or_has_room(version) {
            self.driver_calls.with_label_values(&[version]).inc();
        } else {
            self.driver_calls.with_label_values(&["other"]).inc();
        }
    }

    fn is_known_or_has_room(&self, version: &str) -> bool {
        let families = self.driver_calls.collect();
        let known: Vec<_> = families
            .iter()
            .flat_map(MetricFamily::get_metric)
            .flat_map(Metric::get_label)
            .map(LabelPair::value)
            .collect();
        known.len() < MOST_VERSIONS || known.contains(&version)
    }

    /// A mount went well.
    pub fn mounted(&self, stages: Stages) {
        for (stage, took) in [
            ("queue", stages.queue),
            ("vault", stages.vault),
            ("reply", stages.reply),
        ] {
            self.mount_seconds
                .with_label_values(&[stage])
                .observe(took.as_secs_f64());
        }
    }

    /// A mount failed.
    pub fn mount_failed(&self, failure: &Failure) {
        let reason = failure.reason.word();
        self.lately.failed(reason, Some(&failure.message));
        self.mount_failures.with_label_values(&[reason]).inc();
    }

    /// An unmount was reported.
    pub fn unmounted(&self) {
        self.unmounts.inc();
    }

    /// A call to Vault is over. `path` and `status` are few and constant.
    pub fn called(&self, path: &str, status: &str, took: Duration) {
        if status.starts_with(|first: char| first.is_ascii_digit()) {
            self.lately.answered(took);
        }
        self.vault_requests.with_label_values(&[path, status]).inc();
        self.vault_seconds
            .with_label_values(&[path])
            .observe(took.as_secs_f64());
    }

    /// A volume's token was renewed, or not, and why not as far as it was said.
    pub fn renewed(&self, outcome: Outcome, why: Option<&str>) {
        self.tried(&self.renewals, RENEWAL, outcome, why);
    }

    /// An ended volume's token was revoked, or not, and why not as far as it was said.
    pub fn revoked(&self, outcome: Outcome, why: Option<&str>) {
        self.tried(&self.revocations, REVOCATION, outcome, why);
    }

    /// The generator token was renewed, or not, and why not.
    pub fn generator_renewed(&self, outcome: Outcome, why: Option<&str>) {
        self.tried(&self.generator_renewals, GENERATOR_RENEWAL, outcome, why);
    }

    fn tried(
        &self,
        counters: &IntCounterVec,
        what: &'static str,
        outcome: Outcome,
        why: Option<&str>,
    ) {
        counters.with_label_values(&[outcome.word()]).inc();
        if outcome != Outcome::Done {
            self.lately.failed(what, why);
        }
    }

    /// The metrics' certificate was renewed, or not.
    pub fn certificate_renewed(&self, outcome: Outcome) {
        self.certificate_renewals
            .with_label_values(&[outcome.word()])
            .inc();
    }

    /// Nobody has unwrapped a token, and its wrapping ends.
    pub fn never_unwrapped(&self) {
        self.never_unwrapped.inc();
    }
}

/// Readings of one scrape.
pub struct Readings(Registry);

impl Default for Readings {
    fn default() -> Self {
        Self(Registry::new())
    }
}

impl Readings {
    /// Adds a gauge.
    pub fn gauge(&self, name: &str, help: &str, value: f64) {
        self.add_gauge(Opts::new(name, help), value);
    }

    /// Adds a gauge with one label: a reading for each of its values.
    pub fn gauges(&self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        for (of, value) in values {
            self.add_gauge(Opts::new(name, help).const_label(label, *of), *value);
        }
    }

    /// Adds a counter that someone else counts.
    pub fn counter(&self, name: &str, help: &str, value: f64) {
        let counter = sound(Counter::with_opts(Opts::new(name, help)));
        counter.inc_by(value.max(0.0));
        add(&self.0, Box::new(counter));
    }

    fn add_gauge(&self, opts: Opts, value: f64) {
        let gauge = sound(Gauge::with_opts(opts));
        gauge.set(value);
        add(&self.0, Box::new(gauge));
    }

    /// All readings.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }
}

/// A number as Prometheus has all numbers.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows no other numbers; below 2^53 nothing is lost"
)]
#[must_use]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// As cargo writes versions, and nothing that a hostile caller could fill a label with.
fn is_version(text: &str) -> bool {
    text.len() <= 24
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || ".-+".contains(one))
}

fn counter(name: &str, help: &str) -> IntCounter {
    sound(IntCounter::with_opts(Opts::new(name, help)))
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    sound(IntCounterVec::new(Opts::new(name, help), labels))
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::from(Opts::new(name, help)).buckets(BUCKETS.to_vec());
    sound(HistogramVec::new(opts, labels))
}

fn add(registry: &Registry, collector: Box<dyn Collector>) {
    sound(registry.register(collector));
}

/// Only a bad or double name fails, and all are constants: a test scrapes them all.
#[expect(
    clippy::expect_used,
    reason = "the names are constants of this program"
)]
fn sound<T>(made: prometheus::Result<T>) -> T {
    made.expect("metric names that are sound and single")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_driver_cannot_fill_the_labels() {
        let metrics = Metrics::default();
        for version in ["", "a", "1.0\"}", "1 0", &"1".repeat(25)] {
            metrics.mount_asked(Some(version));
        }
        for number in 0..50 {
            metrics.mount_asked(Some(&format!("1.0.{number}")));
        }
        metrics.mount_asked(Some("1.0.3"));
        metrics.mount_asked(None);
        let families = metrics.driver_calls.collect();
        let of = |version: &str| {
            families[0].get_metric().iter().find_map(|metric| {
                let is_it = metric.get_label()[0].value() == version;
                is_it.then(|| metric.get_counter().get_value())
            })
        };
        assert_eq!(families[0].get_metric().len(), MOST_VERSIONS + 1);
        assert_eq!(of("unknown"), Some(6.0));
        assert_eq!(of("1.0.3"), Some(2.0));
        assert_eq!(of("other"), Some(43.0));
    }
}
