//! A call that vaultrs does not know, or not as Vault takes it.

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use std::borrow::Cow;
use zeroize::Zeroizing;

/// A path, a method, and perhaps a body in JSON.
pub(super) struct Plain {
    path: Cow<'static, str>,
    method: RequestMethod,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl Plain {
    pub(super) fn get(path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            path: path.into(),
            method: RequestMethod::GET,
            body: None,
        }
    }

    pub(super) fn list(path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            method: RequestMethod::LIST,
            ..Self::get(path)
        }
    }

    /// With a body that may hold a secret.
    pub(super) fn post(path: impl Into<Cow<'static, str>>, body: String) -> Self {
        Self {
            path: path.into(),
            method: RequestMethod::POST,
            body: Some(Zeroizing::new(body.into_bytes())),
        }
    }
}

impl Endpoint for Plain {
    type Response = serde_json::Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.to_string()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_vec()))
    }
}
