//! The call to Vault that a mount comes down to, alone, on one connection that is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use vaulttmpfs_tests::{Lab, text};

/// One client with one connection.
pub(crate) struct Bare {
    http: ureq::Agent,
    address: String,
    token: String,
}

impl Bare {
    pub(crate) fn new(lab: &Lab) -> Self {
        let token = lab.vault.root().make_generator_token();
        Self::at(
            lab.vault.address(),
            &lab.vault.authority().certificate(),
            token,
        )
    }

    pub(crate) fn at(address: &str, authority: &str, token: String) -> Self {
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
            address: address.to_owned(),
            token,
        }
    }

    /// Creates a wrapped token, and returns Vault's answer about it.
    pub(crate) fn create(&self, metadata: &serde_json::Value) -> serde_json::Value {
        let body = serde_json::json!({"policies": ["app"], "meta": metadata});
        let answer = self.post("auth/token/create/applications", &body.to_string());
        assert!(!text(&answer["wrap_info"]["token"]).is_empty());
        answer
    }

    /// The time of one creation.
    pub(crate) fn time(&self) -> Duration {
        // What the agent says of a pod.
        let metadata = serde_json::json!({
            "poduid": "0b8b9c2e-8f0c-4f4e-9a51-6f3c2d1e0a9b", "pod": "measured", "namespace": "shop",
            "service_account": "web", "node": "node", "creator": "bench",
        });
        let begun = Instant::now();
        self.create(&metadata);
        begun.elapsed()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> serde_json::Value {
        let mut answer = self
            .http
            .post(format!("{}/v1/{path}", self.address))
            .header("X-Vault-Token", &self.token)
            .header(
                "X-Vault-Wrap-TTL",
                if path.contains("create") { "300" } else { "" },
            )
            .send(body)
            .expect("Vault's answer");
        let body = answer.body_mut().read_to_string().expect("Vault's answer");
        serde_json::from_str(&body).expect("JSON")
    }
}
