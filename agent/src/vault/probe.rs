//! Vault asked one thing at a time, each once, by a command that wants to know what works and what does
//! not. The agent's own calls go through the [`Session`].

use super::calls::{CreateToken, Generator, Health, Minted, Role};
use super::error::VaultError;
use super::own::{Capabilities, WrappingBounds};
use super::session::Session;
use super::transport::{Headers, Transport};
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::options::{Delivery, RoleName};
use secrecy::SecretString;
use std::sync::Arc;

/// A connection of its own to Vault, and the token to ask with, where there is one.
pub struct Probe {
    /// Never kept alive: it knows what a failed call means.
    session: Arc<Session>,
    transport: Transport,
    namespace: Option<String>,
    token: Option<SecretString>,
}

impl Probe {
    /// One without a connection and a token. Reads the certificates.
    ///
    /// # Errors
    /// One line that names the file or setting and what is wrong with it.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        // Nobody reads them.
        let metrics = Arc::<Metrics>::default();
        Ok(Self {
            session: Session::new(settings, Arc::clone(&metrics)),
            transport: Transport::new(&settings.vault, metrics)?,
            namespace: settings.vault.namespace.clone(),
            token: None,
        })
    }

    /// The same, asking with this token from now on.
    #[must_use]
    pub fn with_token(self, token: SecretString) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    /// What a failed call means, and what to do.
    #[must_use]
    pub fn explained(&self, error: &VaultError) -> String {
        self.session.failure(error).message
    }

    fn headers(&self) -> Headers<'_> {
        Headers {
            token: self.token.as_ref(),
            namespace: self.namespace.as_deref(),
            wrap_ttl: None,
        }
    }

    /// How Vault is. Sends no token.
    pub async fn health(&self) -> Result<Health, VaultError> {
        self.transport.health().await
    }

    /// The token itself.
    pub async fn generator(&self) -> Result<Generator, VaultError> {
        self.transport.lookup_self(&self.headers()).await
    }

    /// What the token may do on these paths.
    pub async fn capabilities(&self, paths: &[String]) -> Result<Capabilities, VaultError> {
        self.transport.capabilities(paths, &self.headers()).await
    }

    /// How long a create at this path may, and must, be wrapped.
    pub async fn wrapping_bounds(&self, path: &str) -> Result<WrappingBounds, VaultError> {
        self.transport.wrapping_bounds(path, &self.headers()).await
    }

    /// A token role.
    pub async fn role(&self, name: &RoleName) -> Result<Role, VaultError> {
        self.transport.role(name, &self.headers()).await
    }

    /// Creates a token; sent once.
    pub async fn create(&self, create: &CreateToken<'_>) -> Result<Minted, VaultError> {
        let wrap_ttl = match create.delivery {
            Delivery::Wrapped { ttl } => Some(ttl),
            Delivery::Unwrapped => None,
        };
        let headers = Headers {
            wrap_ttl,
            ..self.headers()
        };
        self.transport.create(create, &headers).await
    }

    /// Ends a token by its accessor.
    pub async fn revoke(&self, accessor: &SecretString) -> Result<(), VaultError> {
        self.transport.revoke(accessor, &self.headers()).await
    }
}
