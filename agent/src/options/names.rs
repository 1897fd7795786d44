//! Names that end up in a request to Vault.

use std::fmt;
use std::str::FromStr;

/// The name of a Vault token role: 1 to 128 of `A-Z a-z 0-9 _ . -`, not `.` or `..`. It becomes a
/// part of a URL's path, where anything else could lead to another endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(String);

/// A text that is not a role's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleNameError;

const MAX_ROLE_NAME: usize = 128;

impl RoleName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if matches!(text, "" | "." | "..") || text.len() > MAX_ROLE_NAME || !text.bytes().all(fits)
        {
            return Err(RoleNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RoleNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a role's name is 1 to {MAX_ROLE_NAME} of A-Z a-z 0-9 _ . - and neither . nor .."
        )
    }
}

impl std::error::Error for RoleNameError {}
