//! The calls and what Vault answers to them.

use super::error::VaultError;
use super::lease;
use super::transport::{Headers, Transport};
use crate::options::{Delivery, Pod, RoleName};
use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;
use vaultrs::api::token::requests::{
    CreateRoleTokenRequest, LookupTokenAccessorRequest, LookupTokenSelfRequest,
    ReadTokenRoleRequest, RenewTokenAccessorRequest, RevokeTokenAccessorRequest,
};

/// The `creator` in a token's metadata, as the first plugin wrote it.
pub const CREATOR: &str = "kubernetes-flexvolume-vault-plugin";

/// How Vault says it is (`sys/health`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// It holds no key to its storage.
    pub sealed: bool,
    /// It was never initialised.
    #[serde(default = "yes")]
    pub initialized: bool,
    /// Its version, for people.
    #[serde(default)]
    pub version: String,
    /// The cluster's id; empty while sealed.
    #[serde(default)]
    pub cluster_id: String,
    /// It serves by asking the active one.
    #[serde(default)]
    pub standby: bool,
    /// Its clock, in seconds since 1970, UTC.
    #[serde(default)]
    pub server_time_utc: Option<u64>,
}

/// The generator token as Vault knows it (`auth/token/lookup-self`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Generator {
    /// Its policies. None of them but `default` is ever given to a pod.
    pub policies: Vec<String>,
    /// Policies of its identity.
    #[serde(default, deserialize_with = "null_as_default")]
    pub identity_policies: Vec<String>,
    /// Policies of its identity in other namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub external_namespace_policies: HashMap<String, Vec<String>>,
    /// Its identity.
    #[serde(default)]
    pub entity_id: String,
    /// What it has left to live, in seconds; 0 for ever.
    pub ttl: u64,
    /// Its period in seconds, where it has one: what a renewal gives it. A token role's tokens show none
    /// (tried on `OpenBao`): theirs is what they were first given.
    #[serde(default)]
    pub period: u64,
    /// What it was given when it was made, in seconds.
    #[serde(default)]
    pub creation_ttl: u64,
    /// Can it be renewed?
    #[serde(default)]
    pub renewable: bool,
    /// The explicit max TTL in seconds, where it has one: no renewal goes beyond.
    #[serde(default)]
    pub explicit_max_ttl: u64,
    /// Does it outlive the token that made it?
    #[serde(default)]
    pub orphan: bool,
    /// Its name.
    #[serde(default)]
    pub display_name: String,
    /// The token role that it was made by, where it was.
    #[serde(default)]
    pub role: String,
    /// So many calls are left to it, where they are counted.
    #[serde(default)]
    pub num_uses: u64,
}

impl Generator {
    /// Is this policy its own, by itself or by its identity? No pod gets it. `default` is everyone's.
    #[must_use]
    pub fn is_own_policy(&self, policy: &str) -> bool {
        let elsewhere = self.external_namespace_policies.values().flatten();
        policy != "default"
            && self
                .policies
                .iter()
                .chain(&self.identity_policies)
                .chain(elsewhere)
                .any(|own| own == policy)
    }

    /// Has it an identity, whose policies its children inherit (tried on `OpenBao`)?
    #[must_use]
    pub fn has_identity(&self) -> bool {
        !self.entity_id.is_empty()
    }

    /// How long an outage may be that it survives for sure, where it is periodic.
    #[must_use]
    pub fn survives(&self) -> Duration {
        lease::survives(Duration::from_secs(self.period))
    }

    /// May it do everything?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|policy| policy == "root")
    }
}

/// A token after its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// What it has to live from now on.
    pub ttl: Duration,
    /// Can it be renewed again?
    pub renewable: bool,
}

/// A token as its look-up by accessor shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Looked {
    /// What it has left to live, in seconds.
    pub ttl: u64,
    /// Its period in seconds, where it has one.
    pub period: u64,
    /// Can it be renewed?
    pub renewable: bool,
    /// The path by which it was created.
    pub path: String,
    /// Its policies.
    pub policies: Vec<String>,
    /// Its metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub meta: HashMap<String, String>,
}

/// A token role (`auth/token/roles/ROLE`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Role {
    #[serde(deserialize_with = "null_as_default")]
    allowed_policies: Vec<String>,
    orphan: bool,
    renewable: bool,
    token_type: String,
    token_period: u64,
    token_explicit_max_ttl: u64,
    explicit_max_ttl: u64,
    /// The older name of `token_period`, still set by older roles.
    period: u64,
    token_num_uses: u64,
    #[serde(deserialize_with = "null_as_default")]
    token_bound_cidrs: Vec<String>,
}

/// A token to be created through a role.
pub struct CreateToken<'a> {
    /// The token role.
    pub role: &'a RoleName,
    /// Never empty: a create without policies gives the generator token's own.
    pub policies: &'a [String],
    /// Wrapped or not.
    pub delivery: Delivery,
    /// The token's TTL.
    pub ttl: Option<Duration>,
    /// The token's explicit max TTL.
    pub max_ttl: Option<Duration>,
    /// Whom the token is for.
    pub pod: &'a Pod,
    /// The node's name.
    pub node: &'a str,
    /// The cluster's name.
    pub cluster: Option<&'a str>,
}

/// A token that Vault made.
pub enum Minted {
    /// Inside a wrapping token.
    Wrapped {
        /// The wrapping token.
        token: SecretString,
        /// The wrapping token's TTL in seconds.
        ttl: u64,
        /// When it was made, as Vault writes it.
        creation_time: String,
        /// The wrapping token's accessor.
        accessor: SecretString,
        /// The accessor of the token inside; a batch token has none.
        wrapped_accessor: Option<SecretString>,
    },
    /// As it is.
    Unwrapped {
        /// The token.
        token: SecretString,
        /// Its accessor; a batch token has none.
        accessor: Option<SecretString>,
        /// How long it lives, in seconds.
        lease_duration: u64,
        /// Can it be renewed?
        renewable: bool,
        /// Vault's whole answer.
        answer: SecretString,
    },
}

impl Transport {
    /// Asks how Vault is. Needs no token; sealed and standby servers answer, too.
    pub(super) async fn health(&self) -> Result<Health, VaultError> {
        let body = self.call(ReadHealth, &Headers::default()).await?;
        serde_json::from_slice(&body).map_err(|_| VaultError::NotUnderstood("not a health report"))
    }

    /// Looks the generator token up.
    pub(super) async fn lookup_self(&self, headers: &Headers<'_>) -> Result<Generator, VaultError> {
        let body = self
            .call(LookupTokenSelfRequest::default(), headers)
            .await?;
        let mut generator: Generator = data(&body, "not a token's look-up")?;
        if generator.period > 0 && generator.creation_ttl > 0 {
            // Shown as it was asked for; Vault grants no more than the mount's longest lease (tried on OpenBao).
            generator.period = generator.period.min(generator.creation_ttl);
        } else if !generator.role.is_empty() && generator.renewable {
            generator.period = generator.creation_ttl;
        }
        Ok(generator)
    }

    /// Reads a token role.
    pub(super) async fn role(
        &self,
        role: &RoleName,
        headers: &Headers<'_>,
    ) -> Result<Role, VaultError> {
        let request = ReadTokenRoleRequest {
            role_name: role.as_str().to_owned(),
        };
        let body = self.call(request, headers).await?;
        data(&body, "not a token role")
    }

    /// Renews a token by its accessor. Without an increment: one is ignored for periodic tokens and
    /// shortens others.
    pub(super) async fn renew(
        &self,
        accessor: &SecretString,
        headers: &Headers<'_>,
    ) -> Result<Renewal, VaultError> {
        let request = RenewTokenAccessorRequest {
            accessor: accessor.expose_secret().to_owned(),
            increment: None,
        };
        renewal(&self.call(request, headers).await?)
    }

    /// Ends a token by its accessor. One that Vault does not know is a success, too (tried).
    pub(super) async fn revoke(
        &self,
        accessor: &SecretString,
        headers: &Headers<'_>,
    ) -> Result<(), VaultError> {
        let request = RevokeTokenAccessorRequest {
            accessor: accessor.expose_secret().to_owned(),
        };
        self.call(request, headers).await.map(drop)
    }

    /// Looks a token up by its accessor.
    pub(super) async fn lookup(
        &self,
        accessor: &SecretString,
        headers: &Headers<'_>,
    ) -> Result<Looked, VaultError> {
        let request = LookupTokenAccessorRequest {
            accessor: accessor.expose_secret().to_owned(),
        };
        let body = self.call(request, headers).await?;
        data(&body, "not a token's look-up")
    }

    /// Creates a token. The one call that must not be repeated lightly: see
    /// [`VaultError::create_may_be_repeated`].
    pub(super) async fn create(
        &self,
        create: &CreateToken<'_>,
        headers: &Headers<'_>,
    ) -> Result<Minted, VaultError> {
        let body = self.call(create.request(), headers).await?;
        Minted::parse(&body)
    }
}

impl CreateToken<'_> {
    fn request(&self) -> CreateRoleTokenRequest {
        CreateRoleTokenRequest {
            role_name: self.role.as_str().to_owned(),
            policies: Some(self.policies.to_vec()),
            meta: Some(self.metadata()),
            ttl: self.ttl.map(seconds),
            explicit_max_ttl: self.max_ttl.map(seconds),
            ..CreateRoleTokenRequest::default()
        }
    }

    /// What Vault's audit log says in plain text of the pod at unwrap, renewal and use. Empty
    /// values are left out: a static pod has no service account.
    fn metadata(&self) -> HashMap<String, String> {
        [
            ("poduid", self.pod.uid.as_str()),
            ("pod", &self.pod.name),
            ("namespace", &self.pod.namespace),
            ("service_account", &self.pod.service_account),
            ("node", self.node),
            ("cluster", self.cluster.unwrap_or_default()),
            ("creator", CREATOR),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }
}

impl Role {
    /// The policies that the role allows by name.
    #[must_use]
    pub fn allowed_policies(&self) -> &[String] {
        &self.allowed_policies
    }

    /// Do the role's tokens outlive the generator token?
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.orphan
    }

    /// The period of the role's tokens, where it is periodic. Such tokens ignore a requested TTL,
    /// silently (tried on `OpenBao`).
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        match self.token_period.max(self.period) {
            0 => None,
            seconds => Some(lifetime(seconds)),
        }
    }

    /// The explicit max TTL of the role's tokens, where it sets one.
    #[must_use]
    pub fn max_ttl(&self) -> Option<Duration> {
        match self.token_explicit_max_ttl.max(self.explicit_max_ttl) {
            0 => None,
            seconds => Some(lifetime(seconds)),
        }
    }

    /// So many calls a token of this role is good for, where they are counted.
    #[must_use]
    pub fn num_uses(&self) -> Option<u64> {
        Some(self.token_num_uses).filter(|uses| *uses > 0)
    }

    /// The networks that the role's tokens may be used from; empty where from everywhere. Wrapping and
    /// unwrapping are let through all the same (tried on `OpenBao`).
    #[must_use]
    pub fn bound_cidrs(&self) -> &[String] {
        &self.token_bound_cidrs
    }

    /// Why a token of this role cannot be kept alive and ended by its accessor, if so.
    #[must_use]
    pub fn unmanaged_because(&self) -> Option<&'static str> {
        if matches!(self.token_type.as_str(), "batch" | "default-batch") {
            Some("the role gives batch tokens, which have no accessor")
        } else if self.renewable {
            None
        } else {
            Some("the role gives tokens that cannot be renewed")
        }
    }
}

impl Minted {
    /// Reads what Vault made, whether asked for in this form or not: it is to be accounted for.
    fn parse(body: &[u8]) -> Result<Self, VaultError> {
        let answer: CreateAnswer = serde_json::from_slice(body)
            .map_err(|_| VaultError::NotUnderstood("not the answer to a token's creation"))?;
        match (answer.wrap_info, answer.auth) {
            (Some(wrap), _) if is_something(&wrap.token) => Ok(Self::Wrapped {
                token: wrap.token,
                ttl: lifetime(wrap.ttl).as_secs(),
                creation_time: wrap.creation_time,
                accessor: wrap.accessor,
                wrapped_accessor: wrap.wrapped_accessor.filter(is_something),
            }),
            (None, Some(auth)) if is_something(&auth.client_token) => Ok(Self::Unwrapped {
                token: auth.client_token,
                accessor: auth.accessor.filter(is_something),
                lease_duration: lifetime(auth.lease_duration).as_secs(),
                renewable: auth.renewable,
                answer: std::str::from_utf8(body)
                    .map_err(|_| VaultError::NotUnderstood("not UTF-8"))?
                    .into(),
            }),
            _ => Err(VaultError::NotUnderstood("it holds no token")),
        }
    }
}

#[derive(Deserialize)]
struct CreateAnswer {
    wrap_info: Option<WrapInfo>,
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct WrapInfo {
    token: SecretString,
    accessor: SecretString,
    ttl: u64,
    creation_time: String,
    wrapped_accessor: Option<SecretString>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretString,
    accessor: Option<SecretString>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// `sys/health` with a 200 for every state, so that the body tells. vaultrs' own fails on `OpenBao`.
struct ReadHealth;

impl Endpoint for ReadHealth {
    type Response = serde_json::Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        "sys/health".into()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }

    fn query(&self) -> Result<Option<String>, ClientError> {
        Ok(Some(
            "standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&drsecondarycode=200"
                .into(),
        ))
    }
}

/// The answer to a renewal.
pub(super) fn renewal(body: &[u8]) -> Result<Renewal, VaultError> {
    #[derive(Deserialize)]
    struct Answer {
        auth: Renewed,
    }
    #[derive(Deserialize)]
    struct Renewed {
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| VaultError::NotUnderstood("not the answer to a renewal"))?;
    Ok(Renewal {
        ttl: lifetime(answer.auth.lease_duration),
        renewable: answer.auth.renewable,
    })
}

/// The `data` of an answer.
pub(super) fn data<T: for<'de> Deserialize<'de>>(
    body: &[u8],
    what: &'static str,
) -> Result<T, VaultError> {
    #[derive(Deserialize)]
    struct Answer<T> {
        data: T,
    }
    serde_json::from_slice::<Answer<T>>(body)
        .map(|answer| answer.data)
        .map_err(|_| VaultError::NotUnderstood(what))
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A lifetime that Vault names, in seconds. No sum with it overflows, whatever answered there.
fn lifetime(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(crate::duration::LONGEST)
}

fn is_something(secret: &SecretString) -> bool {
    !secret.expose_secret().is_empty()
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

const fn yes() -> bool {
    true
}
