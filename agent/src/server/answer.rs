//! Answers on the socket.

use crate::failure::Failure;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use vaulttmpfs_api::Refusal;

/// An answer with its whole body.
pub(super) type Answer = Response<Full<Bytes>>;

/// 200 with a body.
pub(super) fn json(body: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, body)
}

/// 204: done.
pub(super) fn done() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A failure's status with its message for the caller.
pub(super) fn refusal(failure: &Failure) -> Answer {
    let status = StatusCode::from_u16(failure.reason.status());
    with_status(
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        &Refusal {
            reason: failure.reason.word().to_owned(),
            message: failure.message.clone(),
        },
    )
}

/// Any status with a body.
pub(super) fn with_status(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec());
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
