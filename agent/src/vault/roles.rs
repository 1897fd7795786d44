//! What the token roles allow, remembered, so that a mount need not ask.

use super::calls::Role;
use super::error::VaultError;
use super::session::{Session, lock};
use crate::options::RoleName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// A role read longer ago is read again, behind the mount that asked for it.
const FRESH: Duration = Duration::from_secs(60);

/// A role read longer ago is not relied on any more.
const USABLE: Duration = Duration::from_secs(600);

/// A node has pods of a few roles; a pod's options must not fill the agent's memory.
const MOST: usize = 256;

/// The roles read lately.
#[derive(Default)]
pub struct Roles {
    read: Mutex<HashMap<RoleName, Read>>,
    /// Roles that Vault would not show lately: it is not asked again for each mount.
    hidden: Mutex<HashMap<RoleName, (VaultError, Instant)>>,
}

struct Read {
    role: Arc<Role>,
    at: Instant,
    refreshing: bool,
}

impl Roles {
    /// A role: from memory where it was read lately, else from Vault.
    pub async fn get(
        self: &Arc<Self>,
        name: &RoleName,
        session: &Arc<Session>,
    ) -> Result<Arc<Role>, VaultError> {
        if let Some(role) = self.remembered(name, session) {
            return Ok(role);
        }
        let hidden = lock(&self.hidden).get(name).cloned();
        match hidden {
            Some((error, at)) if at.elapsed() <= FRESH => Err(error),
            _ => self.read(name, session).await,
        }
    }

    /// A role from memory, or nothing. Either way it is read in the background where that is due.
    pub fn remembered(
        self: &Arc<Self>,
        name: &RoleName,
        session: &Arc<Session>,
    ) -> Option<Arc<Role>> {
        let mut read = lock(&self.read);
        let found = read.get_mut(name)?;
        let age = found.at.elapsed();
        if age > FRESH && !found.refreshing {
            found.refreshing = true;
            self.refresh(name, session);
        }
        (age <= USABLE).then(|| Arc::clone(&found.role))
    }

    /// Reads a role behind whoever will want it next.
    pub fn refresh(self: &Arc<Self>, name: &RoleName, session: &Arc<Session>) {
        let (roles, name, session) = (Arc::clone(self), name.clone(), Arc::clone(session));
        tokio::spawn(async move {
            if let Err(error) = roles.read(&name, &session).await {
                tracing::debug!(role = name.as_str(), "the role could not be read: {error}");
                if let Some(read) = lock(&roles.read).get_mut(&name) {
                    read.refreshing = false;
                }
            }
        });
    }

    /// Forgets a role: Vault said something that does not fit it.
    pub fn forget(&self, name: &RoleName) {
        lock(&self.read).remove(name);
        lock(&self.hidden).remove(name);
    }

    async fn read(&self, name: &RoleName, session: &Session) -> Result<Arc<Role>, VaultError> {
        let role = session.read_role(name).await.map(Arc::new);
        let at = Instant::now();
        match &role {
            Ok(role) => {
                let role = Arc::clone(role);
                let refreshing = false;
                lock(&self.hidden).remove(name);
                keep(
                    &self.read,
                    name,
                    Read {
                        role,
                        at,
                        refreshing,
                    },
                );
            }
            // What Vault will not show any more is not relied on; an outage changes nothing.
            Err(error) if error.is_denied() || error.is_not_found() => {
                lock(&self.read).remove(name);
                keep(&self.hidden, name, (error.clone(), at));
            }
            Err(_) => {}
        }
        role
    }
}

/// Remembers something of a role, within bounds.
fn keep<T>(memory: &Mutex<HashMap<RoleName, T>>, name: &RoleName, what: T) {
    let mut memory = lock(memory);
    if memory.len() >= MOST && !memory.contains_key(name) {
        memory.clear();
    }
    memory.insert(name.clone(), what);
}
