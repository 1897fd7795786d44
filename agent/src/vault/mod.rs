//! Everything that is said to Vault: one pooled, warm session.
//!
//! [`error`] is the one place that judges Vault's answers, [`trouble`] says them to people, [`transport`]
//! carries one call, [`calls`] names the calls, [`plain`] is one that vaultrs does not know, [`own`] those
//! about the generator token itself, [`pki`] those for certificates, [`pool`] keeps the connections, with
//! [`tls`] as the settings want it, [`gate`] bounds what is in flight, [`session`] holds the generator token
//! and knows how Vault is, and [`roles`] remembers what token roles allow. The session's [`keeper`] renews
//! the token as its [`lease`] says, looks with [`rights`] whether it can do what it must, and takes another
//! from the [`token_file`]. [`direct`] is for commands that ask Vault by themselves, [`probe`] for one that
//! wants to know what is wrong: it has the certificates shown by [`chain`].

pub mod calls;
mod chain;
mod direct;
pub mod error;
mod gate;
pub mod keeper;
pub mod lease;
mod own;
pub mod pki;
mod plain;
mod pool;
mod probe;
mod rights;
mod roles;
pub mod session;
mod tls;
mod token_file;
mod transport;
mod trouble;

pub use calls::{CreateToken, Generator, Health, Looked, Minted, Renewal, Role};
pub use chain::Chain;
pub use direct::{Credentials, Direct, Given, NewGenerator, Wrapping};
pub use error::{VaultError, Verdict};
pub use own::{Capabilities, WrappingBounds};
pub use probe::Probe;
pub use rights::{Findings, Needs, Right, Trial, renew_itself};
pub use roles::Roles;
pub use session::{Session, Sight, Standing};
pub use token_file::read as read_token_file;
