//! A real Prometheus, and promtool.

use crate::child::RunAs;
use crate::tcp::free_port;
use crate::{Child, Identity, Said, binaries, eventually, evidence};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What is to be scraped.
pub struct Target<'a> {
    /// The job's name.
    pub job: &'a str,
    /// Where.
    pub address: SocketAddr,
    /// Whom to trust, as PEM; in the clear where there is none.
    pub ca: Option<&'a str>,
    /// The certificate to show.
    pub client: Option<&'a Identity>,
}

/// Each target is scraped by so many probes, one after the other, each with the patience of the interval:
/// about once a second, and no scrape fails because the machine is busy.
const PROBES: usize = 12;

/// A running Prometheus.
pub struct Prometheus {
    http: ureq::Agent,
    address: String,
    directory: TempDir,
    _process: Child,
}

impl Prometheus {
    /// Starts one with these targets and the alert rules of that file. It ends with the calling thread.
    #[must_use]
    pub fn start(targets: &[Target<'_>], rules: &Path) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("vaulttmpfs-prometheus-")
            .tempdir()
            .expect("a directory for Prometheus");
        let configuration = configuration(directory.path(), targets, rules);
        let path = directory.path().join("prometheus.yml");
        fs::write(&path, configuration).expect("Prometheus' configuration");
        let address = format!("127.0.0.1:{}", free_port());
        let log = File::create(directory.path().join("log")).expect("Prometheus' log");
        let program = binaries::prometheus();
        let mut command = Child::command(program.as_os_str(), RunAs::Root);
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}/data",
                directory.path().display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("Prometheus' log"))
            .stderr(log);
        let mut process = Child::spawn(&mut command, "Prometheus");
        let http = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        eventually("Prometheus to be ready", || {
            let log = || fs::read_to_string(directory.path().join("log"));
            assert!(process.ended().is_none(), "Prometheus ended: {:?}", log());
            let ready = format!("http://{address}/-/ready");
            ureq::Agent::get(&http, ready).call().ok()
        });
        Self {
            http,
            address,
            directory,
            _process: process,
        }
    }

    /// The result of a query.
    #[must_use]
    pub fn query(&self, query: &str) -> Value {
        let url = format!("http://{}/api/v1/query", self.address);
        let answer = self.http.get(url).query("query", query).call();
        let mut answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
        let text = answer.body_mut().read_to_string().expect("an answer");
        let mut answer: Value = serde_json::from_str(&text).expect("JSON");
        answer["data"]["result"].take()
    }

    /// All values within the last hour, of all probes.
    #[must_use]
    pub fn values(&self, series: &str) -> Vec<f64> {
        let result = self.query(&format!("{series}[1h]"));
        let series = result.as_array().expect("series").iter();
        let samples = series.flat_map(|one| one["values"].as_array().expect("values"));
        let value = |sample: &Value| sample[1].as_str()?.parse().ok();
        samples.filter_map(value).collect()
    }

    /// Why the last scrape of a job failed; empty where it did not.
    #[must_use]
    pub fn last_error(&self, job: &str) -> String {
        let url = format!("http://{}/api/v1/targets", self.address);
        let mut answer = self.http.get(url).call().expect("the targets");
        let text = answer.body_mut().read_to_string().expect("an answer");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let targets = answer["data"]["activeTargets"].as_array().expect("targets");
        let target = targets.iter().find(|target| target["labels"]["job"] == job);
        target.expect("a target")["lastError"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("Prometheus' log")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        evidence::keep_output("Prometheus' log", &self.log());
    }
}

fn configuration(directory: &Path, targets: &[Target<'_>], rules: &Path) -> String {
    let mut text = format!(
        "global:\n  scrape_interval: 10s\n  scrape_timeout: 10s\n  evaluation_interval: 1s\nrule_files: ['{}']\nscrape_configs:\n",
        rules.display()
    );
    for target in targets {
        let Target { job, address, .. } = target;
        let put = |name: &str, content: &str| {
            let path = directory.join(format!("{job}.{name}"));
            fs::write(&path, content).expect("a PEM file");
            path.display().to_string()
        };
        let scheme = if target.ca.is_some() { "https" } else { "http" };
        let _ = write!(
            text,
            "  - job_name: {job}\n    scheme: {scheme}\n    static_configs:\n"
        );
        for probe in 0..PROBES {
            let _ = writeln!(
                text,
                "      - {{targets: ['{address}'], labels: {{probe: '{probe}'}}}}"
            );
        }
        if let Some(ca) = target.ca {
            let _ = write!(text, "    tls_config:\n      ca_file: {}\n", put("ca", ca));
        }
        if let Some(client) = target.client {
            let certificate = put("crt", &client.certificate);
            let key = put("key", &client.key);
            let _ = write!(
                text,
                "      cert_file: {certificate}\n      key_file: {key}\n"
            );
        }
    }
    text
}

/// Runs promtool to its end, with this at its standard input.
#[must_use]
pub fn promtool(arguments: &[&str], input: &str) -> Said {
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, input.as_bytes()).expect("its content");
    std::io::Seek::rewind(&mut file).expect("its begin");
    let program = binaries::prometheus().with_file_name("promtool");
    Said::by(Command::new(program).args(arguments).stdin(file))
}
