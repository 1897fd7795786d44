//! A socket of datagrams that is emptied all the time: whoever sends waits while some are unread.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// So long nobody looks whether there are new ones.
const PAUSE: Duration = Duration::from_millis(10);

/// The largest datagram, in bytes.
const LARGEST: usize = 64 * 1024;

/// What was sent to a socket, until somebody takes it.
pub(crate) struct Inbox(Arc<Mutex<Mail>>);

struct Mail {
    socket: UnixDatagram,
    buffer: Vec<u8>,
    unread: Vec<Vec<u8>>,
}

impl Inbox {
    /// Empties the socket from now on, as long as this lives.
    pub(crate) fn of(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).expect("a socket to look at");
        let mail = Arc::new(Mutex::new(Mail {
            socket,
            buffer: vec![0; LARGEST],
            unread: Vec::new(),
        }));
        let wanted = Arc::downgrade(&mail);
        thread::spawn(move || {
            while let Some(mail) = wanted.upgrade() {
                mail.lock().expect("no panic meanwhile").collect();
                drop(mail);
                thread::sleep(PAUSE);
            }
        });
        Self(mail)
    }

    /// Everything sent so far and not taken yet.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        let mut mail = self.0.lock().expect("no panic meanwhile");
        mail.collect();
        std::mem::take(&mut mail.unread)
    }
}

impl Mail {
    fn collect(&mut self) {
        while let Ok(length) = self.socket.recv(&mut self.buffer) {
            self.unread.push(self.buffer[..length].to_vec());
        }
    }
}
