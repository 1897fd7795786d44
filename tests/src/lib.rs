//! What the end-to-end tests and the demo stand on: a real Vault server (OpenBao), a faulty proxy
//! in front of it, a node with an agent in a mount namespace of its own, and a kubelet.
//!
//! Nothing here uses the agent's or the driver's own code, only the names both are called by.
#![forbid(unsafe_code)]
#![allow(clippy::doc_markdown, reason = "OpenBao is a name, not code")]
#![allow(
    clippy::must_use_candidate,
    reason = "many a call is made for its effect"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a harness that cannot go on fails its test, naming the place"
)]

mod authority;
mod binaries;
mod child;
mod cluster;
mod command;
mod counts;
mod eventually;
mod evidence;
mod files;
mod http;
mod https;
mod inbox;
mod instant;
mod journald;
mod lab;
mod ldap;
mod machine;
mod mounts;
mod node;
mod numbers;
mod openbao;
mod pki;
mod played_kubelet;
mod prometheus;
mod proxy;
mod readme;
mod secrets;
mod socket;
mod systemd;
mod tcp;
mod terminal;
mod trace;
mod vault;

pub use authority::{Authority, Identity};
pub use binaries::{agent, cargo_generate_rpm, driver, outside_cargo, package, package_files};
pub use child::Child;
pub use cluster::{Cluster, PodManifest, RealKubelet, RealPod, in_own_namespaces};
pub use command::Said;
pub use counts::{instructions, system_calls};
pub use eventually::{AFTER_UNMOUNT, eventually, eventually_within};
pub use evidence::find_leaks;
pub use files::JOURNAL;
pub use instant::answer_at_once;
pub use journald::{Entry, Journald};
pub use lab::{Lab, LabBuilder};
pub use ldap::{LDAP_SUFFIX, Ldap};
pub use machine::{Machine, PLUGINS};
pub use mounts::{Mount, mount_table};
pub use node::{Agent, Node, Settings};
pub use numbers::Numbers;
pub use openbao::{OpenBao, Storage};
pub use played_kubelet::{Kubelet, Options, Outcome, Pod, Volume};
pub use prometheus::{Prometheus, Target, promtool};
pub use proxy::{Fault, Proxy};
pub use readme::{readme, readme_block, source_tree};
pub use secrets::Secrets;
pub use socket::Answer;
pub use systemd::{Manager, with_passed};
pub use tcp::{Connection, Reading, free_port};
pub use terminal::Terminal;
pub use trace::{Moment, kill_at, kill_at_call, kill_at_change};
pub use vault::{GENERATOR_POLICY, Reply, Role, Vault, text};
