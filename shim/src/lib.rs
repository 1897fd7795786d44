//! argv → agent → tmpfs → one JSON line.
//!
//! [`Call::parse`] reads the verb, [`Call::answer`] does it, [`run`] wraps both in the habits that the
//! kubelet and the secrets at hand ask for. It is a library so that tests and fuzz targets reach the
//! parsers; the one program made of it is `vaulttmpfs-shim`.
//!
//! The rooms, each knowing only those after it: `call` → `argv`, `options`, [`agent`] → [`mount`] →
//! `clock`, `secret`, [`sys`]. Only `sys` holds unsafe code.

pub mod agent;
mod answer;
mod argv;
mod call;
mod clock;
mod habits;
pub mod mount;
mod options;
mod secret;
pub mod sys;

pub use answer::Answer;
pub use argv::Call;
pub use call::{Bounds, Settings};
pub use clock::Deadline;
pub use options::{Options, OptionsError};
pub use secret::Secret;

/// Runs one call as the kubelet wants it run: quiet, one JSON line on standard output, exit code 0
/// whatever happens, a panic included.
pub fn run(call: impl FnOnce() -> Answer) -> ! {
    habits::take();
    answer::give(&call().line());
    sys::exit()
}
