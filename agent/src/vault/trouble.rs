//! What a failed call says of Vault, in words for people: the same whoever made it.

use super::error::VaultError;
use crate::failure::{Failure, Reason};

/// What is wrong with Vault at this address, or with the way to it. Whether the call's token was
/// refused is the caller's to say before.
pub(super) fn trouble(address: &str, error: &VaultError) -> Failure {
    let (reason, message) = if error.is_sealed() {
        (
            Reason::VaultSealed,
            format!("Vault at {address} is sealed or in maintenance ({error}): unseal it"),
        )
    } else if error.is_throttled() {
        (
            Reason::VaultBusy,
            format!("Vault at {address} asks to come later ({error}): is a quota too small?"),
        )
    } else {
        match error {
            VaultError::NoConnection(cause) | VaultError::NoAnswer(cause)
                if cause.contains("CertificateRequired") =>
            {
                (
                    Reason::VaultUnreachable,
                    format!(
                        "Vault at {address} wants a client certificate ({error}): name one in VAULT_CLIENT_CERT and VAULT_CLIENT_KEY"
                    ),
                )
            }
            VaultError::NoConnection(cause) if cause.contains("certificate") => (
                Reason::VaultUnreachable,
                format!(
                    "Vault's certificate at {address} is not trusted ({error}): does VAULT_CACERT or VAULT_CAPATH name the CA that signed it, and is the certificate for that host?"
                ),
            ),
            VaultError::NoConnection(_) => (
                Reason::VaultUnreachable,
                format!(
                    "Vault at {address} cannot be reached ({error}): is VAULT_ADDR right, and is Vault running?"
                ),
            ),
            VaultError::TimedOut(_) => (
                Reason::VaultUnreachable,
                format!(
                    "Vault at {address} does not answer ({error}): is it overloaded, or VAULT_CLIENT_TIMEOUT too short?"
                ),
            ),
            VaultError::Redirected(_) => (
                Reason::VaultFailed,
                format!(
                    "Vault at {address} answers with {error}: name the active node in VAULT_ADDR, or its host in VAULTTMPFS_REDIRECT_HOSTS"
                ),
            ),
            _ => (
                Reason::VaultFailed,
                format!(
                    "Vault at {address} failed ({error}): see Vault's log; is something else listening there?"
                ),
            ),
        }
    };
    Failure::new(reason, message)
}

/// A Vault that answers, but cannot be asked anything.
pub(super) fn asleep(address: &str, initialized: bool) -> Failure {
    let state = if initialized {
        "sealed: unseal it"
    } else {
        "not initialised"
    };
    Failure::new(
        Reason::VaultSealed,
        format!("Vault at {address} is {state}"),
    )
}
