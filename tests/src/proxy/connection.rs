//! One connection of the proxy: blocking, a thread of its own, HTTP/1.1 as plain as it comes.

use super::{Fault, Shared};
use rustls::{ServerConnection, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// The longest head of a request that is read.
const MAX_HEAD: u64 = 64 * 1024;

/// Headers that belong to one hop.
const HOP: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Serves until either side ends it.
pub(super) fn serve(connection: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let tls = ServerConnection::new(Arc::clone(&shared.tls)).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, connection));
    while let Some(request) = read_request(&mut stream)? {
        let fault = shared.take(&format!("{} {}", request.method, request.path));
        let answered = answer(&mut stream, shared, &request, fault);
        shared.done();
        if !answered? {
            // Without a TLS close: a server that dies does not say goodbye either.
            return stream.get_ref().sock.shutdown(std::net::Shutdown::Both);
        }
    }
    Ok(())
}

/// Answers one request, and says whether another may follow.
fn answer(
    stream: &mut Stream,
    shared: &Shared,
    request: &Request,
    fault: Option<Fault>,
) -> io::Result<bool> {
    match fault {
        None => send(stream, &forward(shared, request)?)?,
        Some(Fault::Instead(bytes)) => send(stream, &bytes)?,
        Some(Fault::InsteadOfItsAnswer(bytes)) => {
            forward(shared, request)?;
            send(stream, &bytes)?;
        }
        Some(Fault::Cut(length)) => {
            let bytes = forward(shared, request)?;
            send(stream, &bytes[..length.min(bytes.len())])?;
            return Ok(false);
        }
        Some(Fault::Flood(length)) => {
            flood(stream, length)?;
            return Ok(false);
        }
        Some(Fault::Silence) => {
            // Until the client, or the test, has had enough.
            io::copy(stream, &mut io::sink())?;
            return Ok(false);
        }
        Some(Fault::HangUp) => return Ok(false),
        Some(Fault::Late(delay)) => {
            let bytes = forward(shared, request)?;
            std::thread::sleep(delay);
            send(stream, &bytes)?;
        }
        Some(Fault::CloseAfter) => {
            send(stream, &forward(shared, request)?)?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let stream = stream.get_mut();
    stream.write_all(bytes)?;
    stream.flush()
}

/// A JSON text of `length` bytes, `"aaa…a"`. Its length is not announced: who reads must count.
fn flood(stream: &mut Stream, length: u64) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\"";
    send(stream, head.as_bytes())?;
    let mut letters = io::repeat(b'a').take(length - 2);
    io::copy(&mut letters, stream.get_mut())?;
    send(stream, b"\"")
}

/// Asks Vault, and writes its answer as one with a length.
fn forward(shared: &Shared, request: &Request) -> io::Result<Vec<u8>> {
    let mut upstream = ureq::http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("{}{}", shared.vault, request.path));
    for (name, value) in &request.headers {
        upstream = upstream.header(name, value);
    }
    let answer = if request.body.is_empty() {
        shared
            .upstream
            .run(upstream.body(()).map_err(io::Error::other)?)
    } else {
        let body = request.body.as_slice();
        shared
            .upstream
            .run(upstream.body(body).map_err(io::Error::other)?)
    };
    let mut answer = answer.map_err(io::Error::other)?;
    let body = answer.body_mut().read_to_vec().map_err(io::Error::other)?;
    let mut bytes = format!(
        "HTTP/1.1 {}\r\nContent-Length: {}\r\n",
        answer.status(),
        body.len()
    )
    .into_bytes();
    for (name, value) in answer.headers() {
        if !is_hop(name.as_str()) {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    Ok(bytes)
}

/// The next request, or nothing when the client has ended the connection.
fn read_request(stream: &mut Stream) -> io::Result<Option<Request>> {
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
        if !is_hop(header.name) {
            request.headers.push((header.name.to_owned(), value));
        }
    }
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn read_head(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut limited = stream.take(MAX_HEAD);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_until(b'\n', &mut head)? == 0 {
            return Ok(Vec::new());
        }
    }
    Ok(head)
}

fn is_hop(header: &str) -> bool {
    HOP.iter().any(|hop| header.eq_ignore_ascii_case(hop))
}
