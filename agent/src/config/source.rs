//! Where settings come from.

use std::collections::HashMap;
use std::ffi::OsString;

/// Environment variables by name, so that tests need not touch the process's own.
pub trait Environment {
    /// The variable's value, or nothing when it is not set.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The process's own environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

impl<S: std::hash::BuildHasher> Environment for HashMap<&str, OsString, S> {
    fn get(&self, name: &str) -> Option<OsString> {
        HashMap::get(self, name).cloned()
    }
}
