//! The commands of the `vaulttmpfs` program, one a file.

pub mod agent;
