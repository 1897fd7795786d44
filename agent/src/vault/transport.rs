//! One call to Vault: a rustify client of our own over the pooled connections.
//!
//! It bounds what an answer may hold, keeps error answers whole for [`super::error`] to judge, and
//! decides about redirects: the generator token follows none but to a host that the settings allow.

use super::error::{Answered, VaultError, chain};
use super::pool::{Answer, Pool, Target};
use crate::config::{Address, VaultSettings};
use crate::metrics::Metrics;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use rustify::endpoint::{Endpoint, MiddleWare};
use rustify::errors::ClientError;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The largest answer of Vault that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// No longer is waited because Vault asks for it: a mount has no more time.
const LONGEST_WAIT: Duration = Duration::from_secs(100);

/// Carries calls to one Vault.
pub(super) struct Transport {
    pool: Pool,
    metrics: Arc<Metrics>,
    home: Target,
    address: Address,
    redirect_hosts: Vec<String>,
    timeout: Duration,
}

/// The headers of a call. vaultrs' own middleware keeps the token in a printable string, fixes the
/// wrapping TTL and panics at a token with a line end.
#[derive(Default)]
pub(super) struct Headers<'a> {
    pub(super) token: Option<&'a SecretString>,
    pub(super) namespace: Option<&'a str>,
    pub(super) wrap_ttl: Option<Duration>,
}

impl Transport {
    /// One without a connection. Reads the certificates, so that a new one takes up changed files.
    ///
    /// # Errors
    /// One line that names the file or setting and what is wrong with it.
    pub(super) fn new(settings: &VaultSettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let address = &settings.address;
        let name = settings.server_name.as_deref();
        let home = Target::new(address.host(), address.port(), name)
            .map_err(|problem| format!("VAULT_ADDR or VAULT_TLS_SERVER_NAME: {problem}"))?;
        Ok(Self {
            pool: Pool::new(settings)?,
            metrics,
            home,
            address: address.clone(),
            redirect_hosts: settings.redirect_hosts.clone(),
            timeout: settings.timeout,
        })
    }

    /// Sends one call once, one redirect aside. The answer is a whole success, as sent.
    pub(super) async fn call<E: Endpoint>(
        &self,
        endpoint: E,
        headers: &Headers<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let begun = Instant::now();
        let path = template(&endpoint.path());
        let mut status = "200";
        let answer = match endpoint.with_middleware(headers).exec(self).await {
            Ok(result) => {
                if result.response.status() == StatusCode::NO_CONTENT {
                    status = "204";
                }
                Ok(Zeroizing::new(result.response.into_body()))
            }
            Err(ClientError::RequestError { source, .. }) => Err(source
                .downcast()
                .unwrap_or_else(|error| VaultError::NoAnswer(error.to_string()))),
            // Whatever it is: the call may have been carried out.
            Err(error) => Err(VaultError::NoAnswer(chain(&error))),
        };
        let status = answer.as_ref().map_or_else(VaultError::status, |_| status);
        self.metrics.called(path, status, begun.elapsed());
        answer
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, VaultError> {
        let request = self.placed(request)?;
        let mut answer = self.send_once(&self.home, request.clone()).await?;
        if matches!(
            answer.status,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        ) {
            let elsewhere = self.redirect_target(answer.headers.get(LOCATION))?;
            answer = self.send_once(&elsewhere, request).await?;
            if answer.status.is_redirection() {
                return Err(VaultError::Redirected("yet another host".into()));
            }
        }
        judge(answer)
    }

    /// Puts a call under Vault's API version, behind the path that the settings' address may have.
    fn placed(&self, request: Request<Vec<u8>>) -> Result<Request<Full<Bytes>>, VaultError> {
        let (mut head, body) = request.into_parts();
        let call = head.uri.path_and_query().map_or("", |it| it.as_str());
        let path = format!(
            "{}/v1/{}",
            self.address.base_path(),
            call.trim_start_matches('/')
        );
        head.uri = path
            .parse()
            .map_err(|_| VaultError::NoConnection("the call makes no URL".into()))?;
        Ok(Request::from_parts(head, Full::from(body)))
    }

    async fn send_once(
        &self,
        target: &Target,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, VaultError> {
        tokio::time::timeout(self.timeout, self.pool.exchange(target, request))
            .await
            .unwrap_or(Err(VaultError::TimedOut(self.timeout)))
    }

    /// Where a standby's redirect may lead: the same scheme, and the host of the settings'
    /// address or one of `VAULTTMPFS_REDIRECT_HOSTS`. The path stays as it was asked for.
    fn redirect_target(&self, location: Option<&HeaderValue>) -> Result<Target, VaultError> {
        let target: Uri = location
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .ok_or_else(|| VaultError::Redirected("nowhere".into()))?;
        let allowed = target.host().is_some_and(|host| {
            host.eq_ignore_ascii_case(self.address.host())
                || self
                    .redirect_hosts
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(host))
        });
        let scheme = if self.address.is_https() {
            "https"
        } else {
            "http"
        };
        if target.scheme_str() == Some(scheme) && allowed {
            let port = target
                .port_u16()
                .unwrap_or(if self.address.is_https() { 443 } else { 80 });
            Target::new(target.host().unwrap_or_default(), port, None)
                .map_err(VaultError::Redirected)
        } else {
            let host = target.authority().map_or("nowhere", |it| it.as_str());
            let scheme = target.scheme_str().unwrap_or("no scheme");
            Err(VaultError::Redirected(format!("{scheme}://{host}")))
        }
    }
}

fn judge(mut answer: Answer) -> Result<Response<Vec<u8>>, VaultError> {
    if !matches!(answer.status, StatusCode::OK | StatusCode::NO_CONTENT) {
        let retry_after = answer
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds).min(LONGEST_WAIT));
        let status = answer.status.as_u16();
        let error = Answered::parse(status, &answer.body, retry_after);
        return Err(VaultError::Answered(error));
    }
    let mut response = Response::new(std::mem::take(&mut *answer.body));
    *response.status_mut() = answer.status;
    Ok(response)
}

/// A call's path without the names in it, for the metrics: few, and the same on every node. (vaultrs
/// begins its paths with a slash, and one with a tab.)
fn template(path: &str) -> &'static str {
    let path = path.trim_start().trim_start_matches('/');
    match path {
        "sys/health" => "sys/health",
        "sys/capabilities-self" => "sys/capabilities-self",
        "sys/internal/ui/resultant-acl" => "sys/internal/ui/resultant-acl",
        "auth/token/lookup-self" => "auth/token/lookup-self",
        "auth/token/renew-self" => "auth/token/renew-self",
        "auth/token/lookup-accessor" => "auth/token/lookup-accessor",
        "auth/token/renew-accessor" => "auth/token/renew-accessor",
        "auth/token/revoke-accessor" => "auth/token/revoke-accessor",
        _ if path.starts_with("auth/token/create/") => "auth/token/create/{role}",
        _ if path.starts_with("auth/token/roles/") => "auth/token/roles/{role}",
        _ if path.ends_with("/issuers") => "{pki}/issuers",
        _ if path.contains("/issuer/") => "{pki}/issuer/{id}",
        _ if path.contains("/issue/") => "{pki}/issue/{role}",
        _ => "other",
    }
}

#[async_trait]
impl rustify::client::Client for Transport {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        self.exchange(request)
            .await
            .map_err(|error| ClientError::RequestError {
                source: error.into(),
                url: String::new(),
                method: String::new(),
            })
    }

    /// rustify wants a base for its URLs and would drop a path from ours: see `placed`.
    fn base(&self) -> &'static str {
        "http://vault"
    }
}

impl MiddleWare for Headers<'_> {
    fn request<E: Endpoint>(
        &self,
        _: &E,
        request: &mut Request<Vec<u8>>,
    ) -> Result<(), ClientError> {
        let headers = request.headers_mut();
        headers.insert("X-Vault-Request", HeaderValue::from_static("true"));
        if let Some(token) = self.token {
            let mut token = header(token.expose_secret())?;
            token.set_sensitive(true);
            headers.insert("X-Vault-Token", token);
        }
        if let Some(namespace) = self.namespace {
            headers.insert("X-Vault-Namespace", header(namespace)?);
        }
        if let Some(ttl) = self.wrap_ttl {
            headers.insert("X-Vault-Wrap-TTL", HeaderValue::from(ttl.as_secs()));
        }
        Ok(())
    }

    fn response<E: Endpoint>(&self, _: &E, _: &mut Response<Vec<u8>>) -> Result<(), ClientError> {
        Ok(())
    }
}

/// A header's value, or an error that does not show it.
fn header(text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text).map_err(|_| ClientError::RequestError {
        source: VaultError::NoConnection("a header with a control character".into()).into(),
        url: String::new(),
        method: String::new(),
    })
}
