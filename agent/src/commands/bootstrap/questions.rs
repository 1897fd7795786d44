//! What was not given, asked of the person at the terminal where there is one.

use super::{Problem, wrong};
use crate::commands::complain;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::{plain_file, terminal};
use secrecy::SecretString;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The longest file with a password that is read, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// A pipe that gives no password in this time gives none.
const PIPE: Duration = Duration::from_secs(60);

/// Asks, until somebody wants the process to end.
pub(super) struct Questions {
    interrupt: Interrupt,
    /// Somebody is there to answer.
    person: bool,
}

/// Something to be known.
pub(super) struct Question<'a> {
    /// The option by which it may be given.
    pub(super) option: &'static str,
    /// What a person is asked.
    pub(super) text: &'a str,
    /// What holds where there is no answer.
    pub(super) default: Option<&'a str>,
}

impl Questions {
    pub(super) fn new(interrupt: Interrupt) -> Self {
        let person = terminal::is_there();
        Self { interrupt, person }
    }

    /// Can somebody be asked?
    pub(super) fn reach_a_person(&self) -> bool {
        self.person
    }

    /// What was given, or else answered, or else the default.
    pub(super) async fn answer<T>(
        &self,
        given: Option<&str>,
        question: &Question<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Problem> {
        let Question {
            option, default, ..
        } = question;
        match given.or(default.filter(|_| !self.person)) {
            Some(value) => parse(value).map_err(|expected| wrong(option, &expected)),
            None if self.person => self.ask(question, parse).await,
            None => Err(Problem::new(
                Exit::Usage,
                format!("{option} is missing, and standard input is no terminal to ask at"),
            )),
        }
    }

    async fn ask<T>(
        &self,
        question: &Question<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Problem> {
        let Question { text, default, .. } = question;
        let shown = match default {
            Some(default) if !default.is_empty() => format!("{text} [{default}]"),
            _ => (*text).to_owned(),
        };
        loop {
            let answer = self.interrupt.unless_it_comes(terminal::ask(&shown));
            let answer = answer.await?.map_err(|error| no_answer(text, &error))?;
            let answer = match (answer.trim(), default) {
                ("", Some(default)) => default,
                (answer, _) => answer,
            };
            match parse(answer) {
                Ok(value) => return Ok(value),
                Err(expected) => complain(&format!("expected {expected}")),
            }
        }
    }

    /// A password: the first line of a file or of standard input, or else a person's answer, which is not
    /// shown.
    pub(super) async fn password(&self, file: Option<&str>) -> Result<SecretString, Problem> {
        let password = match file {
            Some("-") if !self.person => {
                let line = timeout(PIPE, terminal::line());
                let line = self.interrupt.unless_it_comes(line).await?;
                line.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(|error| no_answer("standard input", &error))?
            }
            Some(path) if path != "-" => {
                first_line(Path::new(path)).map_err(|error| no_answer(path, &error))?
            }
            _ if self.person => {
                let answer = self
                    .interrupt
                    .unless_it_comes(terminal::ask_in_secret("Password"));
                answer
                    .await?
                    .map_err(|error| no_answer("Password", &error))?
            }
            _ => {
                return Err(Problem::new(
                    Exit::Usage,
                    "--password-file is missing, and standard input is no terminal to ask at",
                ));
            }
        };
        if password.is_empty() {
            return Err(Problem::new(Exit::Usage, "the password is empty"));
        }
        Ok(SecretString::from(password.as_str()))
    }
}

fn first_line(path: &Path) -> io::Result<Zeroizing<String>> {
    let text = plain_file::read_named(path, MAX_PASSWORD)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match str::from_utf8(line) {
        Ok(line) => Ok(Zeroizing::new(line.to_owned())),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn no_answer(what: &str, error: &io::Error) -> Problem {
    Problem::new(Exit::Usage, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_files_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (text, password) in [
            ("open sesame\n", "open sesame"),
            (" open\r\nnext\n", " open"),
            ("open", "open"),
            ("", ""),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(*first_line(&path).unwrap(), password, "{text:?}");
        }
        for bad in [&b"\xff\n"[..], &[b'x'; 5000]] {
            std::fs::write(&path, bad).unwrap();
            assert!(first_line(&path).is_err());
        }
    }
}
