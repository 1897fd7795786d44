//! Texts from outside, where a text must be one line.

/// The text without control characters, and cut where it is longer than so many bytes.
#[must_use]
pub fn one_line(text: &str, longest: usize) -> String {
    let mut line = text.replace(char::is_control, " ");
    if line.len() > longest {
        let end = (0..=longest).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_bounded_line() {
        assert_eq!(one_line("a\nSTOPPING=1\tb", 80), "a STOPPING=1 b");
        assert_eq!(one_line("äää", 6), "äää");
        assert_eq!(one_line("äää", 5), "ää…");
        assert_eq!(one_line("ä", 0), "…");
    }
}
