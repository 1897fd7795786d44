//! A failure that goes on is said once, and then how often.

use super::event::Said;
use crate::duration;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};
use tracing::Level;

/// What repeats is counted so long before the count is said.
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// Failures of one class name pods: each of so many texts is said once, further ones are counted.
const MOST_TEXTS: usize = 32;

/// So many kinds are known: with one more, the oldest is forgotten.
const MOST_KINDS: usize = 256;

/// The failures of late, and how often each would have been said again.
#[derive(Default)]
pub(super) struct Repeats(HashMap<Name, Kind>);

/// What makes two failures the same: the place in the code, and the failure's class or, where it has
/// none, its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Name(&'static str, u64);

struct Kind {
    /// When it, or a count, was last said.
    since: Instant,
    /// The texts that were said.
    said: HashSet<u64>,
    /// How often it was held back since, and the last that was.
    held_back: Option<(u64, Said)>,
}

impl Repeats {
    /// What there is to say when this comes up. Counts whose time has come are said with whatever
    /// comes up next: no timer wakes an idle agent.
    pub(super) fn admit(&mut self, said: Said, now: Instant) -> Vec<Said> {
        let failure = said.level <= Level::WARN && !said.news;
        let name = failure.then(|| Name::of(&said));
        let known = name.and_then(|name| self.0.remove(&name));
        let mut to_say = self.due(now);
        let Some(name) = name else {
            to_say.push(said);
            return to_say;
        };
        let mut kind = known.unwrap_or_else(|| Kind::new(now));
        to_say.extend(kind.admit(said, now));
        if self.0.len() >= MOST_KINDS {
            to_say.extend(self.forget_oldest(now));
        }
        self.0.insert(name, kind);
        to_say
    }

    /// All that is held back.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<Said> {
        let kinds = self.0.drain();
        kinds
            .filter_map(|(_, mut kind)| kind.next_window(now))
            .collect()
    }

    /// The counts whose time has come. A kind that did not come up again is forgotten.
    fn due(&mut self, now: Instant) -> Vec<Said> {
        let mut due = Vec::new();
        self.0.retain(|_, kind| {
            if !kind.is_over(now) {
                return true;
            }
            let count = kind.next_window(now);
            let goes_on = count.is_some();
            due.extend(count);
            goes_on
        });
        due
    }

    fn forget_oldest(&mut self, now: Instant) -> Option<Said> {
        let oldest = self.0.iter().min_by_key(|(_, kind)| kind.since);
        let name = *oldest?.0;
        self.0.remove(&name)?.next_window(now)
    }
}

impl Name {
    fn of(said: &Said) -> Self {
        Self(
            said.place,
            digest(said.reason().unwrap_or(said.message.as_str())),
        )
    }
}

impl Kind {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            said: HashSet::new(),
            held_back: None,
        }
    }

    fn admit(&mut self, said: Said, now: Instant) -> Option<Said> {
        let text = digest(&said.message);
        if self.is_over(now) {
            if let Some((count, _)) = self.held_back.take() {
                return Some(counted(said, count, self.restart(now)));
            }
            *self = Self::new(now);
        }
        if self.said.len() < MOST_TEXTS && self.said.insert(text) {
            return Some(said);
        }
        let count = self.held_back.as_ref().map_or(0, |(count, _)| *count);
        self.held_back = Some((count + 1, said));
        None
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }

    /// What was held back, if anything.
    fn next_window(&mut self, now: Instant) -> Option<Said> {
        let (count, said) = self.held_back.take()?;
        Some(counted(said, count, self.restart(now)))
    }

    fn restart(&mut self, now: Instant) -> Duration {
        now - std::mem::replace(&mut self.since, now)
    }
}

/// The event, saying how many were held back. Those of a class may have been other pods'.
fn counted(mut said: Said, count: u64, elapsed: Duration) -> Said {
    let times = match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let elapsed = duration::to_go(Duration::from_secs(elapsed.as_secs()));
    let class = match said.reason() {
        Some(reason) => format!(", {reason}"),
        None => String::new(),
    };
    // Writing to a String cannot fail.
    let _ = write!(said.message, " ({times} more in the last {elapsed}{class})");
    said
}

/// Stands for a text: the texts themselves would be much to keep.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::event::Value;
    use super::*;

    fn event(level: Level, message: &str, reason: Option<&str>) -> Said {
        let reason = reason.map(|word| ("reason", Value::Text(word.to_owned())));
        Said {
            level,
            message: message.to_owned(),
            fields: reason.into_iter().collect(),
            place: "here",
            news: false,
        }
    }

    fn warn(message: &str) -> Said {
        event(Level::WARN, message, None)
    }

    /// A log that writes down what is said, at moments in seconds.
    struct Written(Repeats, Instant);

    impl Written {
        fn new() -> Self {
            Self(Repeats::default(), Instant::now())
        }

        fn say(&mut self, second: u64, said: Said) -> Vec<String> {
            let now = self.1 + Duration::from_secs(second);
            messages(self.0.admit(said, now))
        }

        fn end(&mut self, second: u64) -> Vec<String> {
            messages(self.0.rest(self.1 + Duration::from_secs(second)))
        }
    }

    fn messages(said: Vec<Said>) -> Vec<String> {
        said.into_iter().map(|said| said.message).collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_failure_that_goes_on_is_said_once_and_then_counted_every_five_minutes() {
        let mut log = Written::new();
        assert_eq!(log.say(0, warn("no")), ["no"]);
        for second in 1..=37 {
            assert_eq!(log.say(second, warn("no")), NOTHING);
        }
        assert_eq!(log.say(299, event(Level::INFO, "yes", None)), ["yes"]);
        assert_eq!(
            log.say(302, warn("no")),
            ["no (37 times more in the last 5m2s)"]
        );
        assert_eq!(log.say(303, warn("no")), NOTHING);
        assert_eq!(log.end(310), ["no (once more in the last 8s)"]);
        assert_eq!(log.end(311), NOTHING);
    }

    #[test]
    fn a_count_whose_time_has_come_is_said_with_whatever_comes_up() {
        let mut log = Written::new();
        assert_eq!(log.say(0, warn("no")), ["no"]);
        assert_eq!(log.say(1, warn("no")), NOTHING);
        let yes = || event(Level::INFO, "yes", None);
        let counted = "no (once more in the last 5m)";
        assert_eq!(log.say(300, yes()), [counted, "yes"]);
        // It goes on, so the count is what is said of it.
        assert_eq!(log.say(301, warn("no")), NOTHING);
        assert_eq!(log.say(600, yes()), [counted, "yes"]);
        // It has not come up since: it is forgotten.
        assert_eq!(log.say(900, yes()), ["yes"]);
        assert_eq!(log.say(901, warn("no")), ["no"]);
        assert_eq!(log.end(902), NOTHING);
    }

    #[test]
    fn what_comes_rarely_is_said_each_time() {
        let mut log = Written::new();
        for second in [0, 300, 700, 5000] {
            assert_eq!(log.say(second, warn("no")), ["no"]);
        }
    }

    #[test]
    fn failures_of_a_class_name_each_pod_once_and_share_a_count() {
        let mut log = Written::new();
        let sealed = |pod: u64| event(Level::WARN, &format!("{pod}: sealed"), Some("sealed"));
        for pod in 0..32 {
            assert_eq!(log.say(pod, sealed(pod)), [format!("{pod}: sealed")]);
            assert_eq!(log.say(pod, sealed(pod)), NOTHING);
        }
        assert_eq!(log.say(40, sealed(32)), NOTHING, "one pod too many");
        let other = event(Level::WARN, "0: denied", Some("denied"));
        assert_eq!(log.say(41, other), ["0: denied"]);
        assert_eq!(
            log.say(330, sealed(7)),
            ["7: sealed (33 times more in the last 5m30s, sealed)"]
        );
        assert_eq!(log.say(331, sealed(8)), NOTHING, "named before");
    }

    #[test]
    fn places_levels_and_texts_tell_failures_apart_and_news_are_none() {
        let mut log = Written::new();
        let elsewhere = Said {
            place: "there",
            ..warn("no")
        };
        let news = Said {
            news: true,
            ..warn("held")
        };
        for said in [warn("no"), elsewhere, warn("never"), news.clone(), news] {
            let message = said.message.clone();
            assert_eq!(log.say(0, said), [message]);
        }
        for _ in 0..3 {
            assert_eq!(log.say(0, event(Level::INFO, "yes", None)), ["yes"]);
        }
    }

    #[test]
    fn only_so_many_kinds_are_known() {
        let mut log = Written::new();
        assert_eq!(log.say(0, warn("first")), ["first"]);
        assert_eq!(log.say(1, warn("first")), NOTHING);
        for kind in 1..256 {
            assert_eq!(log.say(2, warn(&format!("{kind}"))), [format!("{kind}")]);
        }
        assert_eq!(
            log.say(3, warn("last")),
            ["last", "first (once more in the last 3s)"]
        );
        assert_eq!(log.0.0.len(), 256);
    }
}
