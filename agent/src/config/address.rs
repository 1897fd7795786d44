//! Vault's URL.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use url::{Host, Url};

/// Vault's URL: `https` or `http`, host, port, and a path where Vault has one. Without user,
/// password, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    url: Url,
    /// The URL without a slash at its end.
    text: String,
}

/// Why a text is not Vault's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Not a URL with a host, or of another scheme.
    NotHttp,
    /// It carries a user or password.
    Credentials,
    /// It carries a query or fragment.
    Query,
    /// Its path climbs, also in another writing of `..`.
    Path,
}

impl Address {
    /// The URL without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL, to be joined with an endpoint's path.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The host, lower-case; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The port, also where the scheme implies it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// The path before `/v1/`: empty, or with a slash before and none behind.
    #[must_use]
    pub fn base_path(&self) -> &str {
        self.url.path().trim_end_matches('/')
    }

    /// Whether it leads to the node itself, which is another place for a pod.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
            Some(Host::Ipv4(ip)) => is_local(ip),
            Some(Host::Ipv6(ip)) => {
                ip.is_loopback()
                    || ip == Ipv6Addr::UNSPECIFIED
                    || ip.to_ipv4_mapped().is_some_and(is_local)
            }
            None => true,
        }
    }
}

fn is_local(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(AddressError::NotHttp);
        }
        let (_, rest) = text.split_once("://").ok_or(AddressError::NotHttp)?;
        let url = Url::parse(text).map_err(|_| AddressError::NotHttp)?;
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
            return Err(AddressError::NotHttp);
        }
        if rest.contains('@') {
            return Err(AddressError::Credentials);
        }
        if rest.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        // The parser resolves `..`, also as `%2e%2e`, and turns backslashes.
        let path = rest.find('/').map_or("/", |start| &rest[start..]);
        if path != url.path() {
            return Err(AddressError::Path);
        }
        let text = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, text })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "a URL as in https://vault.example.com:8200",
            Self::Credentials => "a URL without user and password",
            Self::Query => "a URL without query and fragment",
            Self::Path => "a URL with a plain path",
        })
    }
}

impl std::error::Error for AddressError {}
