//! A pseudo-terminal with a command on it, and a person who reads and types.

use crate::{eventually, eventually_within, evidence};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a busy machine needs for a command that asks Vault some times.
const PATIENCE: Duration = Duration::from_secs(120);

/// What no command says.
const LAST: &str = "-- that is all --";

/// A command with a terminal of its own.
pub struct Terminal {
    process: Child,
    keyboard: File,
    /// The command's side, held so that it can be looked at.
    line: OwnedFd,
    /// As bytes: a character may come in parts.
    screen: Arc<Mutex<Vec<u8>>>,
    /// So much of the screen was read already.
    seen: usize,
}

impl Terminal {
    /// Starts a command on one, in a session of its own: what is typed may be a signal.
    #[must_use]
    pub fn run(command: &Command) -> Self {
        Self::run_sized(command, 80, 24)
    }

    /// The same on one with so many columns and lines.
    #[must_use]
    pub fn run_sized(command: &Command, columns: u16, lines: u16) -> Self {
        let window = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&window), None).expect("a pseudo-terminal");
        let side = || pair.slave.try_clone().expect("the terminal's line");
        let mut on_terminal = Command::new("setsid");
        on_terminal
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(side())
            .stdout(side())
            .stderr(side());
        let process = on_terminal.spawn().expect("setsid runs");
        let keyboard = File::from(pair.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        watch(
            keyboard.try_clone().expect("the terminal"),
            Arc::clone(&screen),
        );
        Self {
            process,
            keyboard,
            line: pair.slave,
            screen,
            seen: 0,
        }
    }

    /// Waits until this is shown after what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let found = eventually_within(
            PATIENCE,
            &format!("{text:?} on {:?}", self.screen()),
            || {
                let screen = self.screen();
                screen[self.seen..].find(text).map(|at| self.seen + at)
            },
        );
        self.seen = found + text.len();
    }

    /// Types a line.
    pub fn types(&self, line: &str) {
        self.press(&format!("{line}\n"));
    }

    /// Presses keys, Ctrl-C (`\x03`) among them.
    pub fn press(&self, keys: &str) {
        let mut keyboard = &self.keyboard;
        keyboard.write_all(keys.as_bytes()).expect("typing");
    }

    /// Answers a question: nothing is typed before it is asked.
    #[track_caller]
    pub fn answer(&mut self, question: &str, line: &str) {
        self.shows(question);
        self.types(line);
    }

    /// Is what is typed shown?
    #[must_use]
    pub fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.line).expect("the terminal's modes");
        modes.local_flags.contains(LocalFlags::ECHO)
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.process.id().cast_signed());
        kill(id, signal).expect("a signal");
    }

    /// All that was shown so far.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits for the command's end: its exit status, and all that was shown.
    #[track_caller]
    pub fn end(mut self) -> (i32, String) {
        let status = eventually_within(PATIENCE, "the command's end", || {
            self.process.try_wait().expect("waiting for the command")
        });
        // What it wrote last is still on its way; this is shown after it.
        self.types(LAST);
        eventually("the last of the screen", || {
            self.screen().contains(LAST).then_some(())
        });
        (status.code().expect("no signal ended it"), self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        evidence::keep_output("terminals", &self.screen());
    }
}

/// Reads until the terminal has gone.
fn watch(mut from: File, screen: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            screen.lock().unwrap().extend_from_slice(&bytes[..length]);
        }
    });
}
