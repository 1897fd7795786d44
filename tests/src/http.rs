//! HTTP/1.1 as the servers of the tests read it: blocking, and as plain as it comes.

use std::io::{self, BufRead, Read};

/// The longest head of a request that is read, in bytes.
const MAX_HEAD: u64 = 64 * 1024;

/// One request.
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The next request, or nothing when the client has ended the connection.
pub(crate) fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let head = read_head(stream)?;
    if head.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    for header in parsed.headers {
        let value = String::from_utf8_lossy(header.value).into_owned();
        if header.name.eq_ignore_ascii_case("content-length") {
            request.body = vec![0; value.parse().map_err(io::Error::other)?];
        }
        request.headers.push((header.name.to_owned(), value));
    }
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut limited = stream.take(MAX_HEAD);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_until(b'\n', &mut head)? == 0 {
            return Ok(Vec::new());
        }
    }
    Ok(head)
}
