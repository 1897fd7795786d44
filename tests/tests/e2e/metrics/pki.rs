//! Metrics over TLS with a certificate of Vault's PKI, scraped by a real Prometheus.

use super::{family_names, promtool_is_content, rules, scrape};
use crate::lifecycle::clock::{Clock, WALL};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use vaulttmpfs_tests::{
    Connection, Identity, Lab, Prometheus, Target, eventually, eventually_within, free_port,
    source_tree, text,
};

/// A lab whose agent has its certificate from the PKI `nodes`, by a role with these settings, and lets in
/// clients of the PKI `team/clients`; with both CAs.
struct Pki {
    lab: Lab,
    address: SocketAddr,
    ca: String,
}

/// What the generator token needs for it.
const RULES: &str = r#"path "nodes/issue/node" { capabilities = ["update"] }"#;

impl Pki {
    fn start(role: &serde_json::Value, rules: &str) -> Self {
        let mut pki = Self::without_agent(role, rules);
        pki.start_agent();
        pki
    }

    fn start_agent(&mut self) {
        self.lab.agent.start();
        self.lab.agent.wait_until_ready();
    }

    fn without_agent(role: &serde_json::Value, rules: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut lab = Lab::builder().without_agent().start();
        let root = lab.vault.root();
        let ca = root.make_pki("nodes", role);
        root.make_pki("team/clients", &json!({"ttl": "1h", "server_flag": false}));
        root.allow_generator(rules);
        let address_text = address.to_string();
        for (name, value) in [
            ("ADDR", address_text.as_str()),
            ("PKI_BACKEND", "nodes"),
            ("PKI_ROLE", "node"),
            ("NAMES", "node-1.example.com, 127.0.0.1"),
            ("CLIENT_CA_BACKENDS", "team/clients"),
        ] {
            let name = format!("VAULTTMPFS_METRICS_{name}");
            lab.agent.settings.insert(name, value.to_owned());
        }
        // No key may be in the log, however much is said there.
        let all = ("VAULTTMPFS_LOG_LEVEL".to_owned(), "debug".to_owned());
        lab.agent.settings.extend([all]);
        Self { lab, address, ca }
    }

    fn connect(&self) -> Option<Connection> {
        let client = self.lab.vault.root().issue("team/clients", "prometheus");
        Connection::tls(self.address, &self.ca, Some(&client)).ok()
    }

    fn concerns(&self) -> String {
        self.lab.agent.get("/v1/status")["concerns"].to_string()
    }

    fn wait_for_certificate(&self) {
        let expiry = "vaulttmpfs_metrics_certificate_expiry_timestamp_seconds";
        eventually_within(Duration::from_secs(60), "the certificate", || {
            scrape(&self.lab).contains_key(expiry).then_some(())
        });
    }

    /// Every private key that Vault ever gave to anyone.
    fn keys(&self) -> Vec<String> {
        let log = self.lab.vault.audit_log();
        let keys = log.iter().filter_map(|entry| {
            let key = entry["response"]["data"]["private_key"].as_str()?;
            // A line of it: JSON writes line ends in another way.
            key.lines().nth(1).map(str::to_owned)
        });
        keys.collect()
    }
}

#[test]
fn prometheus_scrapes_with_a_certificate_of_vaults_and_misses_no_scrape_while_the_agents_is_renewed()
 {
    // Renewed after some 25 seconds.
    let pki = Pki::start(&json!({"ttl": "40s", "max_ttl": "40s"}), RULES);
    let client = pki.lab.vault.root().issue("team/clients", "prometheus");
    let stranger = pki.lab.vault.root().issue("nodes", "stranger");
    let mut first = eventually("the first certificate", || pki.connect());
    let target = |job, client| Target {
        job,
        address: pki.address,
        ca: Some(&pki.ca),
        client,
    };
    let targets = [
        target("known", Some(&client)),
        target("nobody", None),
        target("stranger", Some(&stranger)),
    ];
    let prometheus = Prometheus::start(&targets, &rules());
    let renewals = r#"vaulttmpfs_metrics_certificate_renewals_total{outcome="done"}"#;
    eventually_within(Duration::from_secs(180), "two renewals", || {
        let counts = prometheus.values(renewals);
        let first = counts.iter().copied().reduce(f64::min)?;
        counts
            .iter()
            .any(|count| *count >= first + 2.0)
            .then_some(())
    });
    let up = prometheus.values(r#"up{job="known"}"#);
    assert!(up.len() > 20, "{up:?}");
    assert!(
        !up.contains(&0.0),
        "{up:?}: {}",
        prometheus.last_error("known")
    );
    for job in ["nobody", "stranger"] {
        let up = prometheus.values(&format!(r#"up{{job="{job}"}}"#));
        assert!(up.len() > 20, "{job}: {up:?}");
        assert!(!up.contains(&1.0), "{job}: {up:?}");
        eventually(&format!("{job} to be refused by its certificate"), || {
            let error = prometheus.last_error(job);
            error.contains("certificate").then_some(())
        });
    }
    let mut second = pki.connect().expect("a connection");
    assert_ne!(first.certificate, second.certificate);
    let goes_on = first.get("/healthz").is_ok_and(|answer| !answer.closes);
    assert!(
        !goes_on,
        "what was made with an old one ends, with an answer at the latest"
    );
    // The rules are in use, and none has a reason. One that is pending may be a slow moment's.
    let alerts = prometheus.query(r#"ALERTS{alertstate="firing"}"#);
    assert_eq!(alerts, json!([]), "{alerts}");

    for query in dashboards_queries() {
        // One that cannot be read fails the test; what has a label of a mount has no sample here.
        let _ = prometheus.query(&query);
    }

    let scrape = second.get("/metrics").unwrap().body;
    promtool_is_content(&scrape);
    pki.lab
        .vault
        .secrets()
        .assert_absent("the metrics", &scrape);
    let keys = pki.keys();
    assert!(keys.len() >= 3, "{}", keys.len());
    for key in keys {
        assert!(!pki.lab.agent.log().contains(&key), "a key is in the log");
        assert!(
            !pki.lab.node.journal().contains(&key),
            "a key is on the disk"
        );
    }
}

/// What the dashboard asks Prometheus for.
fn dashboards_queries() -> Vec<String> {
    let path = source_tree().join("packaging/prometheus/dashboard.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries = targets.map(|target| vaulttmpfs_tests::text(&target["expr"]));
    let queries: Vec<String> = queries
        .map(|query| query.replace("$instance", ".*"))
        .collect();
    assert!(queries.len() > 10, "{queries:?}");
    queries
}

#[test]
fn every_name_in_rules_dashboard_and_documentation_is_one_that_the_agent_exposes() {
    let pki = Pki::start(&json!({"ttl": "1h"}), RULES);
    let _ = pki.lab.mounted(&pki.lab.options());
    let mut connection = eventually("the certificate", || pki.connect());
    let exposed = family_names(&connection.get("/metrics").unwrap().body);
    let folder = source_tree().join("packaging/prometheus");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    for name in ["alerts.yml", "alerts.test.yml", "dashboard.json"] {
        let used = super::names_in(&read(name), &exposed);
        assert!(used.len() > 8, "{name}: {used:?}");
        let unknown: Vec<_> = used.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
    let readme = read("README.md");
    let (_, table) = readme.split_once("<!-- metrics: begin -->").unwrap();
    let (table, _) = table.split_once("<!-- metrics: end -->").unwrap();
    assert_eq!(super::names_in(table, &exposed), exposed);
}

/// How often the kernel let a process' first thread run, which does all but the journal's writing.
fn wakes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let lines = status.lines();
    let counts = lines.filter_map(|line| line.split_once("_ctxt_switches:"));
    counts
        .map(|(_, count)| count.trim().parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn an_agent_that_nobody_scrapes_is_not_woken() {
    let pki = Pki::start(&json!({"ttl": "1h"}), RULES);
    let mut connection = eventually("the certificate", || pki.connect());
    assert_eq!(connection.get("/metrics").unwrap().status, 200);
    drop(connection);
    let process = pki.lab.agent.id();
    let seconds = 10;
    // What a start leaves to be done is over at some time; then less than a timer of one second would do.
    eventually_within(Duration::from_secs(90), "few wakes in ten seconds", || {
        let before = wakes(process);
        std::thread::sleep(Duration::from_secs(seconds));
        (wakes(process) - before < seconds).then_some(())
    });
}

#[test]
fn a_right_that_is_missing_is_named_and_waited_for() {
    let pki = Pki::start(&json!({"ttl": "1h"}), "");
    let missing = r#"path \"nodes/issue/node\" { capabilities = [\"update\"] }"#;
    let said = missing.replace('\\', "\\\\\\");
    eventually("the missing right to be named", || {
        let concerns = pki.concerns();
        (concerns.contains(missing) || concerns.contains(&said)).then_some(())
    });
    // The agent listens, and has nothing to show yet.
    assert!(pki.connect().is_none());
    let _ = pki.lab.mounted(&pki.lab.options());
    pki.lab.vault.root().allow_generator(RULES);
    let mut connection =
        eventually_within(Duration::from_secs(60), "a certificate", || pki.connect());
    assert_eq!(connection.get("/readyz").unwrap().status, 200);
    eventually("all to be well", || (pki.concerns() == "[]").then_some(()));
}

#[test]
fn a_pki_of_the_clients_that_is_not_there_is_named_and_waited_for() {
    let mut pki = Pki::without_agent(&json!({"ttl": "1h"}), RULES);
    let backends = "VAULTTMPFS_METRICS_CLIENT_CA_BACKENDS".to_owned();
    let settings = &mut pki.lab.agent.settings;
    settings.insert(backends, "team/clients, team/later".to_owned());
    pki.start_agent();
    let said = "Vault's PKI team/later";
    eventually("it to be said", || {
        pki.concerns().contains(said).then_some(())
    });
    assert_eq!(pki.lab.agent.log().matches(said).count(), 1);
    // Another's clients are let in meanwhile.
    let known = eventually("the certificate", || pki.connect()?.get("/metrics").ok());
    assert_eq!(known.status, 200);
    let root = pki.lab.vault.root();
    root.make_pki("team/later", &json!({"ttl": "1h", "server_flag": false}));
    let client = root.issue("team/later", "prometheus");
    eventually_within(Duration::from_secs(150), "its client to be let in", || {
        let connection = Connection::tls(pki.address, &pki.ca, Some(&client));
        connection.ok()?.get("/metrics").ok()
    });
    eventually("all to be well", || (pki.concerns() == "[]").then_some(()));
}

#[test]
fn without_a_ca_nobody_is_let_in_and_it_is_said() {
    let mut pki = Pki::without_agent(&json!({"ttl": "1h"}), "");
    let root = pki.lab.vault.root();
    // As where there are only CAs that others sign by.
    let keyless = json!({ "pem_bundle": pki.ca });
    root.delete("team/clients/root");
    root.write("team/clients/issuers/import/cert", &keyless);
    pki.start_agent();
    let root = pki.lab.vault.root();
    let stranger = root.issue("nodes", "stranger");
    // Whoever is refused has the CAs read anew.
    let refused = || {
        let answer = Connection::tls(pki.address, &pki.ca, Some(&stranger))
            .and_then(|mut it| it.get("/metrics"));
        assert!(answer.is_err(), "{answer:?}");
    };
    let no_ca = "is not there or has no issuer with a key";
    let said = || pki.concerns().contains(no_ca).then_some(());
    eventually("it to be said", said);
    eventually("the missing right to be said", || {
        pki.concerns().contains("nodes/issue/node").then_some(())
    });
    root.allow_generator(RULES);
    pki.wait_for_certificate();
    refused();
    let in_order = "in order again";
    assert_eq!(pki.lab.agent.log().matches(in_order).count(), 0);

    let with_key = |name| {
        let ca = json!({"common_name": name, "key_type": "ec", "key_bits": 256});
        let ca = root.write("team/clients/root/generate/internal", &ca);
        let default = json!({"default": ca["data"]["issuer_id"]});
        root.write("team/clients/config/issuers", &default);
        let client = root.issue("team/clients", "prometheus");
        (text(&ca["data"]["issuer_id"]), client)
    };
    let get = |client: &Identity| {
        let connection = Connection::tls(pki.address, &pki.ca, Some(client));
        connection?.get("/metrics")
    };
    let let_in = |client: &Identity| {
        eventually_within(Duration::from_secs(150), "a client to be let in", || {
            get(client).ok()
        });
        eventually("all to be well", || (pki.concerns() == "[]").then_some(()));
    };
    let gone = |client: &Identity| {
        eventually_within(
            Duration::from_secs(150),
            "a client of a CA that is gone to be refused",
            || {
                refused();
                get(client).is_err().then_some(())
            },
        );
        eventually("it to be said", said);
    };
    let (first, client) = with_key("first");
    let_in(&client);
    assert_eq!(pki.lab.agent.log().matches(in_order).count(), 1);
    // The last with a key, and then the last of all.
    root.delete(&format!("team/clients/issuer/{first}"));
    gone(&client);
    root.delete("team/clients/root");
    let (_, client) = with_key("second");
    let_in(&client);
    root.delete("team/clients/root");
    gone(&client);
}

#[test]
fn a_new_ca_of_the_clients_is_learnt_from_the_first_that_is_refused() {
    let pki = Pki::start(&json!({"ttl": "1h"}), RULES);
    let mut old = eventually("the certificate", || pki.connect());
    let mut closed = false;
    let root = pki.lab.vault.root();
    root.write(
        "team/clients/root/rotate/internal",
        &json!({"common_name": "next", "key_type": "ec", "key_bits": 256}),
    );
    let issuers = root.read("team/clients/config/issuers").body;
    let next = root.read("team/clients/issuer/next").body;
    assert_ne!(
        text(&issuers["data"]["default"]),
        text(&next["data"]["issuer_id"])
    );
    let before = root.issue("team/clients", "prometheus");
    root.write("team/clients/config/issuers", &json!({"default": "next"}));
    eventually_within(
        Duration::from_secs(150),
        "a client of the new CA to be let in",
        || {
            // What is in use stays until other CAs count.
            if !closed {
                closed = old.get("/metrics").expect("an answer").closes;
            }
            pki.connect()?.get("/metrics").ok()
        },
    );
    if !closed {
        let answer = old.get("/metrics").expect("an answer");
        assert!(answer.closes, "{answer:?}");
    }
    // Until it has a certificate of the new one, a client shows that of the old.
    let get = || Connection::tls(pki.address, &pki.ca, Some(&before))?.get("/metrics");
    assert_eq!(get().expect("the old CA's client").status, 200);

    // The new one without its elder: its clients are let in, and no others.
    root.delete(&format!(
        "team/clients/issuer/{}",
        text(&issuers["data"]["default"])
    ));
    let stranger = root.issue("nodes", "stranger");
    eventually_within(
        Duration::from_secs(150),
        "a client of the old CA to be refused",
        || {
            // Whoever is refused has the CAs read anew.
            let _ = Connection::tls(pki.address, &pki.ca, Some(&stranger))
                .and_then(|mut it| it.get("/metrics"));
            get().is_err().then_some(())
        },
    );
    assert!(
        pki.connect()
            .is_some_and(|mut it| it.get("/metrics").is_ok())
    );
}

/// Those above an intermediate one sign for others, too.
#[test]
fn a_ca_that_is_there_for_its_chain_alone_lets_nobody_in() {
    let pki = Pki::start(&json!({"ttl": "1h"}), RULES);
    let root = pki.lab.vault.root();
    let _ = eventually("the certificate", || pki.connect());
    root.make_pki("above", &json!({"ttl": "1h", "server_flag": false}));
    let request = json!({"common_name": "below", "key_type": "ec", "key_bits": 256});
    let request = root.write("team/clients/intermediate/generate/internal", &request);
    let request = json!({"csr": request["data"]["csr"], "common_name": "below"});
    let signed = root.write("above/root/sign-intermediate", &request)["data"].clone();
    let both = format!(
        "{}
{}",
        text(&signed["certificate"]),
        text(&signed["issuing_ca"])
    );
    let set = json!({ "certificate": both });
    let imported = root.write("team/clients/intermediate/set-signed", &set);
    let issuers = imported["data"]["imported_issuers"]
        .as_array()
        .expect("issuers");
    assert_eq!(issuers.len(), 2, "{imported}");
    let below = issuers.iter().find(|one| {
        let key = &imported["data"]["mapping"][text(one)];
        key.as_str().is_some_and(|key| !key.is_empty())
    });
    let default = json!({"default": below.expect("one with a key")});
    root.write("team/clients/config/issuers", &default);
    eventually_within(
        Duration::from_secs(150),
        "a client of the intermediate CA to be let in",
        || pki.connect()?.get("/metrics").ok(),
    );
    let client = root.issue("above", "prometheus");
    let get =
        Connection::tls(pki.address, &pki.ca, Some(&client)).and_then(|mut it| it.get("/metrics"));
    assert!(get.is_err(), "{get:?}");
}

/// As where a clock is wrong. Each would be kept by Vault until it ends.
#[test]
fn a_certificate_that_is_of_no_use_is_said_once() {
    const DAY: i64 = 24 * 3600;
    let mut pki = Pki::without_agent(&json!({"ttl": "1h"}), RULES);
    let clock = Clock::of(WALL, &pki.lab.node, &mut pki.lab.agent.settings);
    clock.step_to(DAY);
    pki.start_agent();
    let issued = || pki.lab.vault.count("nodes/issue/node");
    let said = "do the clocks agree?";
    eventually("it to be said", || {
        pki.concerns().contains(said).then_some(())
    });
    eventually("another try", || (issued() >= 3).then_some(()));
    assert_eq!(pki.lab.agent.log().matches(said).count(), 1);
    clock.step_to(0);
    eventually_within(Duration::from_secs(90), "a certificate", || pki.connect());
    eventually("all to be well", || (pki.concerns() == "[]").then_some(()));
}
