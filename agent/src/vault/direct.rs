//! Vault as a command asks it by itself, without a session: each call by the token that it is given.

use super::calls::{Health, Renewal, Role, data};
use super::error::VaultError;
use super::plain::Plain;
use super::session::PAUSES;
use super::transport::{Headers, Transport};
use super::trouble;
use crate::config::VaultSettings;
use crate::duration::to_go;
use crate::failure::{Failure, Reason};
use crate::interrupt::Interrupt;
use crate::options::RoleName;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// So long an answer that may hold a token is waited for by who is interrupted.
const GRACE: Duration = Duration::from_secs(10);

/// Vault, for one command.
pub struct Direct {
    transport: Transport,
    settings: VaultSettings,
}

/// A name and its password, for an auth method that takes these.
pub struct Credentials<'a> {
    /// Where the auth method is mounted below `auth/`.
    pub mount: &'a str,
    /// The user.
    pub username: &'a str,
    /// Their password.
    pub password: &'a SecretString,
}

/// A generator token to be made.
pub struct NewGenerator<'a> {
    /// The token role to make it by: then the period is the role's.
    pub role: Option<&'a RoleName>,
    /// Its policies.
    pub policies: &'a [String],
    /// Its period, where no role sets it.
    pub period: Duration,
    /// Its name, which Vault puts `token-` before.
    pub display_name: &'a str,
    /// Its metadata, which Vault's audit log shows in plain text.
    pub metadata: BTreeMap<&'a str, &'a str>,
}

/// A token that Vault gave.
pub struct Given {
    /// The token.
    pub token: SecretString,
    /// What Vault has to say about it.
    pub warnings: Vec<String>,
}

/// What Vault tells of a wrapping token without unwrapping it.
#[derive(Deserialize)]
pub struct Wrapping {
    /// The path by which the thing inside was made, in the settings' namespace.
    pub creation_path: String,
}

impl NewGenerator<'_> {
    /// The path by which it is made.
    #[must_use]
    pub fn path(&self) -> String {
        match self.role {
            Some(role) => format!("auth/token/create/{role}"),
            None => "auth/token/create-orphan".to_owned(),
        }
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "policies": self.policies,
            "display_name": self.display_name,
            "meta": self.metadata,
            "renewable": true,
            "type": "service",
        });
        // With a role it would want more rights, and the role's counts anyhow (tried on OpenBao).
        if self.role.is_none() {
            body["period"] = Value::from(to_go(self.period));
        }
        body
    }
}

impl Direct {
    /// One without a connection. Reads the certificates.
    ///
    /// # Errors
    /// A file of the settings cannot be used.
    pub fn new(settings: &VaultSettings) -> Result<Self, Failure> {
        let transport = Transport::new(settings, Arc::default())
            .map_err(|problem| Failure::new(Reason::BadSettings, problem))?;
        Ok(Self {
            transport,
            settings: settings.clone(),
        })
    }

    /// Vault's address, as the settings name it.
    #[must_use]
    pub fn address(&self) -> &str {
        self.settings.address.as_str()
    }

    /// What a failed call says of Vault, for people.
    #[must_use]
    pub fn trouble(&self, error: &VaultError) -> Failure {
        trouble::trouble(self.address(), error)
    }

    /// Looks whether Vault can be asked at all.
    ///
    /// # Errors
    /// It cannot be reached, or is sealed.
    pub async fn health(&self) -> Result<Health, Failure> {
        let health = self
            .at_least_once(async || self.transport.health().await)
            .await
            .map_err(|error| self.trouble(&error))?;
        if health.sealed || !health.initialized {
            return Err(trouble::asleep(self.address(), health.initialized));
        }
        Ok(health)
    }

    /// Logs in.
    pub async fn log_in(
        &self,
        as_whom: &Credentials<'_>,
        interrupt: &Interrupt,
    ) -> Result<Given, VaultError> {
        let path = format!("auth/{}/login/{}", as_whom.mount, as_whom.username);
        let body = json!({ "password": as_whom.password.expose_secret() });
        let anyone = Headers {
            namespace: self.settings.namespace.as_deref(),
            ..Headers::default()
        };
        self.give(&path, &body, &anyone, interrupt).await
    }

    /// Looks at a wrapping token, which stays whole.
    pub async fn wrapping(&self, token: &SecretString) -> Result<Wrapping, VaultError> {
        let body = json!({ "token": token.expose_secret() }).to_string();
        let headers = self.headers(token);
        let answer = self
            .at_least_once(async || {
                let call = Plain::post("sys/wrapping/lookup", body.clone());
                self.transport.call(call, &headers).await
            })
            .await?;
        let mut wrapping: Wrapping = data(&answer, "not a wrapping token's look-up")?;
        if let Some(namespace) = &self.settings.namespace {
            let prefix = format!("{}/", namespace.trim_matches('/'));
            if let Some(path) = wrapping.creation_path.strip_prefix(&prefix) {
                wrapping.creation_path = path.to_owned();
            }
        }
        Ok(wrapping)
    }

    /// Unwraps a token. That works once.
    pub async fn unwrap(
        &self,
        token: &SecretString,
        interrupt: &Interrupt,
    ) -> Result<Given, VaultError> {
        let path = "sys/wrapping/unwrap";
        self.give(path, &json!({}), &self.headers(token), interrupt)
            .await
    }

    /// Makes a generator token.
    pub async fn create(
        &self,
        token: &SecretString,
        new: &NewGenerator<'_>,
        interrupt: &Interrupt,
    ) -> Result<Given, VaultError> {
        self.give(&new.path(), &new.body(), &self.headers(token), interrupt)
            .await
    }

    /// Reads a token role.
    pub async fn role(&self, token: &SecretString, role: &RoleName) -> Result<Role, VaultError> {
        let headers = self.headers(token);
        self.at_least_once(async || self.transport.role(role, &headers).await)
            .await
    }

    /// Renews a token.
    pub async fn renew(&self, token: &SecretString) -> Result<Renewal, VaultError> {
        let headers = self.headers(token);
        self.at_least_once(async || self.transport.renew_self(&headers).await)
            .await
    }

    /// Ends a token.
    pub async fn revoke(&self, token: &SecretString) -> Result<(), VaultError> {
        self.write(token, "auth/token/revoke-self", &json!({}))
            .await
    }

    /// Is there something at this path?
    pub async fn has(&self, token: &SecretString, path: &str) -> Result<bool, VaultError> {
        let headers = self.headers(token);
        let answer = self
            .at_least_once(async || {
                let call = Plain::get(path.to_owned());
                self.transport.call(call, &headers).await
            })
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what may be written twice.
    pub async fn write(
        &self,
        token: &SecretString,
        path: &str,
        body: &Value,
    ) -> Result<(), VaultError> {
        let headers = self.headers(token);
        let answer = self.at_least_once(async || {
            let call = Plain::post(path.to_owned(), body.to_string());
            self.transport.call(call, &headers).await
        });
        answer.await.map(drop)
    }

    /// A call that gives a token: repeated only where Vault surely made none and nobody interrupts, and
    /// waited for [`GRACE`] when somebody does: nobody else could end that token.
    async fn give(
        &self,
        path: &str,
        body: &Value,
        headers: &Headers<'_>,
        interrupt: &Interrupt,
    ) -> Result<Given, VaultError> {
        let answer = self
            .repeated(
                VaultError::create_may_be_repeated,
                async |pause| interrupt.unless_it_comes(pause).await.is_ok(),
                async || {
                    let call = Plain::post(path.to_owned(), body.to_string());
                    let answer = self.transport.call(call, headers);
                    let answer = interrupt.with_grace(GRACE, answer).await;
                    answer.unwrap_or(Err(VaultError::TimedOut(GRACE)))
                },
            )
            .await?;
        Given::parse(&answer)
    }

    /// A call that may be made twice, and dropped at any time.
    async fn at_least_once<T>(
        &self,
        call: impl AsyncFn() -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let pausing = async |pause: Sleep| {
            pause.await;
            true
        };
        self.repeated(VaultError::read_may_be_repeated, pausing, call)
            .await
    }

    /// `goes_on` pauses, and says whether there is to be another try.
    async fn repeated<T>(
        &self,
        may_be: fn(&VaultError) -> bool,
        goes_on: impl AsyncFn(Sleep) -> bool,
        call: impl AsyncFn() -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut tries = 0;
        loop {
            match call().await {
                Err(error) if may_be(&error) && tries < self.settings.max_retries => {
                    let pause = PAUSES.0 * 2_u32.pow(tries.min(6));
                    if !goes_on(sleep(error.retry_after().unwrap_or(pause))).await {
                        return Err(error);
                    }
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    fn headers<'a>(&'a self, token: &'a SecretString) -> Headers<'a> {
        Headers {
            token: Some(token),
            namespace: self.settings.namespace.as_deref(),
            wrap_ttl: None,
        }
    }
}

impl Given {
    fn parse(body: &[u8]) -> Result<Self, VaultError> {
        #[derive(Deserialize)]
        struct Answer {
            auth: Option<Auth>,
            warnings: Option<Vec<String>>,
        }
        #[derive(Deserialize)]
        struct Auth {
            client_token: SecretString,
            mfa_requirement: Option<Value>,
        }
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| VaultError::NotUnderstood("no answer with a token"))?;
        let Some(auth) = answer.auth else {
            return Err(VaultError::NotUnderstood("it holds no token"));
        };
        if auth.client_token.expose_secret().is_empty() {
            return Err(VaultError::NotUnderstood(
                if auth.mfa_requirement.is_some() {
                    "it asks for a second factor: log in with Vault's own client, and set VAULT_TOKEN"
                } else {
                    "it holds no token"
                },
            ));
        }
        Ok(Self {
            token: auth.client_token,
            warnings: answer.warnings.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_is_given() {
        let given = Given::parse(br#"{"auth":{"client_token":"s.x"},"warnings":null}"#).unwrap();
        assert_eq!(given.token.expose_secret(), "s.x");
        for (answer, why) in [
            (&b"<html>"[..], "no answer"),
            (br#"{"auth":null,"data":{"a":1}}"#, "no token"),
            (br#"{"auth":{"client_token":""}}"#, "no token"),
            (
                br#"{"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"x"}}}"#,
                "second factor",
            ),
        ] {
            let error = Given::parse(answer).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_role_brings_its_own_period() {
        let role: RoleName = "nodes".parse().unwrap();
        let mut new = NewGenerator {
            role: None,
            policies: &["a".to_owned()],
            period: Duration::from_secs(768 * 3600),
            display_name: "vaulttmpfs-node",
            metadata: BTreeMap::from([("node", "node")]),
        };
        assert_eq!(new.body()["period"], "768h");
        assert_eq!(new.path(), "auth/token/create-orphan");
        new.role = Some(&role);
        assert_eq!(new.body()["period"], Value::Null);
        assert_eq!(new.path(), "auth/token/create/nodes");
    }
}
