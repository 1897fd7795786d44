//! What the agent says, for people: a line or two for each subject.

use super::view::{Calls, Failures, Generator, Newest, Said, Vault, Volumes};
use crate::duration::to_glance;
use crate::screen::{Mood, Screen};
use std::time::Duration;

/// As wide as the longest heading and two blanks.
const INDENT: usize = "generator token  ".len();

/// The lines so far.
struct Page<'a> {
    screen: &'a Screen,
    text: String,
}

impl Said {
    /// Everything, the worst first.
    pub(super) fn text(&self, screen: &Screen) -> String {
        let mut page = Page {
            screen,
            text: String::new(),
        };
        let (state, mood) = match (self.ready, self.degraded) {
            (true, false) => ("ready", Mood::Good),
            (true, true) => ("ready, but degraded", Mood::Doubt),
            (false, _) => ("not ready", Mood::Bad),
        };
        page.line(
            "agent",
            mood,
            &format!("{state} (version {})", self.version),
        );
        for (head, mood, texts) in [
            ("not ready", Mood::Bad, &self.reasons),
            ("concern", Mood::Doubt, &self.concerns),
            ("warning", Mood::Plain, &self.warnings),
        ] {
            for text in texts {
                page.line(head, mood, text);
            }
        }
        if let Some(vault) = &self.vault {
            vault.write(&mut page);
            self.write_generator(&mut page, &vault.generator_policies);
        }
        if let Some(volumes) = &self.volumes {
            volumes.write(&mut page);
        }
        self.failures.write(&mut page);
        page.text
    }

    fn write_generator(&self, page: &mut Page<'_>, policies: &[String]) {
        let text = match &self.generator {
            Some(generator) => generator.sentence(),
            None => "not known as long as it is not ready".to_owned(),
        };
        page.line("generator token", Mood::Plain, &text);
        if !policies.is_empty() {
            let policies = format!("policies: {}", policies.join(", "));
            page.line("", Mood::Plain, &policies);
        }
    }
}

impl Page<'_> {
    fn line(&mut self, head: &str, mood: Mood, text: &str) {
        let head = format!("{head:INDENT$}");
        self.text += &self.screen.paragraph(&head, mood, text);
    }
}

impl Vault {
    fn write(&self, page: &mut Page<'_>) {
        let (state, mood) = match (self.answering, self.sealed) {
            (None, _) => ("not asked yet", Mood::Plain),
            (Some(false), _) => ("no answer", Mood::Bad),
            (_, Some(true)) => ("sealed", Mood::Bad),
            (_, Some(false)) => ("unsealed", Mood::Good),
            (_, None) => ("unknown", Mood::Plain),
        };
        let version = self.version.as_deref().unwrap_or_default();
        let version = match version {
            "" => String::new(),
            version => format!(", version {version}"),
        };
        page.line(
            "vault",
            mood,
            &format!("{}, {state}{version}", self.address),
        );
        if let Some(calls) = &self.calls {
            page.line("", Mood::Plain, &calls.sentence());
        }
    }
}

impl Calls {
    fn sentence(&self) -> String {
        let Self {
            count,
            median_ms,
            longest_ms,
            ..
        } = self;
        let ago = glance(self.ago_s);
        match count {
            1 => format!("its last call took {median_ms} ms, {ago} ago"),
            _ => format!(
                "its last {count} calls took {median_ms} ms each, the longest {longest_ms} ms; the last {ago} ago"
            ),
        }
    }
}

impl Generator {
    fn sentence(&self) -> String {
        let ends = match self.ttl_s {
            Some(seconds) => format!("ends in {}", glance(seconds)),
            None => "never ends".to_owned(),
        };
        let renewed = match self.next_renewal_s {
            Some(seconds) => format!("is renewed in {}", glance(seconds)),
            None => "is not renewed".to_owned(),
        };
        let period = match self.period_s {
            Some(seconds) => format!(", period {}", glance(seconds)),
            None => String::new(),
        };
        format!("{ends}, {renewed}{period}")
    }
}

impl Volumes {
    fn write(&self, page: &mut Page<'_>) {
        let states = listed(self.by_state.iter().filter(|(state, _)| *state != "ended"));
        let live = match states.as_str() {
            "" => format!("{} live", self.live),
            states => format!("{} live: {states}", self.live),
        };
        let mood = if self.by_state.contains_key("lost") {
            Mood::Bad
        } else {
            Mood::Plain
        };
        page.line("volumes", mood, &live);
        let owed = |what: &str, count: u64, oldest: Option<u64>| match oldest.filter(|_| count > 0)
        {
            Some(oldest) => format!("{count} {what}, the oldest for {}", glance(oldest)),
            None => format!("{count} {what}"),
        };
        let renewals = owed("renewals late", self.overdue, self.oldest_overdue_s);
        let revocations = owed("revocations owed", self.owed, self.oldest_owed_s);
        let held = if self.held { ", all held" } else { "" };
        let mood = if self.overdue > 0 || self.held {
            Mood::Doubt
        } else {
            Mood::Plain
        };
        page.line("owed", mood, &format!("{renewals}; {revocations}{held}"));
    }
}

impl Failures {
    fn write(&self, page: &mut Page<'_>) {
        let within = glance(self.within_s);
        let total: u64 = self.by_reason.values().sum();
        if total == 0 {
            return page.line(
                "failures",
                Mood::Plain,
                &format!("none in the last {within}"),
            );
        }
        let reasons = listed(&self.by_reason);
        let text = format!("{total} in the last {within}: {reasons}");
        page.line("failures", Mood::Doubt, &text);
        if let Some(Newest {
            reason,
            message,
            ago_s,
        }) = &self.newest
        {
            let text = format!("{} ago, {reason}: {message}", glance(*ago_s));
            page.line("", Mood::Plain, &text);
        }
    }
}

fn listed<'a>(counts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let counts = counts.into_iter();
    let words: Vec<String> = counts
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    words.join(", ")
}

fn glance(seconds: u64) -> String {
    to_glance(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"ready":true,"degraded":true,"reasons":[],"version":"1","concerns":["the role"],
        "vault":{"address":"https://vault:8200","answering":true,"sealed":false,"version":"2.7.2",
                 "generator_policies":["creator","default"],
                 "calls":{"count":16,"median_ms":3,"longest_ms":40,"ago_s":5}},
        "generator":{"ttl_s":7200,"period_s":86400,"next_renewal_s":null},
        "volumes":{"live":3,"lost":1,"owed":2,"oldest_owed_s":3700,"overdue":1,"oldest_overdue_s":61,"held":true,
                   "by_state":{"attached":2,"lost":1,"ended":2}},
        "failures":{"within_s":3600,"by_reason":{"bad-options":1,"vault-sealed":2},
                    "newest":{"reason":"vault-sealed","message":"Vault is sealed: unseal it","ago_s":90}}}"#;

    fn text(said: &str) -> String {
        let said: Said = serde_json::from_str(said).unwrap();
        said.text(&Screen::default())
    }

    #[test]
    fn a_status_is_one_screen() {
        assert_eq!(
            text(SAID),
            "agent            ready, but degraded (version 1)\n\
             concern          the role\n\
             vault            https://vault:8200, unsealed, version 2.7.2\n\
             \x20                its last 16 calls took 3 ms each, the longest 40 ms; the last 5s ago\n\
             generator token  ends in 2h, is not renewed, period 1d\n\
             \x20                policies: creator, default\n\
             volumes          3 live: 2 attached, 1 lost\n\
             owed             1 renewals late, the oldest for 1m1s; 2 revocations owed, the oldest for 1h1m, all held\n\
             failures         3 in the last 1h: 1 bad-options, 2 vault-sealed\n\
             \x20                1m30s ago, vault-sealed: Vault is sealed: unseal it\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(
            text(r#"{"ready":false,"reasons":["bad settings"],"version":"1"}"#),
            "agent            not ready (version 1)\n\
             not ready        bad settings\n\
             failures         none in the last 0s\n"
        );
        let silent = text(
            r#"{"vault":{"address":"https://v","answering":false},"failures":{"within_s":3600}}"#,
        );
        assert!(
            silent.contains("vault            https://v, no answer\n"),
            "{silent}"
        );
        assert!(
            silent.contains("generator token  not known as long as"),
            "{silent}"
        );
        assert!(
            silent.ends_with("failures         none in the last 1h\n"),
            "{silent}"
        );
    }

    #[test]
    fn hostile_texts_do_nothing() {
        let text = text(r#"{"version":"1\u001b[2J","reasons":["a\nready"]}"#);
        assert!(
            !text.contains('\u{1b}') && text.contains("a ready"),
            "{text}"
        );
    }
}
