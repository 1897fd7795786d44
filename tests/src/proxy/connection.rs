//! One connection of the proxy: blocking, a thread of its own, HTTP/1.1 as plain as it comes.

use super::{Fault, Shared};
use crate::http::{Request, read_request};
use rustls::{ServerConnection, StreamOwned};
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// Headers that belong to one hop.
const HOP: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

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
        Some(Fault::Held(gate)) => {
            let bytes = forward(shared, request)?;
            gate.pass();
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
        if !is_hop(name) {
            upstream = upstream.header(name, value);
        }
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

fn is_hop(header: &str) -> bool {
    HOP.iter().any(|hop| header.eq_ignore_ascii_case(hop))
}
