//! As much of HTTP/1.1 (RFC 9112) as the contract with the agent needs.

use vaulttmpfs_api::{DRIVER_AGENT, MAX_ANSWER};

/// The longest head of an answer, in bytes.
pub(super) const MAX_HEAD: usize = 4 * 1024;

/// More header fields than the agent ever sends.
const MAX_FIELDS: usize = 24;

/// What comes before an answer's body.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Where the body begins, in bytes.
    pub body: usize,
    /// The body's length in bytes, at most `MAX_ANSWER`.
    pub length: usize,
    /// Whether the connection stays open for another request.
    pub keep: bool,
}

/// Parses an answer's head, or finds that more bytes are needed. Everything that the agent has no
/// reason to send is an error, which says why.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let body = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(body)) if body <= MAX_HEAD => body,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
        Ok(_) => return Err("its head is too long"),
        Err(_) => return Err("it is not HTTP"),
    };
    let (Some(status @ 200..), Some(1)) = (parsed.code, parsed.version) else {
        return Err("it is not a final answer of HTTP/1.1");
    };
    let (mut length, mut keep) = (None, true);
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("it has no length (a transfer encoding)");
        } else if field.name.eq_ignore_ascii_case("content-length") {
            if length.replace(parse_length(field.value)?).is_some() {
                return Err("it has two lengths");
            }
        } else if field.name.eq_ignore_ascii_case("connection") {
            keep = !field.value.eq_ignore_ascii_case(b"close");
        }
    }
    let length = match (status, length) {
        (204 | 304, None | Some(0)) => 0,
        (204 | 304, Some(_)) => return Err("it has a body where there can be none"),
        (_, Some(length)) => length,
        (_, None) => return Err("it has no length"),
    };
    Ok(Some(Head {
        status,
        body,
        length,
        keep,
    }))
}

/// Digits only, and no more than the contract allows.
fn parse_length(value: &[u8]) -> Result<usize, &'static str> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("its length is not a number");
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|&length| length <= MAX_ANSWER)
        .ok_or("it is larger than 1 MiB")
}

/// A POST with a JSON body.
pub(super) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, body)
}

/// A whole request.
pub(super) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: vaulttmpfs\r\nUser-Agent: {DRIVER_AGENT}{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_what_the_agent_sends() {
        for (text, status, length, keep) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\ndate: x\r\n\r\n",
                200,
                12,
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, 0, true),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n",
                204,
                0,
                false,
            ),
            (
                "HTTP/1.1 503 \r\nContent-Length: 1048576\r\n\r\n",
                503,
                1_048_576,
                true,
            ),
        ] {
            let head = Head {
                status,
                body: text.len(),
                length,
                keep,
            };
            let with_body = format!("{text}{{}}");
            assert_eq!(parse_head(with_body.as_bytes()), Ok(Some(head)), "{text}");
            for cut in 0..text.len() {
                assert_eq!(
                    parse_head(&text.as_bytes()[..cut]),
                    Ok(None),
                    "{cut} of {text}"
                );
            }
        }
    }

    #[test]
    fn refuses_everything_odd() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
        let whole = format!("{long}\r\nContent-Length: 1\r\n\r\n");
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        for (text, why) in [
            ("SSH-2.0-OpenSSH_9\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n", "not HTTP"),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
                "not a final answer",
            ),
            ("HTTP/1.1 100 Continue\r\n\r\n", "not a final answer"),
            ("HTTP/1.1 200 OK\r\n\r\n", "no length"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                "no length",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
                "two lengths",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
                "not a number",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
                "not a number",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n",
                "larger than",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                "larger than",
            ),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
                "there can be none",
            ),
            (long.as_str(), "too long"),
            (whole.as_str(), "too long"),
            (many.as_str(), "not HTTP"),
        ] {
            let error = parse_head(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_request_is_whole() {
        let bytes = post("/v1/volumes", b"{}");
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with("POST /v1/volumes HTTP/1.1\r\nHost: "),
            "{text}"
        );
        assert!(text.ends_with("\r\nContent-Length: 2\r\n\r\n{}"), "{text}");
    }

    proptest! {
        #[test]
        fn never_panics(tail in prop::collection::vec(any::<u8>(), 0..200), status in any::<u16>()) {
            for text in [String::new(), format!("HTTP/1.1 {status} x\r\ncontent-length: ")] {
                let mut bytes = text.into_bytes();
                bytes.extend_from_slice(&tail);
                if let Ok(Some(head)) = parse_head(&bytes) {
                    prop_assert!(head.body <= bytes.len() && head.length <= MAX_ANSWER);
                }
            }
        }
    }
}
