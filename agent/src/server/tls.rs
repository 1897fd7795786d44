//! TLS of the metrics' address: the agent's certificate, and whom it answers.
//!
//! Files are looked at when a client comes, so that nothing wakes an idle agent; what comes from Vault is
//! renewed by [`Tls::keep`]. What can be had counts at once for new connections; what cannot leaves what
//! there was.

use crate::config::{CaSource, ClientCas, Identity, ServerTls, read_ca};
use crate::metrics::{Metrics, Outcome};
use crate::vault::pki::Certificate;
use crate::vault::session::Turn;
use crate::vault::{Session, VaultError};
use crate::{clock, duration, identity, timer};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The first and the longest pause between two tries to get something from Vault.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A certificate that was issued and is of no use is asked for again after this time at most: each stays
/// in Vault until it ends.
const LONGEST_USELESS: Duration = Duration::from_secs(3600);

/// The CAs of Vault are read again so often.
const CA_LIFE: Duration = Duration::from_secs(6 * 3600);

/// They are read again for a client that was refused, but not more often than this.
const CA_PAUSE: Duration = Duration::from_secs(10);

/// A certificate is not renewed more often than this, however short its life.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);

/// The TLS of the metrics' address.
pub(super) struct Tls {
    settings: ServerTls,
    session: Arc<Session>,
    metrics: Arc<Metrics>,
    parts: Mutex<Parts>,
    /// A client was refused: its CA may be new.
    refused: Notify,
    /// What is said of it may have changed.
    stirred: Arc<Notify>,
}

/// What the configuration is made of.
#[derive(Default)]
struct Parts {
    /// The files as they were when they were last read.
    files: Vec<Stamp>,
    identity: Option<Arc<CertifiedKey>>,
    /// When the certificate ends, where Vault issued it: seconds since 1970.
    ends: Option<u64>,
    file_cas: Roots,
    /// By secrets engine.
    vault_cas: BTreeMap<String, Roots>,
    configuration: Option<Arc<ServerConfig>>,
    file_trouble: Option<String>,
    certificate_trouble: Option<String>,
    ca_trouble: Option<String>,
}

/// CAs that can be used.
type Roots = Vec<TrustAnchor<'static>>;

/// The CAs that were read and can be used, and which one cannot: it keeps no other from counting.
type Read = (Roots, Result<(), String>);

/// Why there is no new certificate.
enum NoCertificate {
    /// Vault has issued none.
    NotIssued(String),
    /// Vault has issued one, and another would hardly be better.
    Useless(String),
}

/// By what a changed file is told; nothing where there is none.
type Stamp = Option<(u64, u64, u64, (i64, i64))>;

impl Tls {
    pub(super) fn new(
        settings: &ServerTls,
        session: Arc<Session>,
        metrics: Arc<Metrics>,
        stirred: Arc<Notify>,
    ) -> Self {
        Self {
            settings: settings.clone(),
            session,
            metrics,
            parts: Mutex::default(),
            refused: Notify::new(),
            stirred,
        }
    }

    /// The configuration for a new connection; none as long as something is missing for it.
    pub(super) fn current(&self) -> Option<Arc<ServerConfig>> {
        let mut parts = self.parts();
        let stamps: Vec<_> = self.files().map(stamp).collect();
        if stamps != parts.files {
            parts.files = stamps;
            let read = self.read_files(&mut parts);
            self.conclude(&mut parts, |parts| &mut parts.file_trouble, read);
        }
        parts.configuration.clone()
    }

    /// When the certificate ends, where Vault issued it: seconds since 1970.
    pub(super) fn ends(&self) -> Option<u64> {
        self.parts().ends
    }

    /// What is wrong with it, and what to do: each a line.
    pub(super) fn concerns(&self) -> Vec<String> {
        self.parts().troubles().cloned().collect()
    }

    /// A client's certificate was refused: the CA that signed it may be a new one.
    pub(super) fn refused(&self) {
        self.refused.notify_one();
    }

    /// Gets from Vault what comes from there, and renews it.
    pub(super) async fn keep(&self) -> Infallible {
        tokio::join!(self.keep_certificate(), self.keep_cas()).0
    }

    async fn keep_certificate(&self) -> Infallible {
        let Identity::Pki {
            backend,
            role,
            names,
        } = &self.settings.identity
        else {
            return std::future::pending().await;
        };
        let certificate = Certificate {
            backend,
            role,
            names,
        };
        let mut pause = PAUSES.0;
        loop {
            self.session.until_ready().await;
            let renewed = self.renew_certificate(&certificate).await;
            self.metrics.certificate_renewed(match renewed {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Later,
            });
            let next = match &renewed {
                Ok(next) => *next,
                Err(_) => clock::boottime_ms() + clock::millis(pause),
            };
            pause = match &renewed {
                Ok(_) => PAUSES.0,
                Err(why) => why.pause_after(pause),
            };
            let outcome = renewed.map(drop).map_err(NoCertificate::why);
            self.conclude(
                &mut self.parts(),
                |parts| &mut parts.certificate_trouble,
                outcome,
            );
            timer::sleep_until(next).await;
        }
    }

    async fn keep_cas(&self) -> Infallible {
        let backends = self.backends();
        if backends.is_empty() {
            return std::future::pending().await;
        }
        let mut pause = PAUSES.0;
        loop {
            self.session.until_ready().await;
            let mut outcomes = Vec::new();
            for backend in backends {
                let read = self.read_cas(backend).await;
                outcomes.push(self.take_cas(backend, read));
            }
            let outcome = together(outcomes);
            let done = outcome.is_ok();
            self.conclude(&mut self.parts(), |parts| &mut parts.ca_trouble, outcome);
            if done {
                pause = PAUSES.0;
                self.until_reread().await;
            } else {
                timer::sleep_until(clock::boottime_ms() + clock::millis(pause)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }

    async fn until_reread(&self) {
        let now = clock::boottime_ms();
        let refused = async {
            self.refused.notified().await;
            timer::sleep_until(now + clock::millis(CA_PAUSE)).await;
        };
        tokio::select! {
            () = timer::sleep_until(now + clock::millis(CA_LIFE)) => {}
            () = refused => {}
        }
    }

    /// The CAs of a secrets engine; none where it has none, or is not there.
    async fn read_cas(&self, backend: &str) -> Result<Read, String> {
        let unread = |error: VaultError| {
            format!(
                "the CAs of Vault's PKI {backend}, for clients of the metrics, cannot be read: {error}"
            )
        };
        let issuers = self.turn().await?.issuers(backend).await.map_err(unread)?;
        let mut cas = Vec::new();
        for issuer in issuers {
            let ca = self.turn().await?.issuer(backend, &issuer).await;
            cas.push(ca.map_err(unread)?);
        }
        Ok(roots(&format!("Vault's PKI {backend}"), cas))
    }

    /// Lets in clients of these CAs of a secrets engine's from now on, and of no others of it.
    fn take_cas(&self, backend: &str, read: Result<Read, String>) -> Result<(), String> {
        let (roots, all) = read?;
        let none = roots.is_empty();
        let mut parts = self.parts();
        if parts.vault_cas.get(backend) != Some(&roots) {
            parts.vault_cas.insert(backend.to_owned(), roots);
            self.configure(&mut parts)?;
        }
        if none {
            return Err(format!(
                "Vault's PKI {backend}, for clients of the metrics, is not there or has no issuer with a key that can be used: nobody is let in by it"
            ));
        }
        all
    }

    /// Gets a certificate from Vault, for configurations from now on. Answers when to do so again, in
    /// milliseconds on `CLOCK_BOOTTIME`.
    async fn renew_certificate(&self, certificate: &Certificate<'_>) -> Result<u64, NoCertificate> {
        let begun = clock::boottime_ms();
        let turn = self.turn().await.map_err(NoCertificate::NotIssued)?;
        let issued = turn.issue(certificate).await;
        let issued = issued.map_err(|error| not_issued(certificate, &error))?;
        let ends = issued.ends;
        let life = Duration::from_secs(ends.saturating_sub(clock::wall_ms() / 1000));
        if life.is_zero() {
            return Err(NoCertificate::Useless(format!(
                "the metrics' certificate, which Vault at {} has just issued, has ended by this machine's clock: do the clocks agree?",
                self.session.address()
            )));
        }
        let identity = identity::certified(issued.chain, &issued.key).map_err(|problem| {
            NoCertificate::Useless(format!("the certificate that Vault issued: {problem}"))
        })?;
        let mut parts = self.parts();
        parts.identity = Some(identity);
        parts.ends = Some(ends);
        self.configure(&mut parts).map_err(NoCertificate::Useless)?;
        Ok(begun + clock::millis(next_renewal(life, random())))
    }

    async fn turn(&self) -> Result<Turn<'_>, String> {
        let turn = self.session.turn().await;
        turn.ok_or_else(|| "the session with Vault has just ended".to_owned())
    }

    fn backends(&self) -> &[String] {
        let clients = self.settings.clients.as_ref();
        clients.map_or(&[], |clients| &clients.backends)
    }

    /// The files that any of it comes from.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = match &self.settings.identity {
            Identity::Files { certificate, key } => vec![certificate.as_path(), key.as_path()],
            Identity::Pki { .. } => Vec::new(),
        };
        let clients = self.settings.clients.as_ref();
        let ca = clients.and_then(|clients| clients.file.as_deref());
        identity.into_iter().chain(ca)
    }

    fn read_files(&self, parts: &mut Parts) -> Result<(), String> {
        let (identity, cas) = (parts.identity.clone(), parts.file_cas.clone());
        let read = [self.read_own(parts), self.read_clients(parts)];
        let address = |identity: &Option<Arc<CertifiedKey>>| identity.as_ref().map(Arc::as_ptr);
        let same = address(&parts.identity) == address(&identity) && parts.file_cas == cas;
        // What cannot be used ends no connection.
        let configured = if same { Ok(()) } else { self.configure(parts) };
        together(read.into_iter().chain([configured]))
    }

    fn read_own(&self, parts: &mut Parts) -> Result<(), String> {
        if let Identity::Files { certificate, key } = &self.settings.identity {
            let identity = identity::read(certificate, key)
                .map_err(|problem| format!("the metrics' certificate: {problem}"))?;
            parts.identity = Some(identity);
        }
        Ok(())
    }

    fn read_clients(&self, parts: &mut Parts) -> Result<(), String> {
        let Some(ClientCas {
            file: Some(file), ..
        }) = &self.settings.clients
        else {
            return Ok(());
        };
        let ca = read_ca(&CaSource::File(file.clone())).map_err(|error| error.to_string())?;
        let cas = ca.der.into_iter().map(CertificateDer::from);
        let (cas, all) = roots(&file.display().to_string(), cas);
        parts.file_cas = cas;
        all
    }

    /// Makes the configuration for connections from now on, once nothing is missing. Where clients must show
    /// a certificate, there is none without a CA.
    fn configure(&self, parts: &mut Parts) -> Result<(), String> {
        let Some(identity) = &parts.identity else {
            return Ok(());
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS of the metrics cannot be set up: {error}"))?;
        let builder = if self.settings.clients.is_some() {
            let cas = parts.file_cas.iter();
            let cas = cas.chain(parts.vault_cas.values().flatten());
            let cas: RootCertStore = cas.cloned().collect();
            if cas.is_empty() {
                parts.configuration = None;
                return Ok(());
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(cas), provider)
                .build()
                .map_err(|error| format!("the CAs of the metrics' clients: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let resolver = SingleCertAndKey::from(Arc::clone(identity));
        let mut configuration = builder.with_cert_resolver(Arc::new(resolver));
        configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is taken up again would ask for no certificate: a CA that does not count any more
        // would go on counting.
        configuration.session_storage = Arc::new(NoServerSessionStorage {});
        configuration.send_tls13_tickets = 0;
        parts.configuration = Some(Arc::new(configuration));
        Ok(())
    }

    /// Keeps what went wrong, and says it once.
    fn conclude(
        &self,
        parts: &mut Parts,
        trouble: impl Fn(&mut Parts) -> &mut Option<String>,
        outcome: Result<(), String>,
    ) {
        let now = outcome.err();
        let before = trouble(parts);
        if *before == now {
            return;
        }
        if let Some(why) = &now {
            tracing::warn!("{why}");
        }
        *before = now;
        if parts.troubles().next().is_none() {
            tracing::info!("the metrics' certificates are in order again");
        }
        self.stirred.notify_one();
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    fn troubles(&self) -> impl Iterator<Item = &String> {
        let troubles = [
            &self.file_trouble,
            &self.certificate_trouble,
            &self.ca_trouble,
        ];
        troubles.into_iter().flatten()
    }
}

/// Those from this place that can be used.
fn roots(place: &str, cas: impl IntoIterator<Item = CertificateDer<'static>>) -> Read {
    let mut store = RootCertStore::empty();
    let mut all = Ok(());
    for ca in cas {
        if let Err(error) = store.add(ca) {
            all = Err(format!(
                "{place}: a CA of the metrics' clients cannot be used: {error}"
            ));
        }
    }
    (store.roots, all)
}

/// What went wrong in all of these.
fn together(outcomes: impl IntoIterator<Item = Result<(), String>>) -> Result<(), String> {
    let troubles: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    if troubles.is_empty() {
        return Ok(());
    }
    Err(troubles.join("; "))
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    let changed = (file.ctime(), file.ctime_nsec());
    Some((file.dev(), file.ino(), file.size(), changed))
}

impl NoCertificate {
    /// The pause before the try after the next.
    fn pause_after(&self, pause: Duration) -> Duration {
        let longest = match self {
            Self::NotIssued(_) => PAUSES.1,
            Self::Useless(_) => LONGEST_USELESS,
        };
        (pause * 2).min(longest)
    }

    fn why(self) -> String {
        match self {
            Self::NotIssued(why) | Self::Useless(why) => why,
        }
    }
}

fn not_issued(certificate: &Certificate<'_>, error: &VaultError) -> NoCertificate {
    let path = format!("{}/issue/{}", certificate.backend, certificate.role);
    let what_to_do = if error.is_denied() {
        format!(
            "add to the generator token's policy: path \"{path}\" {{ capabilities = [\"update\"] }}"
        )
    } else {
        "it is tried again; does VAULTTMPFS_METRICS_PKI_ROLE name a role of that PKI, and does it allow VAULTTMPFS_METRICS_NAMES?".to_owned()
    };
    NoCertificate::NotIssued(format!(
        "the metrics' certificate could not be had from Vault at {path} ({error}): {what_to_do}"
    ))
}

/// At two thirds of its life, or a little before: certificates of nodes that started together are not
/// renewed together.
fn next_renewal(life: Duration, random: u8) -> Duration {
    let life = life.min(duration::LONGEST);
    let earlier = life / 12 * u32::from(random) / 255;
    (life * 2 / 3).saturating_sub(earlier).max(SHORTEST_PAUSE)
}

fn random() -> u8 {
    let mut random = [0];
    // Without one it is done all the same, only together with others.
    let _ = getrandom::fill(&mut random);
    random[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::Der;
    use rustls::sign::{Signer, SigningKey};
    use rustls::{SignatureAlgorithm, SignatureScheme};
    use std::collections::HashMap;
    use std::ffi::OsString;

    #[derive(Debug)]
    struct NoKey;

    impl SigningKey for NoKey {
        fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            None
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            SignatureAlgorithm::ECDSA
        }
    }

    #[test]
    fn an_odd_ca_keeps_nothing_else_from_counting_and_without_one_nobody_is_let_in() {
        let settings = crate::config::read(&HashMap::<&str, OsString>::new()).unwrap();
        let metrics = Arc::new(Metrics::default());
        let session = Session::new(&settings, Arc::clone(&metrics));
        let settings = ServerTls {
            identity: Identity::Pki {
                backend: "nodes".into(),
                role: "node".into(),
                names: vec!["node-1".into()],
            },
            clients: Some(ClientCas {
                file: None,
                backends: vec!["clients".into()],
            }),
        };
        let tls = Tls::new(&settings, session, metrics, Arc::default());
        let ca = TrustAnchor {
            subject: Der::from_slice(b"a"),
            subject_public_key_info: Der::from_slice(b"key"),
            name_constraints: None,
        };
        let odd = CertificateDer::from_slice(b"no certificate");
        let (none, all) = roots("a PKI", [odd]);
        assert!(none.is_empty());
        tls.take_cas("clients", Ok((vec![ca], all))).unwrap_err();

        tls.parts().identity = Some(Arc::new(CertifiedKey::new(Vec::new(), Arc::new(NoKey))));
        tls.configure(&mut tls.parts()).unwrap();
        assert!(tls.current().is_some());
        tls.take_cas("clients", Err("no connection".into()))
            .unwrap_err();
        assert!(tls.current().is_some());
        tls.take_cas("clients", Ok((Vec::new(), Ok(()))))
            .unwrap_err();
        assert!(tls.current().is_none());
    }

    #[test]
    fn vault_is_not_made_to_issue_what_is_of_no_use_again_and_again() {
        let after = |tries, why: NoCertificate| {
            (0..tries).fold(PAUSES.0, |pause, _| why.pause_after(pause))
        };
        let [not_issued, useless] = [NoCertificate::NotIssued, NoCertificate::Useless];
        for (tries, no, of_no_use) in [(1, 2, 2), (5, 32, 32), (6, 60, 64), (20, 60, 3600)] {
            let seconds = Duration::from_secs;
            assert_eq!(after(tries, not_issued(String::new())), seconds(no));
            assert_eq!(after(tries, useless(String::new())), seconds(of_no_use));
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_about_two_thirds_of_its_life() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (life, random, next) in [
            (hours(24), 0, hours(16)),
            (hours(24), 255, hours(14)),
            (Duration::MAX, 0, duration::LONGEST * 2 / 3),
            (Duration::ZERO, 0, SHORTEST_PAUSE),
            (Duration::ZERO, 255, SHORTEST_PAUSE),
        ] {
            assert_eq!(next_renewal(life, random), next, "{life:?} {random}");
        }
    }
}
