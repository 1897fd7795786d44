//! The TCP address of the metrics: in the clear on loopback, else over TLS.

use super::read::{Reader, ca_file, identity_files};
use super::variables as table;
use super::{Environment, values};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where metrics are served beside the socket, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsAddress {
    /// Where to listen.
    pub address: SocketAddr,
    /// In the clear where there is none: then it is a loopback address.
    pub tls: Option<ServerTls>,
}

/// TLS as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Who the agent says it is.
    pub identity: Identity,
    /// Who may ask, where not everybody may.
    pub clients: Option<ClientCas>,
}

/// Where the server's certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// From PEM files, read again when they change.
    Files {
        /// The certificate, and those that lead from it to its CA.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Issued by Vault, and renewed.
    Pki {
        /// The path of the PKI secrets engine.
        backend: String,
        /// Its role.
        role: String,
        /// Host names, and IP addresses (IPv6 in brackets), of the certificate. At least one.
        names: Vec<String>,
    },
}

/// The CAs of clients. At least one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCas {
    /// A PEM file, read again when it changes.
    pub file: Option<PathBuf>,
    /// Paths of PKI secrets engines in Vault.
    pub backends: Vec<String>,
}

/// The settings, where an address is set. What is set without one serves nobody, and is told.
pub(super) fn metrics<E: Environment>(
    reader: &mut Reader<'_, E>,
    node: &str,
) -> Option<MetricsAddress> {
    let address = reader.value(&table::METRICS_ADDRESS, values::listener);
    let identity = identity(reader, node);
    let clients = clients(reader);
    if !reader.is_set(&table::METRICS_ADDRESS) {
        warn_without_address(reader);
    }
    let address = address?;
    // A bad one is reported already.
    let has_certificate = [&table::METRICS_CERTIFICATE, &table::METRICS_PKI_ROLE]
        .iter()
        .any(|variable| reader.is_set(variable));
    let open = if has_certificate {
        None
    } else if clients.is_some() {
        Some("no clients' CAs")
    } else if address.ip().to_canonical().is_loopback() {
        None
    } else {
        Some("an address of the loopback, as in 127.0.0.1:9743")
    };
    if let Some(open) = open {
        reader.report(
            table::METRICS_ADDRESS.names[0],
            Some(address.to_string()),
            format!(
                "{open}, or a certificate: {} and {}, or {}",
                table::METRICS_CERTIFICATE.names[0],
                table::METRICS_KEY.names[0],
                table::METRICS_PKI_ROLE.names[0],
            ),
        );
        return None;
    }
    let tls = identity.map(|identity| ServerTls { identity, clients });
    Some(MetricsAddress { address, tls })
}

fn warn_without_address<E: Environment>(reader: &mut Reader<'_, E>) {
    for variable in [
        &table::METRICS_CERTIFICATE,
        &table::METRICS_PKI_ROLE,
        &table::METRICS_CLIENT_CA,
        &table::METRICS_CLIENT_CA_BACKENDS,
    ] {
        if reader.is_set(variable) {
            reader.warn(format!(
                "{} is set, but not {}: metrics are on the socket only",
                variable.names[0],
                table::METRICS_ADDRESS.names[0]
            ));
        }
    }
}

fn identity<E: Environment>(reader: &mut Reader<'_, E>, node: &str) -> Option<Identity> {
    let role = reader.value(&table::METRICS_PKI_ROLE, values::vault_role);
    let backend = reader.value(&table::METRICS_PKI_BACKEND, values::vault_path);
    let names = reader.value(&table::METRICS_NAMES, values::hosts);
    let names = names.filter(|names| !names.is_empty());
    let files = identity_files(reader, &table::METRICS_CERTIFICATE, &table::METRICS_KEY);
    if reader.is_set(&table::METRICS_PKI_ROLE) && reader.is_set(&table::METRICS_CERTIFICATE) {
        reader.report(
            table::METRICS_PKI_ROLE.names[0],
            None,
            format!(
                "no value, since {} has one",
                table::METRICS_CERTIFICATE.names[0]
            ),
        );
        return None;
    }
    match (files, role) {
        (Some((certificate, key)), _) => Some(Identity::Files { certificate, key }),
        (None, Some(role)) => Some(Identity::Pki {
            backend: backend?,
            role,
            names: names.unwrap_or_else(|| vec![node.to_owned()]),
        }),
        (None, None) => None,
    }
}

fn clients<E: Environment>(reader: &mut Reader<'_, E>) -> Option<ClientCas> {
    let file = reader.value(&table::METRICS_CLIENT_CA, |text| {
        ca_file(text)?;
        values::path(text)
    });
    let backends = reader.value(&table::METRICS_CLIENT_CA_BACKENDS, values::vault_paths);
    let clients = ClientCas {
        file,
        backends: backends.unwrap_or_default(),
    };
    (clients.file.is_some() || !clients.backends.is_empty()).then_some(clients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{CA_1, KEY, file, refusal, with};
    use tempfile::TempDir;

    const ADDRESS: &str = "VAULTTMPFS_METRICS_ADDR";
    const CERTIFICATE: &str = "VAULTTMPFS_METRICS_CERT";
    const KEY_FILE: &str = "VAULTTMPFS_METRICS_KEY";
    const ROLE: &str = "VAULTTMPFS_METRICS_PKI_ROLE";
    const CLIENTS: &str = "VAULTTMPFS_METRICS_CLIENT_CA_BACKENDS";

    fn metrics(variables: &[(&'static str, &str)]) -> Option<MetricsAddress> {
        with(variables).unwrap().metrics
    }

    #[test]
    fn in_the_clear_on_loopback_only() {
        assert_eq!(metrics(&[]), None);
        for address in [
            "127.0.0.1:9743",
            "127.9.9.9:1",
            "[::1]:9743",
            "[::ffff:127.0.0.1]:80",
        ] {
            let tls = metrics(&[(ADDRESS, address)]).unwrap().tls;
            assert_eq!(tls, None, "{address}");
        }
        for address in [
            "0.0.0.0:9743",
            "10.0.0.1:9743",
            "[::]:9743",
            "[2001:db8::1]:9743",
        ] {
            let text = refusal(&[(ADDRESS, address)]);
            assert!(
                text.starts_with(ADDRESS) && text.contains("loopback") && text.contains(ROLE),
                "{text}"
            );
            let tls = metrics(&[(ADDRESS, address), (ROLE, "node")]).unwrap().tls;
            assert!(tls.is_some(), "{address}");
        }
        for address in [
            "9743",
            ":9743",
            "localhost:9743",
            "127.0.0.1",
            "127.0.0.1:0",
            "::1:9743",
        ] {
            let text = refusal(&[(ADDRESS, address)]);
            assert!(text.contains("as in 127.0.0.1:9743"), "{text}");
        }
    }

    #[test]
    fn a_certificate_comes_from_files_or_from_vault() {
        let directory = TempDir::new().unwrap();
        let (certificate, key) = (
            file(&directory, "metrics.crt", CA_1),
            file(&directory, "metrics.key", KEY),
        );
        let files = [
            (ADDRESS, "10.0.0.1:9743"),
            (CERTIFICATE, certificate.as_str()),
            (KEY_FILE, key.as_str()),
        ];
        let tls = metrics(&files).unwrap().tls.unwrap();
        let expected = Identity::Files {
            certificate: certificate.clone().into(),
            key: key.clone().into(),
        };
        assert_eq!((tls.identity, tls.clients), (expected, None));
        let both = refusal(&[&files[..], &[(ROLE, "node")]].concat());
        assert!(
            both.starts_with(&format!("{ROLE}: expected no value")),
            "{both}"
        );
        let half = refusal(&files[..2]);
        assert!(
            half.starts_with(&format!("{KEY_FILE}: expected a value")),
            "{half}"
        );

        let tls = metrics(&[
            (ADDRESS, "10.0.0.1:9743"),
            (ROLE, "node"),
            ("VAULTTMPFS_METRICS_PKI_BACKEND", "team/pki/"),
            ("VAULTTMPFS_METRICS_NAMES", "node-1, [::1]"),
            (CLIENTS, "a,b/c"),
            ("VAULTTMPFS_METRICS_CLIENT_CA", &certificate),
        ]);
        let tls = tls.unwrap().tls.unwrap();
        let expected = Identity::Pki {
            backend: "team/pki".to_owned(),
            role: "node".to_owned(),
            names: vec!["node-1".to_owned(), "[::1]".to_owned()],
        };
        assert_eq!(tls.identity, expected);
        let clients = tls.clients.unwrap();
        assert_eq!(clients.file, Some(certificate.into()));
        assert_eq!(clients.backends, ["a", "b/c"]);
    }

    #[test]
    fn what_is_no_path_in_vault() {
        for bad in ["/pki", "a//b", "../sys", "pki?x", "p k i", "a/./b"] {
            let text = refusal(&[(ADDRESS, "127.0.0.1:1"), (ROLE, "r"), (CLIENTS, bad)]);
            assert!(text.contains("a path in Vault"), "{text}");
        }
        let text = refusal(&[(ADDRESS, "127.0.0.1:1"), (ROLE, "a/b")]);
        assert!(text.contains("the name of a role"), "{text}");
    }

    #[test]
    fn clients_show_certificates_over_tls_only() {
        let text = refusal(&[(ADDRESS, "127.0.0.1:9743"), (CLIENTS, "pki")]);
        assert!(
            text.starts_with(ADDRESS) && text.contains("no clients' CAs"),
            "{text}"
        );
    }

    #[test]
    fn what_is_set_without_an_address_is_told() {
        let settings = with(&[(ROLE, "node")]).unwrap();
        assert_eq!(settings.metrics, None);
        let told = settings
            .warnings
            .iter()
            .any(|warning| warning.contains(ADDRESS));
        assert!(told, "{:?}", settings.warnings);
    }
}
