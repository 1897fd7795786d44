//! Texts from outside, where they are shown: on one line, and without anything that a terminal would obey.

use std::borrow::Cow;

/// The text on one line. What else is not printable, such as a control character or a mark that turns the
/// direction of writing, is shown by its number.
#[must_use]
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '\n' | '\r' | '\t' => shown.push(' '),
            one if is_printable(one) => shown.push(one),
            one => shown.extend(one.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// The same, cut where it is longer than so many bytes.
#[must_use]
pub fn one_line(text: &str, longest: usize) -> String {
    let mut line = harmless(text).into_owned();
    if line.len() > longest {
        let end = (0..=longest).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

/// As Rust tells it when it prints a text for debugging.
fn is_printable(one: char) -> bool {
    matches!(one, ' '..='~') || one.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(harmless("web-0 äß €"), "web-0 äß €");
        assert_eq!(harmless("'a' \"b\" \\"), "'a' \"b\" \\");
        assert_eq!(harmless("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb ");
        // C1, from right to left, a blank of no width, a line's end, private use.
        for one in ['\u{9b}', '\u{202e}', '\u{200b}', '\u{2028}', '\u{e000}'] {
            let expected = format!("a\\u{{{:x}}}", u32::from(one));
            assert_eq!(harmless(&format!("a{one}")), expected);
            assert_eq!(one_line(&format!("a{one}"), 80), expected);
        }
    }

    #[test]
    fn a_text_becomes_one_bounded_line() {
        assert_eq!(one_line("a\nSTOPPING=1\tb", 80), "a STOPPING=1 b");
        assert_eq!(one_line("äää", 6), "äää");
        assert_eq!(one_line("äää", 5), "ää…");
        assert_eq!(one_line("ä", 0), "…");
    }
}
