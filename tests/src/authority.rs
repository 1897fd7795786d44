//! A private certificate authority, made anew for each test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::time::Duration;

/// The names that a server of a test answers to.
const NAMES: [&str; 3] = ["127.0.0.1", "localhost", "vault.test"];

/// A certificate authority of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's or a client's certificate and key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// Makes one. Each has the same name and another key, so that only the key tells them apart.
    #[must_use]
    pub fn new() -> Self {
        Self::named("vaulttmpfs test authority")
    }

    /// One with another name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key for the authority");
        let issuer =
            CertifiedIssuer::self_signed(parameters, key).expect("the authority's certificate");
        Self { issuer }
    }

    /// The authority's certificate as PEM: what its clients trust.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server on this machine.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.signed(ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// One that is valid from and until then, in seconds since 1970.
    #[must_use]
    pub fn identity_within(&self, from: u64, until: u64) -> Identity {
        let moment = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        self.signed(ExtendedKeyUsagePurpose::ServerAuth, |parameters| {
            parameters.not_before = moment(from);
            parameters.not_after = moment(until);
        })
    }

    /// A certificate for a client.
    #[must_use]
    pub fn client(&self) -> Identity {
        self.signed(ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    fn signed(
        &self,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = NAMES.map(str::to_owned).into();
        let mut parameters = CertificateParams::new(names).expect("a server's names");
        parameters.extended_key_usages = vec![purpose];
        parameters
            .distinguished_name
            .push(DnType::CommonName, "vault");
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
