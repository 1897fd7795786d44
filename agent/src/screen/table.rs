//! Rows in columns.

use super::{Mood, Screen};
use crate::line::harmless;
use std::borrow::Cow;
use std::fmt::Write;

/// Between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub head: &'static str,
    /// The fewest characters that it is cut to where the terminal is narrow; nothing where it never is.
    pub least: Option<usize>,
}

/// What stands in a column.
#[derive(Clone, Debug)]
pub struct Cell<'a> {
    text: Cow<'a, str>,
    length: usize,
    mood: Mood,
}

impl<'a> Cell<'a> {
    /// A cell with a text from anywhere.
    #[must_use]
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        let text = match text.into() {
            Cow::Borrowed(text) => harmless(text),
            Cow::Owned(text) => Cow::Owned(harmless(&text).into_owned()),
        };
        Self {
            length: text.chars().count(),
            text,
            mood: Mood::Plain,
        }
    }

    /// The same in a mood.
    #[must_use]
    pub fn feels(self, mood: Mood) -> Self {
        Self { mood, ..self }
    }
}

/// Writes rows below the columns' heads. On a terminal the widest columns are cut until a row fits.
#[must_use]
pub fn table<const N: usize>(
    screen: &Screen,
    columns: &[Column; N],
    rows: &[[Cell<'_>; N]],
) -> String {
    let heads = columns.map(|column| Cell::new(column.head).feels(Mood::Head));
    let mut widths = [0; N];
    for row in rows.iter().chain([&heads]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.length.max(*width);
        }
    }
    if let Some(room) = screen.width() {
        shrink(&mut widths, columns, room);
    }
    let mut text = String::new();
    for row in [&heads].into_iter().chain(rows) {
        line(&mut text, screen, row, &widths);
    }
    text
}

fn shrink<const N: usize>(widths: &mut [usize; N], columns: &[Column; N], room: usize) {
    while widths.iter().sum::<usize>() + GAP * (N - 1) > room {
        let widest = (0..N)
            .filter(|index| columns[*index].least.is_some_and(|it| it < widths[*index]))
            .max_by_key(|index| widths[*index]);
        match widest {
            Some(index) => widths[index] -= 1,
            // The terminal breaks what is wider still.
            None => return,
        }
    }
}

fn line<const N: usize>(
    text: &mut String,
    screen: &Screen,
    row: &[Cell<'_>; N],
    widths: &[usize; N],
) {
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let shown = cut(cell, *width);
        text.push_str(&screen.paint(cell.mood, &shown));
        if index + 1 < N {
            let blanks = width - cell.length.min(*width) + GAP;
            // Writing to a String cannot fail.
            let _ = write!(text, "{:blanks$}", "");
        }
    }
    text.push('\n');
}

fn cut<'a>(cell: &'a Cell<'_>, width: usize) -> Cow<'a, str> {
    if cell.length <= width {
        return Cow::Borrowed(&cell.text);
    }
    let kept = cell.text.chars().take(width.saturating_sub(1));
    Cow::Owned(kept.chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "POD",
            least: Some(6),
        },
        Column {
            head: "POLICIES",
            least: Some(8),
        },
        Column {
            head: "STATE",
            least: None,
        },
    ];

    fn rows() -> Vec<[Cell<'static>; 3]> {
        let row = |pod, policies, state| [pod, policies, state].map(Cell::new);
        vec![
            row("shop/web-0", "app,other,third", "attached"),
            row("shop/a\u{1b}[2J", "app", "lost"),
        ]
    }

    #[test]
    fn a_pipe_gets_all() {
        assert_eq!(
            table(&Screen::default(), &COLUMNS, &rows()),
            "POD              POLICIES         STATE\n\
             shop/web-0       app,other,third  attached\n\
             shop/a\\u{1b}[2J  app              lost\n"
        );
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        let narrow = table(&Screen::of_width(30), &COLUMNS, &rows());
        assert_eq!(
            narrow,
            "POD        POLICIES   STATE\n\
             shop/web…  app,othe…  attached\n\
             shop/a\\u…  app        lost\n"
        );
        for width in 26..60 {
            let text = table(&Screen::of_width(width), &COLUMNS, &rows());
            assert!(
                text.lines().all(|line| line.chars().count() <= width),
                "{width}:\n{text}"
            );
        }
        let narrowest = table(&Screen::of_width(20), &COLUMNS, &rows());
        assert!(
            narrowest.contains("shop/…  app,oth…  attached\n"),
            "{narrowest}"
        );
    }
}
