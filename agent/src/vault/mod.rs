//! Everything that is said to Vault: one pooled, warm session.
//!
//! [`error`] is the one place that judges Vault's answers, [`transport`] carries one call,
//! [`calls`] names the calls, [`own`] those about the generator token itself, [`client`] makes the
//! connection pool from the settings, [`gate`] bounds what is in flight, [`session`] holds the
//! generator token and knows how Vault is, and [`roles`] remembers what token roles allow. The
//! session's [`keeper`] renews the token as its [`lease`] says, looks with [`rights`] whether it can
//! do what it must, and takes another from the [`token_file`].

pub mod calls;
mod client;
pub mod error;
mod gate;
mod keeper;
mod lease;
mod own;
mod rights;
mod roles;
pub mod session;
mod token_file;
mod transport;

pub use calls::{CreateToken, Generator, Looked, Minted, Renewal, Role};
pub use error::{VaultError, Verdict};
pub use roles::Roles;
pub use session::{Session, Standing};
pub use token_file::read as read_token_file;
