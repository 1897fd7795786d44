//! The certificates that Vault shows: is each trusted, for how long yet, and is the node's own good?

use super::report::{Group, Report};
use crate::certificate::{Certificate, day};
use crate::clock;
use crate::config::{CaSource, VaultSettings};
use crate::vault::Chain;
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

pub(super) const TITLE: &str = "TLS";

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate is to be renewed so long before its end, in seconds; one that lives shorter, when a
/// quarter of its life is left.
const SOON: i64 = 14 * 24 * 3600;

/// How a connection to Vault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It can be spoken to.
    Good,
    /// A certificate is not valid at this time, by this node's clock; all else is.
    ByAnotherClock,
    /// It cannot.
    None,
}

pub(super) async fn check(
    report: &mut Report,
    vault: &VaultSettings,
    connection: TcpStream,
) -> Trust {
    let mut group = report.group(TITLE);
    if !vault.address.is_https() {
        group.not_checked("VAULT_ADDR is http: there is none");
        return Trust::Good;
    }
    if let Some((certificate, _)) = &vault.client_certificate {
        own(&mut group, certificate);
    }
    let chain = match tokio::time::timeout(PATIENCE, Chain::shown(vault, connection)).await {
        Ok(Ok(chain)) => chain,
        Ok(Err(problem)) => {
            group.failure(problem);
            return Trust::None;
        }
        Err(_) => {
            group.failure(format!(
                "there was no handshake within {} s: does something else than Vault listen at {}?",
                PATIENCE.as_secs(),
                vault.address
            ));
            return Trust::None;
        }
    };
    judge(&mut group, vault, &chain, now())
}

fn judge(group: &mut Group<'_>, vault: &VaultSettings, chain: &Chain, now: i64) -> Trust {
    let before = group.failures();
    for certificate in &chain.certificates {
        dates(group, "Vault's certificate", certificate, now, true);
    }
    if let Some(last) = chain.certificates.last() {
        let mut anchors = chain.trusted.iter().filter(|ca| last.names_as_issuer(ca));
        if let Some(ca) = anchors.next()
            && chain.distrust.is_none()
            && !chain.certificates.contains(ca)
        {
            // rustls does not look at its dates; the pods' clients may.
            dates(group, "the CA", ca, now, false);
        }
    }
    let by_time = group.failures() > before;
    if let Some(distrust) = &chain.distrust {
        if vault.skip_verify {
            group.warning(format!(
                "{}; VAULT_SKIP_VERIFY lets it pass",
                distrusted(vault, chain, distrust)
            ));
            return Trust::Good;
        }
        let is_time = is_about_time(distrust);
        // What is said of a date is said.
        if !(is_time && by_time) {
            group.failure(distrusted(vault, chain, distrust));
        }
        return if is_time {
            Trust::ByAnotherClock
        } else {
            Trust::None
        };
    }
    if let Some(failure) = &chain.failure {
        group.failure(format!(
            "the handshake failed ({failure}): {}",
            if failure.contains("InvalidContentType") {
                "does plain HTTP, or something else than Vault, listen there?"
            } else {
                "see Vault's log, and its listener's tls_ settings"
            }
        ));
        return Trust::None;
    }
    if !vault.skip_verify {
        group.ok(format!(
            "Vault's certificate is trusted by {}",
            trusted_by(vault, chain)
        ));
    }
    Trust::Good
}

/// Says how long a certificate is valid. `needed`: without it nothing works.
fn dates(group: &mut Group<'_>, what: &str, certificate: &Certificate, now: i64, needed: bool) {
    let Certificate {
        subject,
        not_before,
        not_after,
        ..
    } = certificate;
    let problem = if now > *not_after {
        Some(format!(
            "{what} {subject:?} has expired on {}: renew it, or is this node's clock wrong?",
            day(*not_after)
        ))
    } else if now < *not_before {
        Some(format!(
            "{what} {subject:?} is not valid before {}: is this node's clock wrong?",
            day(*not_before)
        ))
    } else {
        None
    };
    let soon = SOON.min(not_after.saturating_sub(*not_before) / 4);
    match problem {
        Some(problem) if needed => group.failure(problem),
        Some(problem) => group.warning(problem),
        None if not_after.saturating_sub(now) < soon => group.warning(format!(
            "{what} {subject:?} expires on {}, in {} days: renew it",
            day(*not_after),
            (not_after - now) / (24 * 3600)
        )),
        None => group.ok(format!(
            "{what} {subject:?}, signed by {:?}, is valid until {}",
            certificate.issuer,
            day(*not_after)
        )),
    }
}

fn is_about_time(error: &rustls::Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

/// Which certificate is not trusted, and why.
fn distrusted(vault: &VaultSettings, chain: &Chain, error: &rustls::Error) -> String {
    let first = chain.certificates.first();
    let of_first = |of: fn(&Certificate) -> String| first.map(of).unwrap_or_default();
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "Vault's certificate is for {}, not for {}: name one of these in VAULT_ADDR or VAULT_TLS_SERVER_NAME, or get another certificate",
            of_first(|it| match it.names.as_slice() {
                [] => "no host at all".to_owned(),
                names => names.join(", "),
            }),
            vault.server_name.as_deref().unwrap_or(vault.address.host()),
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => unknown_issuer(vault, chain),
        error => format!(
            "Vault's certificate {:?} is not trusted ({error})",
            of_first(|it| it.subject.clone())
        ),
    }
}

fn unknown_issuer(vault: &VaultSettings, chain: &Chain) -> String {
    // The way up ends at the one whose issuer Vault does not show.
    let Some(mut top) = chain.certificates.first() else {
        return "Vault showed no certificate".to_owned();
    };
    for _ in &chain.certificates {
        let mut others = chain.certificates.iter();
        match others.find(|other| *other != top && top.names_as_issuer(other)) {
            Some(issuer) => top = issuer,
            None => break,
        }
    }
    let by = trusted_by(vault, chain);
    let why = if chain.trusted.iter().any(|ca| top.names_as_issuer(ca)) {
        "by another key than that of the CA of this name there: was it renewed?"
    } else {
        "which is not there: add it, or the certificates between to what Vault shows"
    };
    format!(
        "not trusted by {by}: the certificate {:?}, signed by {:?}, {why}",
        top.subject, top.issuer
    )
}

fn trusted_by(vault: &VaultSettings, chain: &Chain) -> String {
    let count = chain.trusted.len();
    match &vault.ca {
        Some(CaSource::File(path)) => {
            format!("VAULT_CACERT ({}, CAs: {count})", path.display())
        }
        Some(CaSource::Directory(path)) => {
            format!("VAULT_CAPATH ({}, CAs: {count})", path.display())
        }
        None => format!("the system's CAs ({count}; VAULT_CACERT names others)"),
    }
}

/// The node's own certificate.
fn own(group: &mut Group<'_>, path: &Path) {
    let read = CertificateDer::from_pem_file(path)
        .ok()
        .and_then(|der| Certificate::parse(&der));
    match read {
        Some(certificate) => dates(group, "the client certificate", &certificate, now(), true),
        None => group.failure(format!(
            "{} is no certificate in PEM form: see VAULT_CLIENT_CERT",
            path.display()
        )),
    }
}

fn now() -> i64 {
    i64::try_from(clock::wall_ms() / 1000).unwrap_or(i64::MAX)
}
