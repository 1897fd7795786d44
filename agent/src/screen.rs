//! What a command prints for people: as wide as the terminal, in colour where that is wanted, and
//! without anything that a terminal would obey.

mod table;

pub use table::{Cell, Column, table};

use crate::line::harmless;
use std::borrow::Cow;
use std::env;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use terminal_size::{Height, Width};

/// Says that no colour is wanted, whatever its value (<https://no-color.org>).
const NO_COLOR: &str = "NO_COLOR";

/// A narrower terminal is written to as if it were so wide.
const NARROWEST: usize = 20;

/// Where standard output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// The terminal's columns and lines; nothing where it is no terminal, and lines have no end.
    size: Option<(usize, usize)>,
    colour: bool,
}

/// What a text is to be felt as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Nothing special.
    #[default]
    Plain,
    /// A heading.
    Head,
    /// All is well.
    Good,
    /// Not as it should be.
    Doubt,
    /// Something is wrong.
    Bad,
}

impl Screen {
    /// Where this process's standard output goes.
    #[must_use]
    pub fn of_output() -> Self {
        let output = io::stdout();
        if !output.is_terminal() {
            return Self::default();
        }
        let (width, height) = match terminal_size::terminal_size_of(&output) {
            // A terminal that does not know its size says 0.
            Some((Width(width), Height(height))) if width > 0 && height > 0 => (width, height),
            _ => (80, 24),
        };
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            size: Some((usize::from(width).max(NARROWEST), usize::from(height))),
            colour: set(NO_COLOR).is_none() && set("TERM").is_some_and(|term| term != "dumb"),
        }
    }

    /// Is it a terminal?
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.size.is_some()
    }

    /// The terminal's lines.
    #[must_use]
    pub fn height(&self) -> Option<usize> {
        self.size.map(|(_, height)| height)
    }

    /// The terminal's columns.
    fn width(&self) -> Option<usize> {
        self.size.map(|(width, _)| width)
    }

    /// The text in its mood's colour.
    #[must_use]
    pub fn paint(&self, mood: Mood, text: &str) -> String {
        let code = match mood {
            _ if !self.colour => return text.to_owned(),
            Mood::Plain => return text.to_owned(),
            Mood::Head => "1",
            Mood::Good => "32",
            Mood::Doubt => "33",
            Mood::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A text behind the head of its line; on a terminal in as many lines as it needs, all as far in.
    #[must_use]
    pub fn paragraph(&self, head: &str, mood: Mood, text: &str) -> String {
        let text = harmless(text);
        let indent = head.chars().count();
        let Some(room) = self.width().and_then(|width| width.checked_sub(indent)) else {
            return format!("{head}{}\n", self.paint(mood, &text));
        };
        let mut paragraph = String::new();
        for (number, line) in fold(&text, room.max(1)).iter().enumerate() {
            let before = if number == 0 {
                Cow::from(head)
            } else {
                Cow::from(" ".repeat(indent))
            };
            // Writing to a String cannot fail.
            let _ = writeln!(paragraph, "{before}{}", self.paint(mood, line));
        }
        paragraph
    }
}

/// A text in lines of at most so many characters, divided at blanks where there are some.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + rest.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        } else if length > 0 {
            line.push(' ');
            length += 1;
        }
        while rest.len() > width {
            lines.push(rest.drain(..width).collect());
        }
        length += rest.len();
        line.extend(rest);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
impl Screen {
    /// A terminal without colours.
    pub(crate) fn of_width(width: usize) -> Self {
        Self {
            size: Some((width, 24)),
            colour: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_keeps_within_the_terminal_and_is_one_line_elsewhere() {
        let text = "Vault is sealed: unseal it, and then have a look";
        let narrow = Screen::of_width(20).paragraph("why  ", Mood::Bad, text);
        let expected = "why  Vault is\n     sealed: unseal\n     it, and then\n     have a look\n";
        assert_eq!(narrow, expected);
        let pipe = Screen::default().paragraph("why  ", Mood::Bad, text);
        assert_eq!(pipe, format!("why  {text}\n"));
        assert_eq!(fold("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert_eq!(fold("", 3), [""]);
    }

    #[test]
    fn colour_is_where_it_is_wanted() {
        let colourful = Screen {
            size: Some((80, 24)),
            colour: true,
        };
        assert_eq!(colourful.paint(Mood::Bad, "no"), "\u{1b}[31mno\u{1b}[0m");
        assert_eq!(colourful.paint(Mood::Plain, "no"), "no");
        assert_eq!(Screen::default().paint(Mood::Bad, "no"), "no");
    }
}
