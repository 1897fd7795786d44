//! The session with Vault: the generator token, a warm connection, and how Vault is.
//!
//! One task, the keeper, makes the session and sees that it stays: whoever wants to call Vault
//! waits for it, within bounds. A mount never finds a cold connection that was warm before, nor
//! looks the generator token up itself.

use super::calls::{CreateToken, Generator, Health, Looked, Minted, Renewal, Role};
use super::client;
use super::error::VaultError;
use super::gate::{Gate, Place};
use super::transport::{Headers, Transport};
use crate::config::{Settings, VaultSettings};
use crate::failure::{Failure, Reason};
use crate::options::{Delivery, RoleName};
use secrecy::SecretString;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long a connection stays unused before the keeper uses it: below the idle timeout of common
/// servers and load balancers for Vault (300 s and more), and seldom enough to cost nothing.
const KEEP_WARM: Duration = Duration::from_secs(240);

/// The first and the longest pause between two tries to make the session.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// A caller in need shortens the keeper's pause to this at most.
const PAUSE_WHEN_NEEDED: Duration = Duration::from_secs(1);

/// The longest generator token that is read, in bytes.
const MAX_TOKEN: u64 = 8 * 1024;

/// The one session with Vault.
pub struct Session {
    vault: VaultSettings,
    token_path: PathBuf,
    gate: Gate,
    state: watch::Sender<State>,
    /// Someone waits for the session.
    needed: Notify,
    /// Something went wrong that may mean more than one failed call.
    doubted: Notify,
}

/// How the session is.
#[derive(Clone)]
pub enum Standing {
    /// Vault was not asked yet.
    Starting,
    /// Calls can be made.
    Ready(Arc<Live>),
    /// Calls cannot be made, and why.
    Degraded(Failure),
}

#[derive(Clone)]
struct State {
    standing: Standing,
    /// Failed tries to make the session, since the start.
    failed: u64,
}

/// A session that works.
pub struct Live {
    transport: Transport,
    token: SecretString,
    /// The generator token as Vault knows it.
    pub generator: Generator,
    /// Vault as it was when the session was made.
    pub health: Health,
}

impl Session {
    /// A session that is not made yet: [`Session::keep`] makes it.
    #[must_use]
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            vault: settings.vault.clone(),
            token_path: settings.generator_token_path.clone(),
            gate: Gate::new(
                settings.vault.rate_limit.as_ref(),
                &settings.lifecycle.max_rate,
            ),
            state: watch::Sender::new(State {
                standing: Standing::Starting,
                failed: 0,
            }),
            needed: Notify::new(),
            doubted: Notify::new(),
        })
    }

    /// How the session is now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.state.borrow().standing.clone()
    }

    /// Vault's address, as the settings name it.
    #[must_use]
    pub fn address(&self) -> &str {
        self.vault.address.as_str()
    }

    /// The keeper: makes the session, keeps it warm, makes it anew.
    pub async fn keep(&self) -> Infallible {
        let mut pause = PAUSES.0;
        loop {
            let failure = match self.establish().await {
                Ok(live) => {
                    let live = Arc::new(live);
                    tracing::info!(
                        vault = self.address(),
                        version = live.health.version,
                        policies = live.generator.policies.join(","),
                        "ready: Vault knows the generator token"
                    );
                    self.publish(Standing::Ready(Arc::clone(&live)), 0);
                    pause = PAUSES.0;
                    self.stay(&live).await
                }
                Err(failure) => failure,
            };
            self.say(&failure);
            self.publish(Standing::Degraded(failure), 1);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.needed.notified() => {
                    tokio::time::sleep(pause.min(PAUSE_WHEN_NEEDED)).await;
                }
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// The working session. Waits for it as long as the keeper may yet succeed: after as many
    /// failed tries as `VAULT_MAX_RETRIES` allows, or one that a retry will not mend, the reason.
    pub async fn live(&self) -> Result<Arc<Live>, Failure> {
        let mut state = self.state.subscribe();
        let before = state.borrow().failed;
        loop {
            {
                let now = state.borrow_and_update();
                match &now.standing {
                    Standing::Ready(live) => return Ok(Arc::clone(live)),
                    Standing::Degraded(failure)
                        if now.failed - before >= self.patience(failure) =>
                    {
                        return Err(failure.clone());
                    }
                    Standing::Degraded(_) | Standing::Starting => {}
                }
            }
            self.needed.notify_one();
            if state.changed().await.is_err() {
                return Err(Failure::new(Reason::Internal, "the agent is stopping"));
            }
        }
    }

    /// Creates a token. The call is sent only before `deadline`; once sent, it is waited for.
    pub async fn create(
        &self,
        live: &Live,
        create: &CreateToken<'_>,
        deadline: Instant,
    ) -> Result<Minted, CreateError> {
        let headers = Headers {
            wrap_ttl: match create.delivery {
                Delivery::Wrapped { ttl } => Some(ttl),
                Delivery::Unwrapped => None,
            },
            ..self.headers(live)
        };
        let mut tries = 0;
        loop {
            let Ok(place) = tokio::time::timeout_at(deadline, self.gate.enter()).await else {
                return Err(CreateError::NoPlace);
            };
            let error = match live.transport.create(create, &headers).await {
                Ok(minted) => return Ok(minted),
                Err(error) => error,
            };
            drop(place);
            if !error.create_may_be_repeated() || tries >= self.vault.max_retries {
                return Err(CreateError::Vault(error));
            }
            let pause = error
                .retry_after()
                .unwrap_or(PAUSES.0 * 2_u32.pow(tries.min(6)));
            if Instant::now() + pause >= deadline {
                return Err(CreateError::Vault(error));
            }
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }

    /// Waits until calls can be made.
    pub async fn until_ready(&self) {
        let mut state = self.state.subscribe();
        // The sender is our own: it is never gone.
        let _ = state
            .wait_for(|state| matches!(state.standing, Standing::Ready(_)))
            .await;
    }

    /// The id of Vault's cluster, as long as calls can be made.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        match self.standing() {
            Standing::Ready(live) => Some(live.health.cluster_id.clone()),
            _ => None,
        }
    }

    /// Renews a volume's token.
    pub async fn renew(&self, accessor: &SecretString) -> Result<Renewal, BackgroundError> {
        let (live, _place) = self.in_background().await?;
        Ok(live.transport.renew(accessor, &self.headers(&live)).await?)
    }

    /// Ends a volume's token, or its wrapping token.
    pub async fn revoke(&self, accessor: &SecretString) -> Result<(), BackgroundError> {
        let (live, _place) = self.in_background().await?;
        Ok(live
            .transport
            .revoke(accessor, &self.headers(&live))
            .await?)
    }

    /// Looks a volume's token, or its wrapping token, up.
    pub async fn lookup(&self, accessor: &SecretString) -> Result<Looked, BackgroundError> {
        let (live, _place) = self.in_background().await?;
        Ok(live
            .transport
            .lookup(accessor, &self.headers(&live))
            .await?)
    }

    async fn in_background(&self) -> Result<(Arc<Live>, Place<'_>), BackgroundError> {
        let place = self.gate.enter_in_background().await;
        match self.standing() {
            Standing::Ready(live) => Ok((live, place)),
            _ => Err(BackgroundError::NotReady),
        }
    }

    /// Reads a token role.
    pub(super) async fn read_role(&self, name: &RoleName) -> Result<Role, VaultError> {
        let Standing::Ready(live) = self.standing() else {
            return Err(VaultError::NoConnection("the session is not ready".into()));
        };
        let mut tries = 0;
        loop {
            let place = self.gate.enter().await;
            let answer = live.transport.role(name, &self.headers(&live)).await;
            drop(place);
            match answer {
                Err(error) if error.read_may_be_repeated() && tries < self.vault.max_retries => {
                    tokio::time::sleep(PAUSES.0 * 2_u32.pow(tries.min(6))).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Asks Vault whether it still knows the generator token; the keeper hears of it if not.
    pub async fn verify(&self, live: &Live) -> Result<(), Failure> {
        match live.transport.lookup_self(&self.headers(live)).await {
            Err(error) if error.is_denied() => {
                self.doubt();
                Err(self.failure(&error))
            }
            _ => Ok(()),
        }
    }

    /// Tells the keeper that a call failed in a way that may concern all calls.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// What a failed call means, for whoever waited for it.
    #[must_use]
    pub fn failure(&self, error: &VaultError) -> Failure {
        let address = self.address();
        let (reason, message) = if error.is_denied() {
            (
                Reason::GeneratorToken,
                format!(
                    "Vault at {address} does not take the generator token ({error}): put a good one into {}, for example with `vaulttmpfs bootstrap`",
                    self.token_path.display()
                ),
            )
        } else if error.is_sealed() {
            (
                Reason::VaultSealed,
                format!("Vault at {address} is sealed or in maintenance ({error}): unseal it"),
            )
        } else if error.is_throttled() {
            (
                Reason::VaultBusy,
                format!("Vault at {address} asks to come later ({error}): is a quota too small?"),
            )
        } else {
            match error {
                VaultError::NoConnection(cause) if cause.contains("certificate") => (
                    Reason::VaultUnreachable,
                    format!(
                        "Vault's certificate at {address} is not trusted ({error}): does VAULT_CACERT or VAULT_CAPATH name the CA that signed it, and is the certificate for that host?"
                    ),
                ),
                VaultError::NoConnection(_) => (
                    Reason::VaultUnreachable,
                    format!(
                        "Vault at {address} cannot be reached ({error}): is VAULT_ADDR right, and is Vault running?"
                    ),
                ),
                VaultError::TimedOut(_) => (
                    Reason::VaultUnreachable,
                    format!(
                        "Vault at {address} does not answer ({error}): is it overloaded, or VAULT_CLIENT_TIMEOUT too short?"
                    ),
                ),
                VaultError::Redirected(_) => (
                    Reason::VaultFailed,
                    format!(
                        "Vault at {address} answers with {error}: name the active node in VAULT_ADDR, or its host in VAULTTMPFS_REDIRECT_HOSTS"
                    ),
                ),
                _ => (
                    Reason::VaultFailed,
                    format!(
                        "Vault at {address} failed ({error}): see Vault's log; is something else listening there?"
                    ),
                ),
            }
        };
        Failure::new(reason, message)
    }

    async fn establish(&self) -> Result<Live, Failure> {
        let token = self.read_token()?;
        let transport = client::build(&self.vault)
            .map_err(|problem| Failure::new(Reason::BadSettings, problem))?;
        let health = self.healthy(&transport).await?;
        let mut live = Live {
            transport,
            token,
            generator: Generator::default(),
            health,
        };
        live.generator = live
            .transport
            .lookup_self(&self.headers(&live))
            .await
            .map_err(|error| self.failure(&error))?;
        Ok(live)
    }

    /// Keeps the connection warm until the session is broken.
    async fn stay(&self, live: &Live) -> Failure {
        loop {
            let doubted = tokio::select! {
                () = tokio::time::sleep(KEEP_WARM) => false,
                () = self.doubted.notified() => true,
            };
            if let Err(failure) = self.healthy(&live.transport).await {
                return failure;
            }
            if doubted {
                match live.transport.lookup_self(&self.headers(live)).await {
                    Err(error) => return self.failure(&error),
                    // Doubts come with each failed mount: one look a second is enough.
                    Ok(_) => tokio::time::sleep(PAUSE_WHEN_NEEDED).await,
                }
            }
        }
    }

    async fn healthy(&self, transport: &Transport) -> Result<Health, Failure> {
        let health = transport
            .health()
            .await
            .map_err(|error| self.failure(&error))?;
        if health.sealed || !health.initialized {
            let state = if health.initialized {
                "sealed: unseal it"
            } else {
                "not initialised"
            };
            let message = format!("Vault at {} is {state}", self.address());
            return Err(Failure::new(Reason::VaultSealed, message));
        }
        Ok(health)
    }

    fn headers<'a>(&'a self, live: &'a Live) -> Headers<'a> {
        Headers {
            token: Some(&live.token),
            namespace: self.vault.namespace.as_deref(),
            wrap_ttl: None,
        }
    }

    fn read_token(&self) -> Result<SecretString, Failure> {
        read_token(&self.token_path).map_err(|problem| {
            let message = format!(
                "no generator token in {}: {problem}; make one with `vaulttmpfs bootstrap`, or write it there",
                self.token_path.display()
            );
            Failure::new(Reason::GeneratorToken, message)
        })
    }

    /// Tries that a caller waits for before it gives up for this reason.
    fn patience(&self, failure: &Failure) -> u64 {
        match failure.reason {
            Reason::VaultUnreachable | Reason::VaultBusy => 1 + u64::from(self.vault.max_retries),
            _ => 1,
        }
    }

    fn publish(&self, standing: Standing, failed: u64) {
        self.state.send_modify(|state| {
            state.standing = standing;
            state.failed += failed;
        });
    }

    /// Says a failure once, not at each try.
    fn say(&self, failure: &Failure) {
        let known =
            matches!(&self.state.borrow().standing, Standing::Degraded(known) if known == failure);
        if !known {
            tracing::warn!(reason = failure.reason.word(), "not ready: {failure}");
        }
    }
}

/// Why background work failed.
#[derive(Debug)]
pub enum BackgroundError {
    /// The session is not ready.
    NotReady,
    /// Vault did not do it, or did not say so.
    Vault(VaultError),
}

impl From<VaultError> for BackgroundError {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

/// Why a token was not created.
pub enum CreateError {
    /// The caller's time was over before the call could be sent.
    NoPlace,
    /// Vault did not create it, or did not say so.
    Vault(VaultError),
}

/// Reads the generator token: one line.
fn read_token(path: &Path) -> Result<SecretString, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_TOKEN + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() as u64 > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it is not a token: one line of letters, digits and signs is expected".into());
    }
    Ok(SecretString::from(token))
}

impl Live {
    /// Is this policy the generator token's own, which no pod gets?
    #[must_use]
    pub fn is_own_policy(&self, policy: &str) -> bool {
        policy != "default" && self.generator.policies.iter().any(|own| own == policy)
    }
}
