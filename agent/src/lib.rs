//! The `vaulttmpfs` agent and the admin's commands.
//!
//! Arrows point one way: [`commands`] → [`server`] → [`mount`] → [`vault`], [`volumes`],
//! [`options`] and [`files`]; [`check`] is a command's room that looks into most of them, and asks a
//! running agent by [`client`], as the commands do. None below the server knows the socket or HTTP;
//! [`config`], [`screen`] and [`mod@systemd`] are leaves.

pub mod adopt;
pub mod atomic_file;
pub mod bundle;
pub mod certificate;
pub mod check;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod descriptor;
pub mod driver;
pub mod duration;
pub mod exit;
pub mod failure;
pub mod files;
pub mod guard;
pub mod identity;
pub mod interrupt;
pub mod kubelet;
pub mod line;
pub mod logging;
pub mod metrics;
pub mod migrate;
pub mod mount;
pub mod mount_table;
pub mod options;
pub mod plain_file;
pub mod program;
pub mod root_own;
pub mod screen;
pub mod server;
pub mod systemd;
pub mod terminal;
pub mod timer;
pub mod unit;
pub mod vault;
pub mod volumes;
