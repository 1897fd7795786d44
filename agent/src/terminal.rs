//! Standard input where a person is on the other side, or a pipe with one line.

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdin};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// The longest line that is read, in bytes: what a terminal takes at once.
const LONGEST: usize = 4096;

/// Is a person there to be asked?
#[must_use]
pub fn is_there() -> bool {
    stdin().is_terminal()
}

/// Asks on standard error, and reads a line.
///
/// # Errors
/// There is none, or it is not text.
pub async fn ask(question: &str) -> io::Result<Zeroizing<String>> {
    let mut out = stderr();
    // A person who does not see the question can still be read.
    let _ = write!(out, "{question}: ").and_then(|()| out.flush());
    line().await
}

/// The same for what nobody may see: it is not shown. Dropped before the answer is there, it has the
/// terminal show again what is typed.
///
/// # Errors
/// As [`ask`], and where the terminal cannot be kept from showing it.
pub async fn ask_in_secret(question: &str) -> io::Result<Zeroizing<String>> {
    let _hidden = Hidden::from_now_on()?;
    ask(question).await
}

/// Reads a line, without its end.
///
/// # Errors
/// There is none, it is longer than 4096 bytes, or it is not text.
pub async fn line() -> io::Result<Zeroizing<String>> {
    let (tell, heard) = oneshot::channel();
    // Nothing ends a read but a line: a thread that still waits for one ends with the process.
    std::thread::Builder::new().spawn(move || tell.send(read_line()).is_ok())?;
    heard
        .await
        .unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
}

/// Byte by byte: what comes after the line is not ours, and no buffer keeps a secret.
fn read_line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut byte = Zeroizing::new([0]);
    loop {
        match nix::unistd::read(stdin(), &mut *byte) {
            Ok(0) if line.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() == LONGEST => return Err(ErrorKind::FileTooLarge.into()),
            Ok(_) => line.push(byte[0]),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = str::from_utf8(&line).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The terminal does not show what is typed, until dropped.
struct Hidden(Termios);

impl Hidden {
    fn from_now_on() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ECHO);
        // The end of the line is shown all the same.
        now.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(stdin(), SetArg::TCSAFLUSH, &now)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nobody to tell of an error.
        let _ = tcsetattr(stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
