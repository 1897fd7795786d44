//! One call to Vault: a rustify client of our own over the pooled connections.
//!
//! It bounds what an answer may hold, keeps error answers whole for [`super::error`] to judge, and
//! decides about redirects: the generator token follows none but to a host that the settings allow.

use super::error::{Answered, VaultError, chain};
use crate::config::Address;
use async_trait::async_trait;
use http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri};
use rustify::endpoint::{Endpoint, MiddleWare};
use rustify::errors::ClientError;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use zeroize::Zeroizing;

/// The largest answer of Vault that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// No longer is waited because Vault asks for it: a mount has no more time.
const LONGEST_WAIT: Duration = Duration::from_secs(100);

/// Carries calls to one Vault.
pub(super) struct Transport {
    pub(super) http: reqwest::Client,
    pub(super) address: Address,
    pub(super) base: String,
    pub(super) redirect_hosts: Vec<String>,
    pub(super) timeout: Duration,
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
    /// Sends one call once, one redirect aside. The answer is a whole success, as sent.
    pub(super) async fn call<E: Endpoint>(
        &self,
        endpoint: E,
        headers: &Headers<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        match endpoint.with_middleware(headers).exec(self).await {
            Ok(result) => Ok(Zeroizing::new(result.response.into_body())),
            Err(ClientError::RequestError { source, .. }) => Err(source
                .downcast()
                .unwrap_or_else(|error| VaultError::NoAnswer(error.to_string()))),
            // Whatever it is: the call may have been carried out.
            Err(error) => Err(VaultError::NoAnswer(chain(&error))),
        }
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, VaultError> {
        let request = reqwest::Request::try_from(self.placed(request)?)
            .map_err(|error| VaultError::NoConnection(chain(&error)))?;
        let again = request.try_clone();
        let answer = self.send_once(request).await?;
        if !matches!(
            answer.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        ) {
            return self.read(answer).await;
        }
        let location = answer.headers().get(LOCATION).cloned();
        let target = self.redirect_target(location.as_ref())?;
        let Some(mut request) = again else {
            return Err(VaultError::Redirected(target.to_string()));
        };
        let url = request.url_mut();
        if url.set_host(target.host()).is_err() || url.set_port(target.port_u16()).is_err() {
            return Err(VaultError::Redirected(target.to_string()));
        }
        let answer = self.send_once(request).await?;
        if answer.status().is_redirection() {
            return Err(VaultError::Redirected("yet another host".into()));
        }
        self.read(answer).await
    }

    /// Puts a call under Vault's API version, behind the path that the settings' address may have.
    fn placed(&self, mut request: Request<Vec<u8>>) -> Result<Request<Vec<u8>>, VaultError> {
        let call = request.uri().path_and_query().map_or("", |it| it.as_str());
        let url = format!("{}/v1/{}", self.base, call.trim_start_matches('/'));
        *request.uri_mut() = url
            .parse()
            .map_err(|_| VaultError::NoConnection("the call makes no URL".into()))?;
        Ok(request)
    }

    async fn send_once(&self, request: reqwest::Request) -> Result<reqwest::Response, VaultError> {
        self.http
            .execute(request)
            .await
            .map_err(|error| self.broken(error))
    }

    fn broken(&self, error: reqwest::Error) -> VaultError {
        let error = error.without_url();
        if error.is_connect() || error.is_builder() {
            VaultError::NoConnection(chain(&error))
        } else if error.is_timeout() {
            VaultError::TimedOut(self.timeout)
        } else {
            VaultError::NoAnswer(chain(&error))
        }
    }

    async fn read(&self, mut answer: reqwest::Response) -> Result<Response<Vec<u8>>, VaultError> {
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds).min(LONGEST_WAIT));
        let expected = answer.content_length().unwrap_or(0);
        if expected > MAX_ANSWER as u64 {
            return Err(VaultError::TooLarge);
        }
        let mut body = Zeroizing::new(Vec::with_capacity(
            usize::try_from(expected).unwrap_or_default().max(2048),
        ));
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(VaultError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        if !matches!(status, StatusCode::OK | StatusCode::NO_CONTENT) {
            return Err(VaultError::Answered(Answered::parse(
                status.as_u16(),
                &body,
                retry_after,
            )));
        }
        let mut answer = Response::new(std::mem::take(&mut *body));
        *answer.status_mut() = status;
        Ok(answer)
    }

    /// Where a standby's redirect may lead: the same scheme, and the host of the settings'
    /// address or one of `VAULTTMPFS_REDIRECT_HOSTS`. The path stays as it was asked for.
    fn redirect_target(&self, location: Option<&HeaderValue>) -> Result<Uri, VaultError> {
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
            Ok(target)
        } else {
            let host = target.authority().map_or("nowhere", |it| it.as_str());
            let scheme = target.scheme_str().unwrap_or("no scheme");
            Err(VaultError::Redirected(format!("{scheme}://{host}")))
        }
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
