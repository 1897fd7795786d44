//! `vaulttmpfs status`: how the running agent is, on one screen.

mod text;
mod view;
mod watch;

pub use view::View;

use super::{client, complain, show};
use crate::duration;
use crate::exit::Exit;
use crate::screen::Screen;
use clap::Args;
use std::time::Duration;

/// The shortest and the longest time between two looks.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3600));

/// What is to be shown.
#[derive(Args, Debug)]
pub struct Status {
    /// Print all that the agent says, as JSON.
    #[arg(long)]
    json: bool,
    /// Look again and again, until interrupted; each JSON is a line of its own.
    #[arg(long)]
    watch: bool,
    /// The time between two looks.
    #[arg(long, requires = "watch", value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let (shortest, longest) = INTERVALS;
    match duration::parse_seconds_too(text) {
        Ok(interval) if (shortest..=longest).contains(&interval) => Ok(interval),
        Ok(_) => Err("not from 200ms to 1h".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the command.
#[must_use]
pub fn run(wish: &Status) -> Exit {
    let runtime = match client::runtime() {
        Ok(runtime) => runtime,
        Err(problem) => {
            complain(&problem);
            return Exit::NotRunning;
        }
    };
    if wish.watch {
        return runtime.block_on(watch::watch(wish));
    }
    let view = runtime.block_on(View::take());
    match view.problem() {
        Some(problem) if !wish.json => complain(problem),
        _ => show(&wish.form(&view, &Screen::of_output())),
    }
    view.exit()
}

impl Status {
    /// A view as it is printed.
    fn form(&self, view: &View, screen: &Screen) -> String {
        if self.json {
            view.json()
        } else {
            view.text(screen)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_neither_a_busy_loop_nor_for_ever() {
        assert_eq!(interval("1"), Ok(Duration::from_secs(1)));
        assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
        for bad in ["0", "199ms", "61m", "", "-1s", "soon"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
