//! Looking again and again.

use super::{Status, View};
use crate::commands::complain;
use crate::exit::Exit;
use crate::screen::Screen;
use std::fmt::Write as _;
use std::io::{self, Write};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Looks and draws until interrupted, or until nobody reads any more. The exit status is that of the
/// last view.
pub(super) async fn watch(wish: &Status) -> Exit {
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
        complain("signals cannot be received");
        return Exit::Failed;
    };
    let mut last = Exit::NotRunning;
    let mut first = true;
    loop {
        let view = tokio::select! {
            view = View::take() => view,
            _ = interrupt.recv() => return last,
        };
        last = view.exit();
        let screen = Screen::of_output();
        let text = wish.form(&view, &screen);
        let text = match screen.height() {
            Some(height) if !wish.json => redraw(&text, height, first),
            // Frames in a pipe are told apart by an empty line.
            _ if wish.json || first => text,
            _ => format!("\n{text}"),
        };
        if draw(&text).is_err() {
            return last;
        }
        first = false;
        tokio::select! {
            () = sleep(wish.interval) => {}
            _ = interrupt.recv() => return last,
        }
    }
}

/// The text over the one before, without a flicker: from the upper left corner, the rest of each line
/// and of the screen wiped. What does not fit is cut, so that nothing scrolls.
fn redraw(text: &str, height: usize, first: bool) -> String {
    let mut drawn = String::from(if first {
        "\u{1b}[2J\u{1b}[H"
    } else {
        "\u{1b}[H"
    });
    for line in text.lines().take(height.saturating_sub(1)) {
        // Writing to a String cannot fail.
        let _ = writeln!(drawn, "{line}\u{1b}[K");
    }
    drawn.push_str("\u{1b}[J");
    drawn
}

fn draw(text: &str) -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen_and_leaves_nothing_of_the_one_before() {
        assert_eq!(
            redraw("a\nb\nc\n", 3, false),
            "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J"
        );
        assert!(redraw("a\n", 3, true).starts_with("\u{1b}[2J\u{1b}[Ha"));
    }
}
