//! The JSON file of a token, key for key as the first plugin wrote it: Go's `api.Secret` of 2018.

use super::{Credential, RenderError};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use zeroize::Zeroizing;

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys are Vault's")]
struct Wrapped<'a> {
    token: &'a str,
    ttl: u64,
    creation_time: &'a str,
    wrapped_accessor: &'a str,
}

/// Vault's answer with the keys of that time. A key that is missing there is written with Go's zero
/// value; a newer one is left out. `wrap_info` was left out where there was none.
#[derive(Serialize, Deserialize)]
struct Secret<'a> {
    #[serde(borrow, default)]
    request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    lease_id: Cow<'a, str>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    warnings: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Auth<'a>,
}

#[derive(Serialize, Deserialize)]
struct Auth<'a> {
    /// Borrowed, so that no copy stays behind; a token has nothing that JSON escapes.
    client_token: &'a str,
    #[serde(borrow, default)]
    accessor: Cow<'a, str>,
    #[serde(borrow, default)]
    policies: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// A written JSON is longer than what it was made of by its keys, not more.
const KEYS: usize = 512;

/// The content of a token's JSON file.
pub(super) fn json(credential: &Credential<'_>) -> Result<Zeroizing<Vec<u8>>, RenderError> {
    match credential {
        Credential::Wrapped {
            token,
            ttl,
            creation_time,
            wrapped_accessor,
        } => {
            let token = token.expose_secret();
            let length = token.len() + creation_time.len() + wrapped_accessor.len();
            write(
                length,
                &Wrapped {
                    token,
                    ttl: *ttl,
                    creation_time,
                    wrapped_accessor,
                },
            )
        }
        Credential::Unwrapped { token, secret } => {
            let parsed: Secret<'_> =
                serde_json::from_str(secret).map_err(|_| RenderError::NotASecret)?;
            if parsed.auth.client_token != token.expose_secret() {
                return Err(RenderError::NotASecret);
            }
            write(secret.len(), &parsed)
        }
    }
}

/// Writes into one buffer that has room from the start: a growing one would leave copies of the
/// token behind. Six bytes is the most that JSON makes of one.
fn write<T: Serialize>(length: usize, value: &T) -> Result<Zeroizing<Vec<u8>>, RenderError> {
    let mut json = Zeroizing::new(Vec::with_capacity(6 * length + KEYS));
    serde_json::to_writer(&mut *json, value).map_err(|_| RenderError::NotASecret)?;
    Ok(json)
}
