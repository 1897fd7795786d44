//! The keeper: makes the session, keeps the generator token alive, takes another one.

use super::calls::{Generator, Health};
use super::error::{VaultError, Verdict};
use super::lease::{Lease, jittered};
use super::session::{Known, Live, PAUSES, Reload, Session, Sight, Standing, lock};
use super::token_file::{self, Watch};
use super::transport::Transport;
use super::trouble::asleep;
use crate::config::variables::GENERATOR_TOKEN_CREDENTIAL;
use crate::failure::{Failure, Reason};
use crate::metrics::Outcome;
use crate::{clock, timer};
use secrecy::{ExposeSecret, SecretString};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a connection stays unused at most before the keeper uses it: below the idle timeout of
/// common servers and load balancers for Vault (300 s and more), and seldom enough to cost nothing.
const KEEP_WARM: Duration = Duration::from_secs(240);

/// A caller in need shortens the keeper's pause to this at most.
const PAUSE_WHEN_NEEDED: Duration = Duration::from_secs(1);

/// A file that is being written is read when it has been left alone for so long.
const WRITTEN: Duration = Duration::from_millis(200);

/// The token's directory is looked for so often where it is not there.
const LOOK_FOR_DIRECTORY: Duration = Duration::from_secs(60);

/// What the keeper is woken for.
enum Wake {
    Warm,
    Doubt,
    Renewal,
    End,
    Reload(Reload),
}

impl Session {
    /// Makes the session, keeps it warm and its token alive, makes it anew, and takes up a new token.
    pub async fn keep(&self) -> Infallible {
        tokio::join!(self.keep_live(), self.follow_token_file()).0
    }

    async fn keep_live(&self) -> Infallible {
        let mut reloads = self.reloads.lock().await;
        let mut pause = PAUSES.0;
        let mut attempt = self.establish().await;
        loop {
            let failure = match attempt {
                Ok(live) => {
                    pause = PAUSES.0;
                    self.stay(live, &mut reloads).await
                }
                Err(failure) => failure,
            };
            self.say(&failure);
            self.publish(Standing::Degraded(failure), 1);
            attempt = tokio::select! {
                () = self.rest(pause) => self.establish().await,
                Some(reload) = reloads.recv() => {
                    let attempt = self.wanted_token(reload.token).await;
                    // Whoever asked may have gone.
                    let _ = reload.answer.send(attempt.as_ref().map(drop).map_err(Clone::clone));
                    attempt
                }
            };
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.needed.notified() => {
                tokio::time::sleep(pause.min(PAUSE_WHEN_NEEDED)).await;
            }
        }
    }

    /// A session with the newest token; where that is no good, with the one that served last.
    async fn establish(&self) -> Result<Live, Failure> {
        let untried = lock(&self.untried).clone();
        if untried.is_some() {
            match self.wanted_token(untried).await {
                Err(failure) if failure.reason == Reason::GeneratorToken => {
                    tracing::warn!(reason = failure.reason.word(), "{failure}");
                }
                attempt => return attempt,
            }
        }
        let Some(known) = lock(&self.known).clone() else {
            return self.try_token(self.read_token()?).await;
        };
        let attempt = match self.read_token() {
            _ if known.handed_over => return self.try_known(known).await,
            Ok(token) if same(&token, &known.token) => return self.try_token(token).await,
            Ok(token) => self.candidate(token).await,
            Err(failure) => Err(failure),
        };
        match attempt {
            Err(failure) if failure.reason == Reason::GeneratorToken => {
                let fallback = self.try_token(known.token).await;
                if fallback
                    .as_ref()
                    .is_err_and(|it| it.reason == failure.reason)
                {
                    *lock(&self.known) = None;
                }
                fallback.map_err(|_| failure)
            }
            attempt => attempt,
        }
    }

    /// A session with the token that was handed over and served last. One that Vault does not know
    /// any more is forgotten: then what the agent itself can read counts again.
    async fn try_known(&self, known: Known) -> Result<Live, Failure> {
        let attempt = self.try_token(known.token).await;
        if let Err(failure) = &attempt
            && failure.reason == Reason::GeneratorToken
        {
            *lock(&self.known) = None;
        }
        Ok(Live {
            handed_over: known.handed_over,
            ..attempt?
        })
    }

    /// A session with the token that an admin wants: one that was handed over, or else the newest of
    /// those that the agent has. What cannot be tried now is tried later.
    async fn wanted_token(&self, handed_over: Option<SecretString>) -> Result<Live, Failure> {
        let Some(token) = handed_over else {
            let known = lock(&self.known).clone();
            return match known {
                Some(known) if known.handed_over => self.try_known(known).await,
                _ => self.candidate(self.read_token()?).await,
            };
        };
        let attempt = self.candidate(token.clone()).await;
        *lock(&self.untried) = match &attempt {
            Err(failure) if failure.reason != Reason::GeneratorToken => Some(token),
            _ => None,
        };
        Ok(Live {
            handed_over: true,
            ..attempt?
        })
    }

    /// A session with a token that must be able to create tokens. One that lacks a right is no good: a
    /// token that has served is kept in mind, since it may be given the right back.
    pub(super) async fn candidate(&self, token: SecretString) -> Result<Live, Failure> {
        let tried = self.try_token(token).await;
        let live = tried.map_err(|failure| match failure.reason {
            Reason::VaultRefused => Failure::new(Reason::GeneratorToken, failure.message),
            _ => failure,
        })?;
        self.may_create(&live).await?;
        Ok(live)
    }

    async fn try_token(&self, token: SecretString) -> Result<Live, Failure> {
        let transport = Transport::new(&self.vault, Arc::clone(&self.metrics))
            .map_err(|problem| Failure::new(Reason::BadSettings, problem))?;
        let health = self.healthy(&transport).await?;
        let mut live = Live {
            transport,
            token,
            handed_over: false,
            generator: Generator::default(),
            health,
            lease: Mutex::new(Lease::of(&Generator::default(), 0, 0)),
        };
        live.generator = match live.transport.lookup_self(&self.headers(&live)).await {
            Ok(generator) => generator,
            Err(error) => return Err(self.not_looked_up(&live, &error).await),
        };
        self.refuse_root(&live.generator)?;
        *lock(&live.lease) = Lease::of(&live.generator, clock::boottime_ms(), random());
        Ok(live)
    }

    /// A token that Vault knows, but that may not look itself up, is told from a bad one.
    async fn not_looked_up(&self, live: &Live, error: &VaultError) -> Failure {
        if error.is_denied() && self.is_known(live).await {
            return Failure::new(
                Reason::VaultRefused,
                format!(
                    "Vault at {} knows the generator token, but does not let it look itself up ({error}): make it with the policy `default`, or add to its policy: path \"auth/token/lookup-self\" {{ capabilities = [\"read\"] }}",
                    self.address()
                ),
            );
        }
        self.failure(error)
    }

    /// Whether Vault knows a token that may not look itself up: then it may read its role still, or hears
    /// that there is none. An answer that says nothing of the token is no reason to give it up.
    pub(super) async fn is_known(&self, live: &Live) -> bool {
        let headers = self.headers(live);
        match live.transport.role(&self.needs.role, &headers).await {
            Ok(_) => true,
            Err(error) => !error.is_denied(),
        }
    }

    fn refuse_root(&self, generator: &Generator) -> Result<(), Failure> {
        if self.allow_root || !generator.is_root() {
            return Ok(());
        }
        Err(Failure::new(
            Reason::GeneratorToken,
            format!(
                "the generator token in {} is a root token, which may do everything: put one there that may only create pods' tokens, for example with `vaulttmpfs bootstrap` (for a demonstration, VAULTTMPFS_ALLOW_ROOT_TOKEN=true allows it)",
                self.token_path.display()
            ),
        ))
    }

    /// Calls can be made from now on; what the token may do is looked at behind them.
    fn take(&self, live: Live) -> Arc<Live> {
        *lock(&self.known) = Some(Known {
            token: live.token.clone(),
            handed_over: live.handed_over,
        });
        tracing::info!(
            vault = self.address(),
            version = live.health.version,
            policies = live.generator.policies.join(","),
            "ready: Vault knows the generator token"
        );
        let live = Arc::new(live);
        self.publish(Standing::Ready(Arc::clone(&live)), 0);
        live
    }

    /// Keeps the connection warm and the token alive until the session is broken.
    async fn stay(&self, live: Live, reloads: &mut mpsc::Receiver<Reload>) -> Failure {
        let mut live = self.take(live);
        let mut settled = self.inspect(&live).await;
        let mut idle_until = Instant::now() + keep_warm(random());
        loop {
            let wake = self.wake(&live, idle_until, reloads).await;
            let doubted = matches!(wake, Wake::Doubt);
            let kept = match wake {
                Wake::Warm => {
                    idle_until = Instant::now() + keep_warm(random());
                    let serves = self.look_while_idle(&live).await;
                    let untried = lock(&self.untried).clone();
                    if serves.is_ok()
                        && untried.is_some()
                        && let Ok(other) = self.wanted_token(untried).await
                    {
                        live = self.take(other);
                        settled = false;
                    }
                    serves
                }
                Wake::Doubt => {
                    // A right may have been taken away.
                    settled = false;
                    self.resolve_doubt(&live).await
                }
                Wake::Renewal => self.renew_own(&live).await,
                Wake::End => self.look_at_the_end(&live).await,
                Wake::Reload(reload) => {
                    if let Some(other) = self.exchange(reload).await {
                        live = self.take(other);
                        settled = false;
                    }
                    Ok(())
                }
            };
            if let Err(failure) = kept {
                return failure;
            }
            if !settled {
                settled = self.inspect(&live).await;
            }
            self.looked.send_replace(clock::boottime_ms());
            if doubted {
                // Doubts come with each failed mount: one look a second is enough.
                tokio::time::sleep(PAUSE_WHEN_NEEDED).await;
            }
        }
    }

    async fn wake(
        &self,
        live: &Live,
        idle_until: Instant,
        reloads: &mut mpsc::Receiver<Reload>,
    ) -> Wake {
        let next = || lock(&live.lease).next();
        let moment = async {
            // An admin may have had it renewed meanwhile.
            while let Some(at) = next() {
                timer::sleep_until(at).await;
                if next() == Some(at) {
                    return match lock(&live.lease).due {
                        Some(_) => Wake::Renewal,
                        None => Wake::End,
                    };
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            () = tokio::time::sleep_until(idle_until) => Wake::Warm,
            () = self.doubted.notified() => Wake::Doubt,
            wake = moment => wake,
            Some(reload) = reloads.recv() => Wake::Reload(reload),
        }
    }

    /// The one call that keeps an idle connection warm shows whether Vault still knows the token, too.
    /// Where it fails in another way, what Vault says of itself counts.
    async fn look_while_idle(&self, live: &Live) -> Result<(), Failure> {
        match self.look_up_own(live).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_denied() => self.denied(live, &error).await,
            Err(_) => self.healthy(&live.transport).await.map(drop),
        }
    }

    async fn resolve_doubt(&self, live: &Live) -> Result<(), Failure> {
        self.healthy(&live.transport).await?;
        self.look_at_own(live).await
    }

    /// A token that shows no new end is over, whatever the reason: no session goes on with it.
    async fn look_at_the_end(&self, live: &Live) -> Result<(), Failure> {
        let looked = self.look_up_own(live).await;
        looked.map_err(|error| self.failure(&error))
    }

    async fn look_at_own(&self, live: &Live) -> Result<(), Failure> {
        match self.look_up_own(live).await {
            Err(error) if error.is_denied() => self.denied(live, &error).await,
            looked => looked.map_err(|error| self.failure(&error)),
        }
    }

    /// A session is not broken for the look-up alone: volumes' tokens are kept alive by a token that may do
    /// that, whatever else it may not do any more.
    async fn denied(&self, live: &Live, error: &VaultError) -> Result<(), Failure> {
        if self.is_known(live).await {
            return Ok(());
        }
        Err(self.failure(error))
    }

    async fn look_up_own(&self, live: &Live) -> Result<(), VaultError> {
        let generator = live.transport.lookup_self(&self.headers(live)).await?;
        lock(&live.lease).looked(&generator, clock::boottime_ms());
        Ok(())
    }

    /// Renews the generator token. Only a token that Vault does not know any more breaks the
    /// session: everything else is tried again.
    pub(super) async fn renew_own(&self, live: &Live) -> Result<(), Failure> {
        let outcome = self.try_to_renew_own(live).await;
        self.stirred.notify_one();
        outcome
    }

    async fn try_to_renew_own(&self, live: &Live) -> Result<(), Failure> {
        let error = match live.transport.renew_self(&self.headers(live)).await {
            Ok(renewal) => {
                lock(&live.lease).renewed(renewal, clock::boottime_ms());
                self.metrics.generator_renewed(Outcome::Done, None);
                tracing::debug!("the generator token is renewed");
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is_denied() {
            self.look_at_own(live).await?;
        }
        let why = renewal_trouble(&error);
        let mut lease = lock(&live.lease);
        if lease.trouble.as_ref() != Some(&why) {
            tracing::warn!("{why}");
        }
        match error.verdict() {
            Verdict::Final | Verdict::Gone => {
                self.metrics.generator_renewed(Outcome::Refused, Some(&why));
                lease.final_failure(why);
            }
            Verdict::Denied | Verdict::Later => {
                self.metrics.generator_renewed(Outcome::Later, Some(&why));
                lease.failed(why, clock::boottime_ms());
            }
        }
        Ok(())
    }

    /// The session with another token, if that is good; whoever asked hears of it either way.
    async fn exchange(&self, reload: Reload) -> Option<Live> {
        let attempt = self.wanted_token(reload.token).await;
        let outcome = attempt.as_ref().map(drop).map_err(|failure| {
            Failure::new(
                failure.reason,
                format!("the token in use stays: {}", failure.message),
            )
        });
        if let Err(failure) = &outcome {
            tracing::warn!(reason = failure.reason.word(), "{failure}");
        }
        // Whoever asked may have gone.
        let _ = reload.answer.send(outcome);
        attempt.ok()
    }

    async fn healthy(&self, transport: &Transport) -> Result<Health, Failure> {
        let answer = transport.health().await;
        *lock(&self.sight) = match &answer {
            Ok(health) => Sight::Answered(health.clone()),
            Err(_) => Sight::NoAnswer,
        };
        let health = answer.map_err(|error| self.failure(&error))?;
        if health.sealed || !health.initialized {
            return Err(asleep(self.address(), health.initialized));
        }
        Ok(health)
    }

    fn read_token(&self) -> Result<SecretString, Failure> {
        if let Some(credential) = &self.token_credential {
            return token_file::read(credential)
                .or_else(|problem| token_file::read(&self.token_path).map_err(|_| problem))
                .map_err(|problem| {
                    let message = format!(
                        "no generator token: {problem} (credential `{GENERATOR_TOKEN_CREDENTIAL}`); put one into {} and reload the service",
                        self.token_path.display()
                    );
                    Failure::new(Reason::GeneratorToken, message)
                });
        }
        token_file::read(&self.token_path).map_err(|problem| {
            let message = format!(
                "no generator token in {}: {problem}; make one with `vaulttmpfs bootstrap`, or write it there",
                self.token_path.display()
            );
            Failure::new(Reason::GeneratorToken, message)
        })
    }

    fn publish(&self, standing: Standing, failed: u64) {
        self.state.send_modify(|state| {
            if let Standing::Ready(live) = &state.standing {
                state.lease = Some(lock(&live.lease).clone());
            }
            state.standing = standing;
            state.failed += failed;
        });
        self.looked.send_replace(clock::boottime_ms());
        self.stirred.notify_one();
    }

    /// Says a failure once, not at each try.
    fn say(&self, failure: &Failure) {
        let known =
            matches!(&self.state.borrow().standing, Standing::Degraded(known) if known == failure);
        if !known {
            tracing::warn!(
                news = true,
                reason = failure.reason.word(),
                "not ready: {failure}"
            );
        }
    }

    /// Takes a token up that appears in the file. Never fails: the file is read anyhow when the
    /// session is made, and `vaulttmpfs reload` remains.
    async fn follow_token_file(&self) -> Infallible {
        let Some(directory) = self.token_file().and_then(Path::parent) else {
            return std::future::pending().await;
        };
        loop {
            if let Err(error) = self.follow_changes(directory).await {
                tracing::debug!("{} is not watched: {error}", directory.display());
            }
            tokio::time::sleep(LOOK_FOR_DIRECTORY).await;
        }
    }

    async fn follow_changes(&self, directory: &Path) -> std::io::Result<()> {
        let watch = Watch::on(directory)?;
        loop {
            // Once at the begin: it may have changed while nobody watched.
            self.consider_file().await;
            let there = watch.changed().await?;
            tokio::time::sleep(WRITTEN).await;
            if !there || !watch.drain()? {
                return Ok(());
            }
        }
    }

    /// A file that is gone, empty or no token is left alone: someone is at work on it.
    async fn consider_file(&self) {
        let Ok(token) = token_file::read(&self.token_path) else {
            return;
        };
        let known = lock(&self.known).clone();
        // Without one, the keeper itself is about to read the file, or soon will be.
        let Some(known) = known else {
            self.needed.notify_one();
            return;
        };
        if !same(&token, &known.token) && self.reload(None).await.is_ok() {
            tracing::info!("the generator token's new file is in use");
        }
    }
}

/// How long the keeper waits before it uses the connection: three quarters to all of the longest
/// time, so that nodes that started together do not call together for ever.
#[must_use]
pub fn keep_warm(random: u8) -> Duration {
    Duration::from_millis(jittered(clock::millis(KEEP_WARM), random))
}

fn random() -> u8 {
    let mut random = [0];
    // Without one everything is done all the same, only together with others.
    let _ = getrandom::fill(&mut random);
    random[0]
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn renewal_trouble(error: &VaultError) -> String {
    let what_to_do = if error.is_denied() {
        "add to its policy: path \"auth/token/renew-self\" { capabilities = [\"update\"] }"
    } else if error.verdict() == Verdict::Later {
        "it is tried again"
    } else {
        "put another one in place, for example with `vaulttmpfs bootstrap`"
    };
    format!("the generator token could not be renewed ({error}): {what_to_do}")
}
