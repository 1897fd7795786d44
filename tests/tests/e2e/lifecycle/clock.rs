//! Steps of the wall clock change nothing. The kernel has no namespace for that clock, and the
//! machine's own is not a test's to set: a preloaded library lies to the agent about it alone.

use super::{Accessors, RENEW, REVOKE, age, mounted, shown, wait_until_seen};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vaulttmpfs_tests::{Lab, Node, Settings, eventually_within};

const PERIOD: u64 = 12;
const DAY: i64 = 24 * 3600;

/// The wall clock, for [`Clock::of`].
pub(crate) const WALL: &str = "WALL_CLOCK_AHEAD";

/// The clock of the runtime's own timers, for [`Clock::of`].
pub(crate) const MONOTONIC: &str = "MONOTONIC_CLOCK_AHEAD";

/// A clock as one program sees it.
pub(crate) struct Clock {
    ahead: PathBuf,
}

impl Clock {
    /// This clock, for a program on this node that is not yet started: `settings` are its environment.
    pub(crate) fn of(name: &str, node: &Node, settings: &mut Settings) -> Self {
        let library = library(node);
        let clock = Self {
            ahead: node.path("etc/ahead"),
        };
        clock.step_to(0);
        for (name, path) in [("LD_PRELOAD", &library), (name, &clock.ahead)] {
            let path = path.to_str().expect("a path of text").to_owned();
            settings.insert(name.to_owned(), path);
        }
        clock
    }

    /// From now on it is so many seconds ahead of the real one.
    pub(crate) fn step_to(&self, seconds: i64) {
        // By rename: it is read at each look at the clock.
        let new = self.ahead.with_extension("new");
        fs::write(&new, seconds.to_string()).expect("the clock's offset");
        fs::rename(&new, &self.ahead).expect("the offset in its place");
    }
}

/// Makes the library that lies about the clocks, for `LD_PRELOAD`.
fn library(node: &Node) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/lifecycle/clocks.c");
    let library = node.path("etc/clocks.so");
    let mut compile = Command::new("gcc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library);
    let compiled = compile.arg(source).status().expect("gcc");
    assert!(compiled.success(), "{compile:?}");
    library
}

/// Seconds by which the agent's wall clock is ahead of the real one, as a new volume shows.
fn ahead(lab: &Lab, pod: &str) -> i64 {
    let volume = mounted(lab, pod, &lab.options());
    let shown = shown(lab, &volume).expect("a volume that the agent knows");
    let agents = shown["created_wall_ms"].as_i64().expect("milliseconds");
    let real = SystemTime::now().duration_since(UNIX_EPOCH);
    let real = real.expect("a clock after 1970").as_secs();
    agents / 1000 - i64::try_from(real).expect("seconds")
}

#[test]
fn steps_of_a_day_change_nothing() {
    let mut lab = Lab::builder()
        .applications(&json!({ "period": format!("{PERIOD}s") }))
        .proxied()
        .without_agent()
        .start();
    let clock = Clock::of(WALL, &lab.node, &mut lab.agent.settings);
    lab.agent.start();
    lab.agent.wait_until_ready();
    let first = mounted(&lab, "first-0", &lab.options());
    wait_until_seen(&lab, &first);
    let all = Accessors::of(&lab, &first);
    let inner = all.0[0].clone();
    let begun = age(&lab, &inner).expect("a living token");

    let mut expected = begun;
    for (number, days) in [1, -1, 0].into_iter().enumerate() {
        clock.step_to(days * DAY);
        let ahead = ahead(&lab, &format!("later-{number}"));
        assert!((ahead - days * DAY).abs() < DAY / 2, "{ahead} s");
        let renewals = lab.proxy().count(RENEW);
        expected += PERIOD + PERIOD / 2;
        eventually_within(
            Duration::from_secs(8 * PERIOD),
            "one and a half periods",
            || {
                let age = age(&lab, &inner).expect("renewed whatever the wall clock says");
                (age >= expected).then_some(())
            },
        );
        // A third of a period, less a quarter, for each volume: no rush, either.
        let renewed = lab.proxy().count(RENEW) - renewals;
        let passed = age(&lab, &inner).expect("a living token") - begun;
        let most = (number + 2) * usize::try_from(passed / (PERIOD / 4)).expect("few") + 4;
        assert!(
            (1..=most).contains(&renewed),
            "{days} days: {renewed} renewals"
        );
        if number == 0 {
            // By an agent that starts under the other clock, too.
            lab.agent.kill();
            lab.agent.start();
            lab.agent.wait_until_ready();
        }
    }
    all.assert_alive(&lab);
    assert_eq!(lab.living(), 4, "a token for each of the volumes");
    assert_eq!(lab.proxy().count(REVOKE), 0);
    assert_eq!(lab.unwrap(&first).read("secret/app").status, 200);
}
