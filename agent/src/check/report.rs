//! What was found, and how it is told.

use crate::line::one_line;
use crate::screen::{Mood, Screen};
use serde::Serialize;
use std::fmt;

/// Longer texts are cut, in bytes. Certificates and settings may hold anything.
const LONGEST: usize = 2000;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It could not be looked at, and why.
    NotChecked,
    /// It works, but not as well as it could, or not for long.
    Warning,
    /// It does not work.
    Failure,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to, as people read it.
    pub group: &'static str,
    /// What came of it.
    pub level: Level,
    /// What is so, and what to do where it should not be. Without secrets, on one line.
    pub text: String,
}

/// All that was found, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

/// A report as programs read it.
#[derive(Serialize)]
struct Json<'a> {
    version: &'static str,
    /// The worst of all.
    result: Level,
    findings: &'a [Finding],
}

impl Report {
    /// The part of a report for the findings of one group.
    pub(super) fn group(&mut self, title: &'static str) -> Group<'_> {
        Group {
            report: self,
            title,
        }
    }

    /// Takes over what was found elsewhere, and hands on what came of it.
    pub(super) fn take<T>(&mut self, (report, seen): (Self, T)) -> T {
        self.findings.extend(report.findings);
        seen
    }

    /// Says of each of these groups that has no finding yet why it has none.
    pub(super) fn rest_not_checked(&mut self, titles: &[&'static str], why: &str) {
        for title in titles {
            if !self.findings.iter().any(|one| one.group == *title) {
                self.group(title).not_checked(why);
            }
        }
    }

    /// Every finding.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The worst of all. What could not be looked at is no worse than what is well.
    #[must_use]
    pub fn result(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels
            .filter(|level| *level >= Level::Warning)
            .max()
            .unwrap_or(Level::Ok)
    }

    /// The report as JSON: `version`, `result` and `findings`, each with `group`, `level` and `text`.
    #[must_use]
    pub fn json(&self) -> String {
        let json = Json {
            version: env!("CARGO_PKG_VERSION"),
            result: self.result(),
            findings: &self.findings,
        };
        // Texts and constant words: there is nothing in it that JSON could not hold.
        serde_json::to_string_pretty(&json).unwrap_or_default()
    }

    /// For people: a paragraph a finding, below its group's head, and the numbers of each kind at the end.
    #[must_use]
    pub fn text(&self, screen: &Screen) -> String {
        let (mut text, mut last) = (String::new(), "");
        for Finding {
            group,
            level,
            text: found,
        } in &self.findings
        {
            if *group != last {
                let gap = if last.is_empty() { "" } else { "\n" };
                let head = screen.paint(Mood::Head, group);
                text.extend([gap, &head, "\n"]);
                last = group;
            }
            text += &screen.paragraph(&format!("  {level}: "), level.mood(), found);
        }
        let [failures, warnings, ok, not_checked] =
            [Level::Failure, Level::Warning, Level::Ok, Level::NotChecked]
                .map(|level| self.count(level));
        let numbers = format!(
            "failures: {failures}, warnings: {warnings}, ok: {ok}, not checked: {not_checked}"
        );
        text + "\n" + &screen.paragraph("", Mood::Plain, &numbers)
    }

    fn count(&self, level: Level) -> usize {
        let of_it = |finding: &&Finding| finding.level == level;
        self.findings.iter().filter(of_it).count()
    }
}

impl Level {
    fn mood(self) -> Mood {
        match self {
            Self::Ok | Self::NotChecked => Mood::Plain,
            Self::Warning => Mood::Doubt,
            Self::Failure => Mood::Bad,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::NotChecked => "not checked",
            Self::Warning => "warning",
            Self::Failure => "failure",
        })
    }
}

/// Where one group's findings go.
pub(super) struct Group<'a> {
    report: &'a mut Report,
    title: &'static str,
}

impl Group<'_> {
    fn add(&mut self, level: Level, text: &str) {
        self.report.findings.push(Finding {
            group: self.title,
            level,
            text: one_line(text, LONGEST),
        });
    }

    /// How many failures this group has by now.
    pub(super) fn failures(&self) -> usize {
        let findings = self.report.findings.iter();
        findings
            .filter(|one| one.group == self.title && one.level == Level::Failure)
            .count()
    }

    pub(super) fn ok(&mut self, text: impl AsRef<str>) {
        self.add(Level::Ok, text.as_ref());
    }

    pub(super) fn warning(&mut self, text: impl AsRef<str>) {
        self.add(Level::Warning, text.as_ref());
    }

    pub(super) fn failure(&mut self, text: impl AsRef<str>) {
        self.add(Level::Failure, text.as_ref());
    }

    pub(super) fn not_checked(&mut self, why: impl AsRef<str>) {
        self.add(Level::NotChecked, why.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.group("clock").ok("it is right");
        let mut group = report.group("token");
        group.failure("it is\nbad: get another");
        group.not_checked("its rights: there is no token");
        report.rest_not_checked(&["clock", "roles"], "there is no token");
        report
    }

    #[test]
    fn a_report_is_a_line_a_finding() {
        assert_eq!(
            report().text(&Screen::default()),
            "clock\n  ok: it is right\n\ntoken\n  failure: it is bad: get another\n  \
             not checked: its rights: there is no token\n\nroles\n  not checked: there is no token\n\n\
             failures: 1, warnings: 0, ok: 1, not checked: 2\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["result"], "failure");
        assert_eq!(json["findings"][2]["level"], "not-checked");
    }

    #[test]
    fn a_terminal_gets_no_longer_line_than_it_has_columns() {
        let text = report().text(&Screen::of_width(30));
        let folded = "  failure: it is bad: get\n           another\n";
        assert!(text.contains(folded), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 30),
            "{text}"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_in_no_form_of_a_report() {
        let mut report = Report::default();
        report.group("token").ok("a\u{202e}b\u{1b}[2J");
        for text in [report.text(&Screen::default()), report.json()] {
            assert!(text.contains("202e}b"), "{text}");
            assert!(!text.contains(['\u{202e}', '\u{1b}']), "{text}");
        }
    }

    #[test]
    fn the_worst_counts_and_what_was_not_checked_does_not() {
        let mut report = Report::default();
        assert_eq!(report.result(), Level::Ok);
        report.group("a").not_checked("why");
        assert_eq!(report.result(), Level::Ok);
        report.group("a").warning("so");
        assert_eq!(report.result(), Level::Warning);
        report.group("a").failure("so");
        report.group("a").ok("so");
        assert_eq!(report.result(), Level::Failure);
    }
}
