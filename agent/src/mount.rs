//! One mount: from a pod's options to the files of its volume.

use crate::clock::{self, Moment};
use crate::config::{CaError, Settings};
use crate::failure::{Failure, Reason};
use crate::files::{self, Credential, DeliveredFiles};
use crate::metrics::{Metrics, Stages};
use crate::options::{self, Delivery, MAX_POLICIES, TokenRequest, VolumeRequest};
use crate::vault::session::{CreateError, Live};
use crate::vault::{CreateToken, Minted, Role, Roles, Session, Standing, VaultError};
use crate::volumes::{Accessor, Kind, Origin, Record, State, Volumes, Wrapping};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use vaulttmpfs_api::{MountRequest, VolumeAnswer, VolumeId};

/// The longest that a mount takes, its wait for a place included. The pod's wait is 2 min 3 s.
pub const BOUND: Duration = Duration::from_secs(100);

/// What is kept of the caller's time for the answer and the mount itself.
const RESERVE: Duration = Duration::from_millis(500);

/// Makes volumes.
pub struct Mounter {
    settings: Settings,
    delivered: Mutex<Arc<DeliveredFiles>>,
    session: Arc<Session>,
    roles: Arc<Roles>,
    volumes: Arc<Volumes>,
    metrics: Arc<Metrics>,
}

/// A mount that has come so far that its volume has an id.
struct Attempt<'a> {
    mounter: &'a Mounter,
    request: &'a VolumeRequest,
    id: VolumeId,
    attach_by: u64,
    begun: Instant,
    deadline: Instant,
    mount_namespace: Option<u64>,
}

impl Mounter {
    /// Joins what a mount needs.
    #[must_use]
    pub fn new(
        settings: Settings,
        delivered: DeliveredFiles,
        session: Arc<Session>,
        volumes: Arc<Volumes>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            settings,
            delivered: Mutex::new(Arc::new(delivered)),
            session,
            roles: Arc::default(),
            volumes,
            metrics,
        }
    }

    /// Does before the next mount what it would have to wait for.
    pub fn prepare(&self) {
        self.volumes.prepare();
    }

    /// Reads the default role before the first mount needs it, as soon as Vault can be asked.
    pub async fn warm(&self) {
        self.prepare();
        self.session.until_ready().await;
        self.roles
            .refresh(&self.settings.pod_defaults.role, &self.session);
    }

    /// Reads the files that pods get beside their token anew. One that cannot be read changes
    /// nothing.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn refresh(&self) -> Result<(), CaError> {
        let delivered = Arc::new(self.settings.delivered.files()?);
        *self
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = delivered;
        Ok(())
    }

    fn delivered(&self) -> Arc<DeliveredFiles> {
        Arc::clone(
            &self
                .delivered
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Whether a volume could be recorded now, by a try.
    ///
    /// # Errors
    /// It could not: a mount would fail so.
    pub fn could_record(&self) -> Result<(), Failure> {
        self.volumes.could_record().map_err(journal)
    }

    /// When a mount must be over whose caller has this much time left.
    #[must_use]
    pub fn deadline(left_ms: u64) -> Instant {
        let left = Duration::from_millis(left_ms).saturating_sub(RESERVE);
        Instant::now() + left.min(BOUND)
    }

    /// The token role that a request asks for, whether or not it is a good one.
    #[must_use]
    pub fn role_of<'a>(&'a self, request: &'a MountRequest<'_>) -> &'a str {
        let asked = request.options.get(options::ROLE).map(AsRef::as_ref);
        asked
            .filter(|role| !role.is_empty())
            .unwrap_or(self.settings.pod_defaults.role.as_str())
    }

    /// Serves one mount. Must run to its end whatever becomes of the caller: a token that was
    /// asked for is accounted for.
    ///
    /// # Errors
    /// Nothing is left but, at most, a revocation owed.
    pub async fn mount(
        &self,
        request: &MountRequest<'_>,
    ) -> Result<VolumeAnswer<'static>, Failure> {
        let begun = Instant::now();
        let deadline = Self::deadline(request.left_ms);
        let mount_namespace = request.mount_namespace;
        let attach_by =
            clock::boottime_ms().saturating_add(request.left_ms.min(clock::millis(2 * BOUND)));
        let request = options::parse(
            &request.mount_dir,
            &request.options,
            &self.settings.pod_defaults,
        )
        .map_err(|errors| Failure::new(Reason::BadOptions, errors.to_string()))?;
        for warning in &request.warnings {
            tracing::warn!(
                pod = request.pod.name,
                namespace = request.pod.namespace,
                "{warning}"
            );
        }
        let id = self.volumes.begin(&request).map_err(journal)?;
        let attempt = Attempt {
            mounter: self,
            request: &request,
            id,
            attach_by,
            begun,
            deadline,
            mount_namespace,
        };
        attempt.run().await
    }
}

impl Drop for Attempt<'_> {
    /// Also where it panicked: the directory is free again.
    fn drop(&mut self) {
        self.mounter.volumes.over(self.id);
    }
}

impl Attempt<'_> {
    async fn run(&self) -> Result<VolumeAnswer<'static>, Failure> {
        let token = &self.request.token;
        let session = &self.mounter.session;
        let live = tokio::time::timeout_at(self.deadline, session.live())
            .await
            .map_err(|_| self.too_late())??;
        let role = tokio::time::timeout_at(self.deadline, self.role(&live))
            .await
            .map_err(|_| self.too_late())??;
        let policies = self.policies(role.as_deref())?;
        if let Some(own) = policies
            .iter()
            .find(|policy| live.generator.is_own_policy(policy))
        {
            return Err(refused(own, "it is the generator token's own"));
        }
        let create = CreateToken {
            role: &token.role,
            policies,
            delivery: token.delivery,
            ttl: token.ttl,
            max_ttl: token.max_ttl,
            pod: &self.request.pod,
            node: &self.mounter.settings.node,
            cluster: self.mounter.settings.cluster.as_deref(),
        };
        let (minted, asked) = match session.create(&live, &create, self.deadline).await {
            Ok(made) => made,
            Err(CreateError::NoPlace) => return Err(self.too_late()),
            Err(CreateError::Vault(error)) => {
                return Err(self.refusal(&live, policies, &error).await);
            }
        };
        let answered = Instant::now();
        let record = self.record(&minted, policies, role.as_deref(), &live.health.cluster_id);
        let volumes = &self.mounter.volumes;
        if !volumes.minted(record).map_err(journal)? {
            let message =
                "the directory was unmounted, or mounted anew, while Vault made the token";
            return Err(Failure::new(Reason::Ended, message));
        }
        if role.is_none() {
            self.note_role();
        }
        let answer = self
            .answer(&minted)
            .inspect_err(|_| volumes.undelivered(self.id))?;
        self.mounter.metrics.mounted(Stages {
            queue: asked - self.begun,
            vault: answered - asked,
            reply: answered.elapsed(),
        });
        Ok(answer)
    }

    /// The token role, where the mount cannot do without knowing it. Elsewhere it is read behind
    /// the mount: one call to Vault a mount.
    async fn role(&self, live: &Live) -> Result<Option<Arc<Role>>, Failure> {
        let Mounter { roles, session, .. } = self.mounter;
        let token = &self.request.token;
        let name = &token.role;
        let what = if token.policies.is_empty() {
            "the pod names no policies (option vault/policies), and the role's allowed_policies cannot be read"
        } else if token.ttl.is_some() {
            "the pod asks for a vault/ttl, and whether the role ignores it cannot be read"
        } else if token.max_ttl.is_some() {
            "the pod asks for a vault/maxTTL, and what a renewal by the role gives cannot be read"
        } else if live.generator.has_identity() {
            "the generator token has an identity, and whether the role hands it on to pods cannot be read"
        } else {
            return Ok(roles.remembered(name, session));
        };
        let role = roles
            .get(name, session)
            .await
            .map_err(|error| self.unreadable_role(what, &error))?;
        if live.generator.has_identity() && !role.is_orphan() {
            let message = format!(
                "role `{name}` gives tokens that are the generator token's children, with its identity and that one's policies: set orphan=true on the role, or use a generator token without an identity"
            );
            return Err(Failure::new(Reason::RoleUnusable, message));
        }
        if token.ttl.is_some() && role.period().is_some() {
            let message = format!(
                "role `{name}` is periodic and would ignore vault/ttl: leave it out, or set vault/maxTTL, which such a role keeps"
            );
            return Err(Failure::new(Reason::RoleUnusable, message));
        }
        Ok(Some(role))
    }

    /// Reads the role behind the mount, and notes what it means for the volume.
    fn note_role(&self) {
        let (roles, session, volumes) = (
            Arc::clone(&self.mounter.roles),
            Arc::clone(&self.mounter.session),
            Arc::clone(&self.mounter.volumes),
        );
        let (token, id) = (self.request.token.clone(), self.id);
        tokio::spawn(async move {
            let name = &token.role;
            match roles.get(name, &session).await {
                Ok(role) => volumes.change(id, |record| learn(record, &token, &role)),
                Err(error) => tracing::debug!("role {name} could not be read: {error}"),
            }
        });
    }

    fn unreadable_role(&self, what: &str, error: &VaultError) -> Failure {
        let name = &self.request.token.role;
        if error.is_not_found() {
            return Failure::new(
                Reason::RoleUnusable,
                format!(
                    "{what}: Vault has no role `{name}` (404); create it, or name another in vault/role"
                ),
            );
        }
        if error.is_denied() {
            let or = if self.request.token.policies.is_empty() {
                "name the policies in vault/policies, or "
            } else {
                ""
            };
            return Failure::new(
                Reason::RoleUnusable,
                format!(
                    "{what} ({error}): {or}let the generator token's policy read `auth/token/roles/{name}`"
                ),
            );
        }
        let failure = self.mounter.session.failure(error);
        Failure::new(failure.reason, format!("{what}: {}", failure.message))
    }

    /// The policies to ask for: never none, for then Vault gives the generator token's own.
    fn policies<'a>(&'a self, role: Option<&'a Role>) -> Result<&'a [String], Failure> {
        let token = &self.request.token;
        let policies = if token.policies.is_empty() {
            role.map(Role::allowed_policies).unwrap_or_default()
        } else {
            &token.policies
        };
        if policies.is_empty() {
            let message = format!(
                "the pod names no policies and role `{}` allows none by name: set the option vault/policies, or the role's allowed_policies",
                token.role
            );
            return Err(Failure::new(Reason::RoleUnusable, message));
        }
        if policies.len() > MAX_POLICIES {
            let message = format!(
                "role `{}` allows more than {MAX_POLICIES} policies: name the pod's in the option vault/policies",
                token.role
            );
            return Err(Failure::new(Reason::RoleUnusable, message));
        }
        if policies
            .iter()
            .any(|policy| policy.eq_ignore_ascii_case("root"))
        {
            return Err(refused("root", "it may do everything"));
        }
        Ok(policies)
    }

    /// What Vault's refusal of a create means for the pod.
    async fn refusal(&self, live: &Live, policies: &[String], error: &VaultError) -> Failure {
        let Mounter { session, roles, .. } = self.mounter;
        let role = &self.request.token.role;
        let policies = policies.join(",");
        if error.is_denied() {
            let verified = tokio::time::timeout_at(self.deadline, session.verify(live));
            if let Ok(Err(failure)) = verified.await {
                return failure;
            }
            let mut message = format!(
                "Vault refused role `{role}` for policies `{policies}` (403): does the generator token's policy allow `auth/token/create/{role}`?"
            );
            match self.request.token.delivery {
                Delivery::Unwrapped => {
                    message.push_str(" A min_wrapping_ttl there refuses vault/unwrap: \"true\".");
                }
                Delivery::Wrapped { .. } => {
                    message.push_str(" A max_wrapping_ttl there refuses a longer vault/wrapTTL.");
                }
            }
            return Failure::new(Reason::VaultRefused, message);
        }
        roles.forget(role);
        if error.is_unknown_role() {
            let message = format!(
                "Vault has no role `{role}` ({error}): create it with `vault write auth/token/roles/{role} …`, or name another in vault/role"
            );
            return Failure::new(Reason::RoleUnusable, message);
        }
        if error.is_policy_not_allowed() {
            let message = format!(
                "role `{role}` does not allow the policies `{policies}` ({error}): change vault/policies, or the role's allowed_policies"
            );
            return Failure::new(Reason::RoleUnusable, message);
        }
        session.doubt();
        let failure = session.failure(error);
        if failure.reason == Reason::VaultFailed {
            let message = format!(
                "Vault did not make a token for role `{role}` and policies `{policies}`: {}",
                failure.message
            );
            return Failure::new(failure.reason, message);
        }
        failure
    }

    fn record(
        &self,
        minted: &Minted,
        policies: &[String],
        role: Option<&Role>,
        cluster_id: &str,
    ) -> Record {
        let now = Moment::now();
        let token = &self.request.token;
        let made = Made::of(minted, now);
        let mut record = Record {
            format: crate::volumes::FORMAT,
            kind: Kind::Token,
            id: self.id,
            state: State::Delivered,
            mount_dir: self.request.mount_dir.as_str().to_owned(),
            pod: self.request.pod.clone(),
            role: token.role.as_str().to_owned(),
            policies: policies.to_vec(),
            wishes: self.request.lifecycle,
            accessor: made.accessor,
            created: now,
            ttl_ms: made.ttl.map(clock::millis),
            expires: made.ttl.map(|ttl| now.after(ttl)),
            ends: token.max_ttl.map(|max| now.after(max)),
            keep_within: token.max_ttl.map(|max| now.after(max)),
            renewed: None,
            wrapping: made.wrapping,
            unmanaged: made.unmanaged,
            lost: false,
            seen: false,
            seen_from: None,
            mount_namespace: self.mount_namespace,
            attach_by: self.attach_by,
            ended: None,
            owed: Vec::new(),
            origin: Origin {
                cluster_id: cluster_id.to_owned(),
                ..self.mounter.volumes.origin()
            },
        };
        if let Some(role) = role {
            learn(&mut record, token, role);
        }
        record
    }

    fn answer(&self, minted: &Minted) -> Result<VolumeAnswer<'static>, Failure> {
        let wrapped = matches!(minted, Minted::Wrapped { .. });
        if wrapped != matches!(self.request.token.delivery, Delivery::Wrapped { .. }) {
            let message = "Vault made a token in another form than was asked for, which is revoked: does a proxy on the way drop or add the header X-Vault-Wrap-TTL?";
            return Err(Failure::new(Reason::VaultFailed, message));
        }
        let credential = match minted {
            Minted::Wrapped {
                token,
                ttl,
                creation_time,
                wrapped_accessor,
                ..
            } => Credential::Wrapped {
                token,
                ttl: *ttl,
                creation_time,
                wrapped_accessor: wrapped_accessor
                    .as_ref()
                    .map_or("", secrecy::ExposeSecret::expose_secret),
            },
            Minted::Unwrapped { token, answer, .. } => Credential::Unwrapped {
                token,
                secret: secrecy::ExposeSecret::expose_secret(answer),
            },
        };
        let (directory, files) =
            files::render(&credential, &self.request.files, &self.mounter.delivered())
                .map_err(|error| Failure::new(Reason::VaultFailed, error.to_string()))?;
        Ok(VolumeAnswer {
            id: self.id,
            attach_by: self.attach_by,
            directory,
            files,
        })
    }

    /// The caller's time is over. What is known to be wrong says more than that.
    fn too_late(&self) -> Failure {
        match self.mounter.session.standing() {
            Standing::Degraded(failure) => failure,
            Standing::Starting | Standing::Ready(_) => Failure::new(
                Reason::TimedOut,
                format!(
                    "Vault at {} had no time for this mount within its bound: is it slow, or do many pods start at once? The kubelet tries again",
                    self.mounter.session.address()
                ),
            ),
        }
    }
}

fn refused(policy: &str, why: &str) -> Failure {
    let message = format!("policy `{policy}` is never given to a pod: {why}");
    Failure::new(Reason::PolicyRefused, message)
}

/// What a role tells of its token's life, before the first renewal does.
fn learn(record: &mut Record, token: &TokenRequest, role: &Role) {
    let max_ttl = [token.max_ttl, role.max_ttl()].into_iter().flatten().min();
    record.ends = max_ttl.map(|max| record.created.after(max));
    if let Some(why) = role.unmanaged_because() {
        record.unmanaged.get_or_insert_with(|| why.to_owned());
    }
    if let (None, Some(ttl)) = (record.ttl_ms, token.ttl.or_else(|| role.period())) {
        let ttl = max_ttl.map_or(ttl, |max| ttl.min(max));
        record.ttl_ms = Some(clock::millis(ttl));
        record.expires = Some(record.renewed.unwrap_or(record.created).after(ttl));
    }
}

/// What Vault's answer says of a token's life.
struct Made {
    accessor: Option<Accessor>,
    wrapping: Option<Wrapping>,
    ttl: Option<Duration>,
    unmanaged: Option<String>,
}

impl Made {
    fn of(minted: &Minted, now: Moment) -> Self {
        let (accessor, wrapping, ttl, renewable) = match minted {
            Minted::Wrapped {
                ttl,
                accessor,
                wrapped_accessor,
                ..
            } => {
                let wrapping = Wrapping {
                    accessor: accessor.clone().into(),
                    ends: now.after(Duration::from_secs(*ttl)),
                    unwrapped: None,
                };
                (wrapped_accessor, Some(wrapping), None, true)
            }
            Minted::Unwrapped {
                accessor,
                lease_duration,
                renewable,
                ..
            } => {
                let ttl = Duration::from_secs(*lease_duration);
                (accessor, None, Some(ttl), *renewable)
            }
        };
        let unmanaged = match (accessor, renewable) {
            (None, _) => Some("a batch token, which has no accessor".to_owned()),
            (_, false) => Some("the token cannot be renewed".to_owned()),
            _ => None,
        };
        Self {
            accessor: accessor.clone().map(Into::into),
            wrapping,
            ttl,
            unmanaged,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is used by map_err")]
fn journal(error: std::io::Error) -> Failure {
    Failure::new(
        Reason::Journal,
        format!(
            "the agent's journal cannot be written: {error}: is the disk of its state directory full?"
        ),
    )
}
