//! Certificates of Vault's PKI secrets engines.

use super::calls::data;
use super::error::VaultError;
use super::plain::Plain;
use super::session::Turn;
use super::transport::{Headers, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// A certificate to be issued.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// The path of the secrets engine.
    pub backend: &'a str,
    /// Its role.
    pub role: &'a str,
    /// Host names, and IP addresses (IPv6 in brackets), that it is for. The first host name is its common
    /// name.
    pub names: &'a [String],
}

/// A certificate that Vault issued.
pub struct Issued {
    /// The certificate, and those that lead from it to its CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key, which Vault made and does not keep.
    pub key: Zeroizing<PrivateKeyDer<'static>>,
    /// When it ends: seconds since 1970.
    pub ends: u64,
}

impl Turn<'_> {
    /// Has a certificate issued, with a new key.
    pub async fn issue(self, certificate: &Certificate<'_>) -> Result<Issued, VaultError> {
        let answer = self.transport().issue(certificate, &self.headers()).await;
        self.heed(answer).await
    }

    /// Lists the issuers by which a secrets engine signs, or has signed; none where it is not there.
    pub async fn issuers(self, backend: &str) -> Result<Vec<String>, VaultError> {
        let answer = self.transport().issuers(backend, &self.headers()).await;
        self.heed(answer).await
    }

    /// Reads an issuer's certificate.
    pub async fn issuer(
        self,
        backend: &str,
        issuer: &str,
    ) -> Result<CertificateDer<'static>, VaultError> {
        let headers = self.headers();
        let answer = self.transport().issuer(backend, issuer, &headers).await;
        self.heed(answer).await
    }
}

impl Transport {
    async fn issue(
        &self,
        certificate: &Certificate<'_>,
        headers: &Headers<'_>,
    ) -> Result<Issued, VaultError> {
        let body = self.call(certificate.request(), headers).await?;
        Issued::parse(&body)
    }

    /// Anyone may ask for issuers, without a right (tried on `OpenBao`). The chain of the default one,
    /// `ca_chain`, does not have the one that was default before.
    async fn issuers(
        &self,
        backend: &str,
        headers: &Headers<'_>,
    ) -> Result<Vec<String>, VaultError> {
        let request = Plain::list(format!("{backend}/issuers"));
        match self.call(request, headers).await {
            Ok(body) => Issuers::parse(&body).map(Issuers::that_sign),
            // Of an empty list Vault says that it is not found, too.
            Err(error) if error.is_not_found() && error.is_answered_for_the_caller() => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn issuer(
        &self,
        backend: &str,
        issuer: &str,
        headers: &Headers<'_>,
    ) -> Result<CertificateDer<'static>, VaultError> {
        #[derive(Deserialize)]
        struct Issuer {
            certificate: String,
        }
        const WHAT: &str = "not a PKI's issuer";
        let request = Plain::get(format!("{backend}/issuer/{issuer}/json"));
        let issuer: Issuer = data(&self.call(request, headers).await?, WHAT)?;
        certificate(&issuer.certificate).ok_or(VaultError::NotUnderstood(WHAT))
    }
}

#[derive(Deserialize)]
struct Issuers {
    key_info: BTreeMap<String, Issuer>,
}

#[derive(Deserialize)]
struct Issuer {
    key_id: Option<String>,
}

impl Issuers {
    fn parse(body: &[u8]) -> Result<Self, VaultError> {
        data(body, "not a PKI's issuers")
    }

    /// One without a key is there for its chain: it is another's, and has signed for others, too. The first
    /// versions of Vault with issuers do not list their keys: there each counts.
    fn that_sign(self) -> Vec<String> {
        let issuers = self.key_info.into_iter();
        let signing = issuers.filter(|(_, issuer)| issuer.key_id.as_deref() != Some(""));
        signing.map(|(id, _)| id).collect()
    }
}

impl Certificate<'_> {
    fn request(&self) -> Plain {
        let path = format!("{}/issue/{}", self.backend, self.role);
        Plain::post(path, self.body().to_string())
    }

    fn body(&self) -> Value {
        let address = |name: &String| name.trim_matches(['[', ']']).parse::<IpAddr>();
        let addresses: Vec<_> = self.names.iter().flat_map(address).collect();
        let hosts: Vec<_> = self
            .names
            .iter()
            .filter(|name| address(name).is_err())
            .map(String::as_str)
            .collect();
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        json!({
            "common_name": hosts.first(),
            "alt_names": hosts.join(","),
            "ip_sans": addresses.join(","),
            "private_key_format": "pkcs8",
        })
    }
}

impl Issued {
    fn parse(body: &[u8]) -> Result<Self, VaultError> {
        #[derive(Deserialize)]
        struct Answer {
            certificate: String,
            issuing_ca: String,
            #[serde(default)]
            ca_chain: Vec<String>,
            private_key: SecretString,
            expiration: u64,
        }
        const WHAT: &str = "not an issued certificate";
        let odd = VaultError::NotUnderstood(WHAT);
        let mut answer: Answer = data(body, WHAT)?;
        if answer.ca_chain.is_empty() {
            answer.ca_chain.push(answer.issuing_ca);
        }
        let chain = std::iter::once(&answer.certificate).chain(&answer.ca_chain);
        let chain: Option<Vec<_>> = chain.map(|pem| certificate(pem)).collect();
        let key = PrivateKeyDer::from_pem_slice(answer.private_key.expose_secret().as_bytes());
        match (chain, key) {
            (Some(chain), Ok(key)) => Ok(Self {
                chain,
                key: Zeroizing::new(key),
                ends: answer.expiration,
            }),
            _ => Err(odd),
        }
    }
}

fn certificate(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustify::endpoint::Endpoint;

    #[test]
    fn names_and_addresses_go_where_vault_wants_them() {
        let names = ["10.0.0.1", "node-1", "[::1]", "node-1.example.com"].map(str::to_owned);
        let certificate = Certificate {
            backend: "team/pki",
            role: "metrics",
            names: &names,
        };
        assert_eq!(certificate.request().path(), "team/pki/issue/metrics");
        let body = certificate.body();
        assert_eq!(body["common_name"], "node-1");
        assert_eq!(body["alt_names"], "node-1,node-1.example.com");
        assert_eq!(body["ip_sans"], "10.0.0.1,::1");
    }

    #[test]
    fn an_issuer_counts_unless_it_is_said_to_have_no_key() {
        let signing = |issuers: Value| {
            let body = json!({"data": {"keys": [], "key_info": issuers}}).to_string();
            Issuers::parse(body.as_bytes()).unwrap().that_sign()
        };
        let new = json!({"a": {"key_id": "k"}, "b": {"key_id": ""}});
        assert_eq!(signing(new), ["a"]);
        // Vault 1.11.
        let old = json!({"a": {"issuer_name": "x"}, "b": {"issuer_name": ""}});
        assert_eq!(signing(old), ["a", "b"]);
    }

    #[test]
    fn odd_answers_are_refused_and_not_quoted() {
        for body in [
            "",
            "{}",
            r#"{"data":{}}"#,
            r#"{"data":{"certificate":"x","issuing_ca":"y","private_key":"hidden","expiration":1}}"#,
            r#"{"data":{"certificate":"x","issuing_ca":"y","private_key":"hidden","expiration":-1}}"#,
        ] {
            let Err(error) = Issued::parse(body.as_bytes()) else {
                panic!("{body} was taken");
            };
            assert!(matches!(error, VaultError::NotUnderstood(_)), "{error}");
        }
    }
}
