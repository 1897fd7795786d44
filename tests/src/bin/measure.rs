//! Measures what a mount costs beside the bare Vault call, and prints a table for README.md.
//! `tests/measure` builds what it needs and starts it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on ends, naming the place"
)]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use vaulttmpfs_tests::{Lab, Pod, text};

/// Rounds that count. In each, every kind of call is made once, so that all see the same machine.
const ROUNDS: usize = 400;

/// Rounds before, for caches and the first growth of everything.
const WARM_UP: usize = 20;

fn main() {
    let lab = Lab::start();
    let bare = BareCall::new(&lab);
    let (mut vault, mut mount, mut unmount, mut init) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let volume = lab.kubelet.volume(&Pod::new("measured"), "vault");
        let (call, mounted) = if round % 2 == 0 {
            let call = bare.time();
            (call, lab.kubelet.mount(&volume, &lab.options()))
        } else {
            let mounted = lab.kubelet.mount(&volume, &lab.options());
            (bare.time(), mounted)
        };
        mounted.assert_success();
        let unmounted = lab.kubelet.unmount(&volume);
        unmounted.assert_success();
        if round >= WARM_UP {
            vault.push(call);
            mount.push(mounted.took);
            unmount.push(unmounted.took);
            init.push(lab.kubelet.init().took);
        }
    }
    print(&lab, [vault, mount, unmount, init]);
}

/// The call to Vault that a mount comes down to, on one connection that is kept.
struct BareCall {
    http: ureq::Agent,
    url: String,
    token: String,
}

impl BareCall {
    fn new(lab: &Lab) -> Self {
        let authority = lab.vault.authority().certificate();
        let root = Certificate::from_pem(authority.as_bytes()).expect("a certificate");
        let provider = rustls::crypto::ring::default_provider();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(provider))
            .root_certs(RootCerts::new_with_certs(&[root]))
            .build();
        let config = ureq::Agent::config_builder().tls_config(tls).proxy(None);
        Self {
            http: config.build().into(),
            url: format!("{}/v1/auth/token/create/applications", lab.vault.address()),
            token: lab.vault.root().make_generator_token(),
        }
    }

    fn time(&self) -> Duration {
        let begun = Instant::now();
        let mut answer = self
            .http
            .post(&self.url)
            .header("X-Vault-Token", &self.token)
            .header("X-Vault-Wrap-TTL", "300")
            .send(r#"{"policies":["app"]}"#)
            .expect("a wrapped token");
        let body = answer.body_mut().read_to_string().expect("Vault's answer");
        let took = begun.elapsed();
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert!(!text(&body["wrap_info"]["token"]).is_empty());
        took
    }
}

fn print(lab: &Lab, times: [Vec<Duration>; 4]) {
    let driver = lab.node.path("plugins/cloudwatt~vaulttmpfs/vaulttmpfs");
    let bytes = fs::metadata(driver).expect("the driver").len();
    println!("Driver: {bytes} bytes. {}. {ROUNDS} rounds.", machine());
    println!();
    println!("| what | median | 90 % below |");
    println!("|---|---:|---:|");
    let names = [
        "bare Vault call",
        "mount, exec to exit",
        "unmount, exec to exit",
        "init, exec to exit",
    ];
    for (name, mut times) in names.into_iter().zip(times) {
        times.sort_unstable();
        let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1000.0;
        println!("| {name} | {:.2} ms | {:.2} ms |", at(50), at(90));
    }
}

/// The machine, so that numbers can be judged.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model)
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}
