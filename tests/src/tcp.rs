//! A client of a server at a TCP address, with TLS or without: one connection, used for one request after
//! the other.

use crate::{Identity, evidence};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// So long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// A connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// The server's certificate in DER, where it showed one.
    pub certificate: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug)]
pub struct Reading {
    /// The HTTP status.
    pub status: u16,
    /// The server wants no other request on this connection.
    pub closes: bool,
    /// The body.
    pub body: String,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Connection {
    /// Connects in the clear.
    pub fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            stream: Box::new(tcp(address)?),
            certificate: None,
        })
    }

    /// Connects over TLS, trusting this authority (PEM), and showing this certificate where there is one.
    /// With TLS 1.3 a client learns only with the first answer that its certificate was refused.
    pub fn tls(address: SocketAddr, ca: &str, client: Option<&Identity>) -> io::Result<Self> {
        let config = Arc::new(configuration(ca, client));
        let name = ServerName::from(address.ip());
        let client = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(client, tcp(address)?);
        stream.conn.complete_io(&mut stream.sock)?;
        let shown = stream.conn.peer_certificates();
        let certificate = shown.and_then(|chain| chain.first()).map(|it| it.to_vec());
        Ok(Self {
            stream: Box::new(stream),
            certificate,
        })
    }

    /// Asks for this path.
    pub fn get(&mut self, path: &str) -> io::Result<Reading> {
        self.call("GET", path)
    }

    /// One request without a body.
    pub fn call(&mut self, method: &str, path: &str) -> io::Result<Reading> {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: agent\r\n\r\n").as_bytes())?;
        self.read()
    }

    /// Sends some bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads one answer.
    pub fn read(&mut self) -> io::Result<Reading> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more(&mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches(':').trim().to_owned())
        };
        let length = header("content-length").map_or(0, |text| text.parse().expect("a length"));
        while bytes.len() < end + length {
            self.more(&mut bytes)?;
        }
        evidence::keep_output("answers over TCP", &String::from_utf8_lossy(&bytes));
        Ok(Reading {
            status: status.ok_or(ErrorKind::InvalidData)?,
            closes: header("connection").as_deref() == Some("close"),
            body: String::from_utf8_lossy(&bytes[end..]).into_owned(),
        })
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut some = [0; 4096];
        match self.stream.read(&mut some)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                bytes.extend_from_slice(&some[..count]);
                Ok(())
            }
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn configuration(ca: &str, client: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(root.expect("a CA")).expect("a CA");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots);
    let Some(identity) = client else {
        return builder.with_no_client_auth();
    };
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    builder
        .with_client_auth_cert(chain, key)
        .expect("a certificate and its key")
}
