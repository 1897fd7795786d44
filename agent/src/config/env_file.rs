//! systemd's files of variables (`EnvironmentFile=`, systemd.exec(5)).

/// The variables that systemd reads from such a file, in order; lines that are none are passed over, as
/// systemd does it. A comment ends with its line, as in a shell and in systemd from 254 on: an older one
/// takes the line after a comment that ends in a backslash for a part of it.
pub(crate) fn parse(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parser = Parser::default();
    for byte in text {
        parser.take(*byte);
    }
    parser.end();
    parser.found
}

/// The states of systemd's own parser (`env-file.c`).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    BeforeName,
    Name,
    BeforeValue,
    Value,
    ValueEscape,
    SingleQuoted,
    DoubleQuoted,
    DoubleQuotedEscape,
    Comment,
}

#[derive(Default)]
struct Parser {
    state: State,
    name: Vec<u8>,
    value: Vec<u8>,
    /// So much of the value is not blanks at its end.
    solid: usize,
    found: Vec<(String, Vec<u8>)>,
}

impl Parser {
    fn take(&mut self, byte: u8) {
        let newline = matches!(byte, b'\n' | b'\r');
        let blank = newline || matches!(byte, b' ' | b'\t');
        self.state = match self.state {
            State::BeforeName => match byte {
                b'#' | b';' => State::Comment,
                _ if blank => State::BeforeName,
                _ => {
                    self.name = vec![byte];
                    State::Name
                }
            },
            State::Name | State::Comment if newline => State::BeforeName,
            State::Name if byte == b'=' => {
                self.value.clear();
                self.solid = 0;
                State::BeforeValue
            }
            State::Name => {
                self.name.push(byte);
                State::Name
            }
            State::BeforeValue | State::Value if newline => {
                self.end();
                State::BeforeName
            }
            State::BeforeValue => match byte {
                b'\'' => State::SingleQuoted,
                b'"' => State::DoubleQuoted,
                b'\\' => State::ValueEscape,
                _ if blank => State::BeforeValue,
                _ => self.push(byte, State::Value),
            },
            State::Value if byte == b'\\' => State::ValueEscape,
            State::Value if blank => {
                self.value.push(byte);
                State::Value
            }
            // An escaped newline joins two lines.
            State::ValueEscape if newline => State::Value,
            State::Value | State::ValueEscape => self.push(byte, State::Value),
            State::SingleQuoted if byte == b'\'' => State::BeforeValue,
            State::SingleQuoted => self.push(byte, State::SingleQuoted),
            State::DoubleQuoted => match byte {
                b'"' => State::BeforeValue,
                b'\\' => State::DoubleQuotedEscape,
                _ => self.push(byte, State::DoubleQuoted),
            },
            State::DoubleQuotedEscape => match byte {
                b'"' | b'\\' | b'`' | b'$' => self.push(byte, State::DoubleQuoted),
                b'\n' => State::DoubleQuoted,
                _ => {
                    self.push(b'\\', State::DoubleQuoted);
                    self.push(byte, State::DoubleQuoted)
                }
            },
            State::Comment => State::Comment,
        };
    }

    fn push(&mut self, byte: u8, next: State) -> State {
        self.value.push(byte);
        self.solid = self.value.len();
        next
    }

    /// A value has ended, by its line or by the file.
    fn end(&mut self) {
        let in_value = !matches!(self.state, State::BeforeName | State::Name | State::Comment);
        if !in_value {
            return;
        }
        self.value.truncate(self.solid);
        let name = String::from_utf8_lossy(&self.name).trim_end().to_owned();
        self.found.push((name, std::mem::take(&mut self.value)));
    }
}

/// A line that systemd, and a shell, read as this variable; nothing for a value that systemd refuses.
pub(crate) fn line(name: &str, value: &str) -> Option<String> {
    if value.chars().any(char::is_control) {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if value.chars().all(plain) {
        return Some(format!("{name}={value}"));
    }
    let mut quoted = String::new();
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    Some(format!("{name}=\"{quoted}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let found = parse(text.as_bytes()).into_iter();
        found
            .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
            .collect()
    }

    #[test]
    fn reads_as_systemd_does() {
        for (text, expected) in [
            ("A=b", "b"),
            ("  A  =  b c  \n", "b c"),
            ("A=\n", ""),
            ("A=b#c ; d", "b#c ; d"),
            ("A='b \\ \"c'", "b \\ \"c"),
            ("A=\"b \\\" \\$ \\` \\\\ \\x\"", "b \" $ ` \\ \\x"),
            ("A=b\\\nc", "bc"),
            ("A=\"b\\\nc\"", "bc"),
            ("A=\"b\nc\"", "b\nc"),
            ("A=\\ b", " b"),
            ("A='b' \"c\" d ", "bcd"),
            ("# B=x\\\nA=b", "b"),
            ("; A=x\n\nA=b\n", "b"),
            ("A\nA=b", "b"),
            ("A=\"open", "open"),
        ] {
            let found = read(text);
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert_eq!(found[0], ("A".to_owned(), expected.to_owned()), "{text:?}");
        }
        assert_eq!(
            read("export A=b"),
            [("export A".to_owned(), "b".to_owned())]
        );
    }

    #[test]
    fn control_characters_are_not_written() {
        assert_eq!(line("A", "b\nc"), None);
        assert_eq!(line("A", "b c").as_deref(), Some("A=\"b c\""));
        assert_eq!(
            line("A", "https://x:8200/a").as_deref(),
            Some("A=https://x:8200/a")
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in "\\PC{0,40}|[ '\"\\\\$`#;=a]{0,12}") {
            if let Some(line) = line("A", &value) {
                prop_assert_eq!(read(&line), [("A".to_owned(), value.clone())]);
                prop_assert_eq!(read(&format!("{line}\nB=c\n")).len(), 2);
            }
        }

        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }
    }
}
