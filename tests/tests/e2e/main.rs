//! End-to-end tests: a real Vault server over TLS, the agent and the driver as they are built, real
//! mounts. One binary of modules, one subject each; `tests/README.md` says how to run one.
#![forbid(unsafe_code)]
#![allow(clippy::doc_markdown, reason = "OpenBao is a name, not code")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, naming the place"
)]

mod atomicity;
mod bootstrap;
mod check;
mod concurrency;
mod cost;
mod demo;
mod generator;
mod harness;
mod hostile;
mod install_driver;
mod installed;
mod lifecycle;
mod log;
mod metrics;
mod migrate;
mod mount;
mod options;
mod readme;
mod renew_token;
mod status;
mod supervised;
mod support_bundle;
mod surroundings;
mod unmount;
mod volumes;
