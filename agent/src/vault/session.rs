//! The session with Vault: the generator token, a warm connection, and how Vault is.
//!
//! One task, the [`super::keeper`], makes the session and sees that it stays: whoever wants to call
//! Vault waits for it, within bounds. A mount never finds a cold connection that was warm before,
//! nor looks the generator token up itself.

use super::calls::{CreateToken, Generator, Health, Looked, Minted, Renewal, Role};
use super::error::VaultError;
use super::gate::{Gate, Place};
use super::lease::Lease;
use super::rights::{Findings, Needs};
use super::transport::{Headers, Transport};
use super::trouble::trouble;
use crate::clock;
use crate::config::{Settings, VaultSettings};
use crate::failure::{Failure, Reason};
use crate::metrics::Metrics;
use crate::options::{Delivery, RoleName};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// The first and the longest pause between two tries to make the session.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(30));

/// What was seen so long ago still holds for who asks how the agent is.
const A_MOMENT: Duration = Duration::from_secs(5);

/// So long nothing is asked in the background after a 429 that names no time.
const THROTTLED: Duration = Duration::from_secs(1);

/// That Vault asks for fewer calls is said so often at most.
const SAY_THROTTLED: Duration = Duration::from_secs(600);

/// An admin's wish for another generator token, to be answered.
pub(super) struct Reload {
    /// The token, where it was handed over: else the agent reads it itself.
    pub(super) token: Option<SecretString>,
    pub(super) answer: oneshot::Sender<Result<(), Failure>>,
}

/// A token that has served.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) token: SecretString,
    /// Root handed it over: what the agent itself can read is older.
    pub(super) handed_over: bool,
}

/// The one session with Vault.
pub struct Session {
    pub(super) vault: VaultSettings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) token_path: PathBuf,
    pub(super) token_credential: Option<PathBuf>,
    pub(super) allow_root: bool,
    /// What the generator token must be able to do.
    pub(super) needs: Needs,
    gate: Gate,
    pub(super) state: watch::Sender<State>,
    /// Vault as the keeper saw it last.
    pub(super) sight: Mutex<Sight>,
    /// When the keeper last looked at all: milliseconds on `CLOCK_BOOTTIME`, 0 for never.
    pub(super) looked: watch::Sender<u64>,
    /// Someone waits for the session.
    pub(super) needed: Notify,
    /// Something went wrong that may mean more than one failed call.
    pub(super) doubted: Notify,
    /// What is to be said of the session may have changed.
    pub(super) stirred: Notify,
    wanted: mpsc::Sender<Reload>,
    pub(super) reloads: tokio::sync::Mutex<mpsc::Receiver<Reload>>,
    /// The last token that served: the file may be gone or cut short when it is needed again.
    pub(super) known: Mutex<Option<Known>>,
    /// A token that was handed over and could not be tried yet.
    pub(super) untried: Mutex<Option<SecretString>>,
    pub(super) findings: Mutex<Findings>,
    /// What the settings allow though it is doubtful.
    doubts: Vec<String>,
    /// When it was said last that Vault asks for fewer calls.
    throttled: Mutex<Option<Instant>>,
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

/// Vault as it was seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// It was not asked yet.
    #[default]
    NotAsked,
    /// It gave no answer, or none that says how it is.
    NoAnswer,
    /// It said so.
    Answered(Health),
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) standing: Standing,
    /// Failed tries to make the session, since the start.
    pub(super) failed: u64,
    /// The generator token's when the last session broke.
    pub(super) lease: Option<Lease>,
}

/// A session that works.
pub struct Live {
    pub(super) transport: Transport,
    pub(super) token: SecretString,
    pub(super) handed_over: bool,
    /// The generator token as Vault knows it.
    pub generator: Generator,
    /// Vault as it was when the session was made.
    pub health: Health,
    pub(super) lease: Mutex<Lease>,
}

/// The generator token's life, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// What it has left; nothing where it never ends.
    pub ttl: Option<u64>,
    /// Its period, where it has one, as Vault grants it.
    pub period: Option<u64>,
    /// When it is renewed next; nothing where it cannot be.
    pub next_renewal: Option<u64>,
}

impl Session {
    /// A session that is not made yet: [`Session::keep`] makes it.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        let (wanted, reloads) = mpsc::channel(1);
        Arc::new(Self {
            vault: settings.vault.clone(),
            metrics,
            token_path: settings.generator_token_path.clone(),
            token_credential: settings.generator_token_credential.clone(),
            allow_root: settings.allow_root_token,
            needs: Needs::of(settings),
            gate: Gate::new(
                settings.vault.rate_limit.as_ref(),
                &settings.lifecycle.max_rate,
            ),
            state: watch::Sender::new(State {
                standing: Standing::Starting,
                failed: 0,
                lease: None,
            }),
            sight: Mutex::default(),
            looked: watch::Sender::new(0),
            needed: Notify::new(),
            doubted: Notify::new(),
            stirred: Notify::new(),
            wanted,
            reloads: tokio::sync::Mutex::new(reloads),
            known: Mutex::default(),
            untried: Mutex::default(),
            findings: Mutex::default(),
            doubts: settings.warnings.clone(),
            throttled: Mutex::default(),
        })
    }

    /// How the session is now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.state.borrow().standing.clone()
    }

    /// Vault as it was seen last.
    #[must_use]
    pub fn sight(&self) -> Sight {
        lock(&self.sight).clone()
    }

    /// Has the keeper look at Vault and the generator token, unless it did so a moment ago. Returns
    /// whether it was done within `patience`.
    pub async fn look_again(&self, patience: Duration) -> bool {
        let mut looked = self.looked.subscribe();
        let ago = clock::boottime_ms().saturating_sub(*looked.borrow_and_update());
        if ago < clock::millis(A_MOMENT) {
            return true;
        }
        match self.standing() {
            Standing::Ready(_) => self.doubt(),
            Standing::Degraded(_) | Standing::Starting => self.needed.notify_one(),
        }
        let done = tokio::time::timeout(patience, looked.changed()).await;
        done.is_ok()
    }

    /// Vault's address, as the settings name it.
    #[must_use]
    pub fn address(&self) -> &str {
        self.vault.address.as_str()
    }

    /// The generator token's life as Vault told it last: it goes on ending while Vault is away. Nothing
    /// before the first session.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        let state = self.state.borrow();
        match &state.standing {
            Standing::Ready(live) => Some(live.life()),
            Standing::Degraded(_) | Standing::Starting => state.lease.as_ref().map(Life::of),
        }
    }

    /// What is wrong with the generator token or the default role though calls can be made, and
    /// what to do: each a line.
    #[must_use]
    pub fn concerns(&self) -> Vec<String> {
        let mut concerns = lock(&self.findings).concerns.clone();
        if let Standing::Ready(live) = self.standing() {
            concerns.extend(lock(&live.lease).trouble.clone());
        }
        concerns
    }

    /// Waits until [`Self::standing`] or [`Self::concerns`] may be others.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// What works, but not as well as it could: each a line.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.doubts.clone();
        warnings.extend(lock(&self.findings).warnings.iter().cloned());
        warnings
    }

    /// The file that the agent reads the token from and follows, where systemd does not hand a copy over.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        match self.token_credential {
            None => Some(&self.token_path),
            Some(_) => None,
        }
    }

    /// Has the keeper take a token that was handed over, or that it reads itself, if it is good.
    ///
    /// # Errors
    /// It is not, or cannot be tried now: the token in use stays. One that was handed over is tried
    /// again as soon as Vault can be asked.
    pub async fn reload(&self, token: Option<SecretString>) -> Result<(), Failure> {
        let stopping = || Failure::new(Reason::Internal, "the agent is stopping");
        let (answer, outcome) = oneshot::channel();
        let reload = Reload { token, answer };
        self.wanted.send(reload).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
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

    /// Creates a token, and says when it was first asked for. The call is sent only before `deadline`;
    /// once sent, it is waited for.
    pub async fn create(
        &self,
        live: &Live,
        create: &CreateToken<'_>,
        deadline: Instant,
    ) -> Result<(Minted, Instant), CreateError> {
        let headers = Headers {
            wrap_ttl: match create.delivery {
                Delivery::Wrapped { ttl } => Some(ttl),
                Delivery::Unwrapped => None,
            },
            ..self.headers(live)
        };
        let (mut tries, mut asked) = (0, None);
        loop {
            let Ok(place) = tokio::time::timeout_at(deadline, self.gate.enter()).await else {
                return Err(CreateError::NoPlace);
            };
            let asked = *asked.get_or_insert_with(Instant::now);
            let error = match live.transport.create(create, &headers).await {
                Ok(minted) => return Ok((minted, asked)),
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

    /// Waits for a place for one call that no pod waits for. None where calls cannot be made.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let place = self.gate.enter_in_background().await;
        match self.standing() {
            Standing::Ready(live) => Some(Turn {
                session: self,
                live,
                _place: place,
            }),
            _ => None,
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
        let _place = self.gate.enter().await;
        match live.transport.lookup_self(&self.headers(live)).await {
            Err(error) if error.is_denied() && !self.is_known(live).await => {
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

    /// Renews the generator token now, and says how long it lives then.
    ///
    /// # Errors
    /// It could not be renewed now, and why.
    pub async fn renew(&self) -> Result<Life, Failure> {
        let live = self.live().await?;
        let _place = self.gate.enter().await;
        self.renew_own(&live).await.inspect_err(|_| self.doubt())?;
        let trouble = lock(&live.lease).trouble.clone();
        match trouble {
            Some(why) => Err(Failure::new(Reason::VaultFailed, why)),
            None => Ok(live.life()),
        }
    }

    fn say_throttled(&self, error: &VaultError) {
        let mut said = lock(&self.throttled);
        if said.is_none_or(|at| at.elapsed() >= SAY_THROTTLED) {
            *said = Some(Instant::now());
            tracing::warn!(
                "Vault at {} takes fewer renewals and revocations than come ({error}): they are tried again, more slowly; is a quota too small, or VAULTTMPFS_MAX_VAULT_RATE too large for it?",
                self.address()
            );
        }
    }

    /// What a failed call means, for whoever waited for it.
    #[must_use]
    pub fn failure(&self, error: &VaultError) -> Failure {
        let address = self.address();
        if !error.is_denied() {
            return trouble(address, error);
        }
        Failure::new(
            Reason::GeneratorToken,
            format!(
                "Vault at {address} does not take the generator token ({error}): put a good one into {}, for example with `vaulttmpfs bootstrap`",
                self.token_path.display()
            ),
        )
    }

    pub(super) fn headers<'a>(&'a self, live: &'a Live) -> Headers<'a> {
        Headers {
            token: Some(&live.token),
            namespace: self.vault.namespace.as_deref(),
            wrap_ttl: None,
        }
    }

    /// Tries that a caller waits for before it gives up for this reason.
    fn patience(&self, failure: &Failure) -> u64 {
        match failure.reason {
            Reason::VaultUnreachable | Reason::VaultBusy => 1 + u64::from(self.vault.max_retries),
            _ => 1,
        }
    }
}

/// Why a token was not created.
pub enum CreateError {
    /// The caller's time was over before the call could be sent.
    NoPlace,
    /// Vault did not create it, or did not say so.
    Vault(VaultError),
}

/// The place for one call in the background, with the session that it is made in.
pub struct Turn<'a> {
    session: &'a Session,
    live: Arc<Live>,
    _place: Place<'a>,
}

impl Turn<'_> {
    /// Renews a volume's token.
    pub async fn renew(self, accessor: &SecretString) -> Result<Renewal, VaultError> {
        let answer = self.live.transport.renew(accessor, &self.headers()).await;
        self.heed(answer).await
    }

    /// Ends a volume's token, or its wrapping token.
    pub async fn revoke(self, accessor: &SecretString) -> Result<(), VaultError> {
        let answer = self.live.transport.revoke(accessor, &self.headers()).await;
        self.heed(answer).await
    }

    /// Looks a volume's token, or its wrapping token, up.
    pub async fn lookup(self, accessor: &SecretString) -> Result<Looked, VaultError> {
        let answer = self.live.transport.lookup(accessor, &self.headers()).await;
        self.heed(answer).await
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.live.transport
    }

    pub(super) fn headers(&self) -> Headers<'_> {
        self.session.headers(&self.live)
    }

    /// Vault asks for fewer calls: all that no pod waits for steps back.
    pub(super) async fn heed<T>(&self, answer: Result<T, VaultError>) -> Result<T, VaultError> {
        if let Err(error) = &answer
            && error.is_throttled()
        {
            let pause = error.retry_after().unwrap_or(THROTTLED);
            self.session.gate.pause_background(pause).await;
            self.session.say_throttled(error);
        }
        answer
    }
}

/// A lock whose holder never leaves it half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// How long the generator token lives.
    #[must_use]
    pub fn life(&self) -> Life {
        Life::of(&lock(&self.lease))
    }
}

impl Life {
    fn of(lease: &Lease) -> Self {
        let now = clock::boottime_ms();
        let seconds = |at: u64| at.saturating_sub(now) / 1000;
        Self {
            ttl: lease.expires.map(seconds),
            period: lease.period,
            next_renewal: lease.due.map(seconds),
        }
    }
}
