//! An agent that answers at once, so that what the driver itself costs can be told from the rest. A
//! fake, because the real one waits for Vault.

use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use vaulttmpfs_api::VOLUMES_PATH;

/// Bytes of the usual four files: a token, its JSON, Vault's address, a CA certificate; with their modes.
const FILES: [(&str, usize, u32); 4] = [
    ("vault-token", 92, 0o640),
    ("vault-token.json", 420, 0o640),
    ("vault-addr", 18, 0o644),
    ("ca.crt", 700, 0o644),
];

/// The longest request, in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// Serves a socket from a thread of its own until the process ends: each request for a volume gets
/// the same one, everything else 204.
///
/// # Panics
/// Where the socket cannot be made.
pub fn answer_at_once(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("the instant agent's socket");
    std::thread::spawn(move || {
        let volume = volume();
        for connection in listener.incoming() {
            let Ok(connection) = connection else { continue };
            let volume = volume.clone();
            std::thread::spawn(move || serve(connection, &volume));
        }
    });
}

/// Requests as the driver and the floor send them: each whole in one write.
fn serve(mut connection: UnixStream, volume: &[u8]) {
    let mut request = vec![0; MAX_REQUEST];
    let mint = format!("POST {VOLUMES_PATH} ");
    while let Ok(length @ 1..) = connection.read(&mut request) {
        let answer = if request[..length].starts_with(mint.as_bytes()) {
            volume
        } else {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        };
        if connection.write_all(answer).is_err() {
            return;
        }
    }
}

fn volume() -> Vec<u8> {
    let owner = json!({"uid": 0, "gid": 2000});
    let files = FILES.map(|(name, size, mode)| {
        // Base64 without padding where the size is a multiple of three.
        let bytes = "QUFB".repeat(size / 3) + ["", "QQ==", "QUE="][size % 3];
        json!({"name": name, "mode": mode, "owner": owner, "bytes": bytes})
    });
    let body = json!({
        "id": format!("{:032x}", 1),
        "attach_by": u64::from(u32::MAX) * 1000,
        "directory": {"mode": 0o755, "owner": owner, "size": 1_048_576},
        "files": files,
    })
    .to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: Sat, 21 Nov 2026 04:04:04 GMT\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
