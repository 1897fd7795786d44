//! `GET /v1/settings`: what this process was started with, nothing secret among it.

use super::answer::{self, Answer};
use crate::config::{self, ProcessEnvironment};

/// Answers with every setting, set or not.
pub(super) fn settings() -> Answer {
    let settings = config::shown(&ProcessEnvironment);
    answer::json(&serde_json::json!({ "settings": settings }))
}
