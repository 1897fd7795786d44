//! Every token, accessor, password and private key of a Vault server, to look for them where none may be.

use crate::evidence;
use aho_corasick::AhoCorasick;
use serde_json::Value;
use std::collections::BTreeSet;

/// Where the audit log has a token, an accessor or a password.
const FIELDS: [&str; 7] = [
    "accessor",
    "client_token",
    "client_token_accessor",
    "id",
    "password",
    "token",
    "wrapped_accessor",
];

/// A token is `s.` or `b.` and at least 24 characters, an accessor 24 of them. The tests' passwords are as long.
const SHORTEST: usize = 24;

/// Where it has a private key: PEM, of which each line is a secret, for JSON writes line ends in another way.
const KEY: &str = "private_key";

/// How much of one a person may see.
const SHOWN: usize = 6;

/// Tokens, accessors, passwords and lines of private keys.
#[derive(Debug, Default)]
pub struct Secrets(BTreeSet<String>);

impl Secrets {
    pub(crate) fn of(audit_log: &[Value]) -> Self {
        let mut secrets = Self::default();
        for entry in audit_log {
            secrets.collect(entry);
        }
        secrets
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, which says that nothing was looked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first line of the text that has one of them.
    #[must_use]
    pub fn line_with_one<'a>(&self, text: &'a str) -> Option<&'a str> {
        let any = self.any();
        text.lines().find(|line| any.is_match(*line))
    }

    /// Whether the text is one of them and nothing else.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    /// Thousands of them in megabytes of text: all are looked for in one pass.
    pub(crate) fn any(&self) -> AhoCorasick {
        AhoCorasick::new(&self.0).expect("a search for all secrets")
    }

    /// Fails the test when one of them is in the text, which is kept to be looked at for those of other
    /// tests, too.
    #[track_caller]
    pub fn assert_absent(&self, what: &str, text: &str) {
        evidence::keep_output(what, text);
        self.assert_not_in(what, text);
    }

    /// The same of a text that is kept already.
    #[track_caller]
    pub(crate) fn assert_not_in(&self, what: &str, text: &str) {
        if let Some(line) = self.line_with_one(text) {
            panic!("a secret in {what}: {line}");
        }
    }

    /// The text with only the beginning of each of them, for a person's eyes.
    #[must_use]
    pub fn shorten(&self, text: &str) -> String {
        let shorter = |text: String, secret: &String| {
            let short = format!("{}…", &secret[..SHOWN]);
            text.replace(secret.as_str(), &short)
        };
        self.0.iter().fold(text.to_owned(), shorter)
    }

    /// One a line.
    pub(crate) fn lines(&self) -> String {
        let all: Vec<&str> = self.0.iter().map(String::as_str).collect();
        all.join("\n")
    }

    /// What [`Self::lines`] wrote.
    pub(crate) fn from_lines(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty());
        Self(lines.map(str::to_owned).collect())
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if FIELDS.contains(&name.as_str()) => self.add(text),
                        Some(text) if name == KEY => self.add_key(text),
                        _ => self.collect(value),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            _ => {}
        }
    }

    /// Keeps it unless it is something else of that name: ids of requests have dashes.
    fn add(&mut self, text: &str) {
        if text.len() >= SHORTEST && text.is_ascii() && !text.contains(['-', '/', ' ']) {
            self.0.insert(text.to_owned());
        }
    }

    fn add_key(&mut self, pem: &str) {
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        let long = lines.filter(|line| line.len() >= SHORTEST);
        self.0.extend(long.map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_tokens_and_accessors_wherever_they_are() {
        let entry = json!({
            "auth": {"client_token": "s.aaaaaaaaaaaaaaaaaaaaaaaa", "accessor": "bbbbbbbbbbbbbbbbbbbbbbbb"},
            "request": {"id": "78a46469-7343-8c88-be25-cfacea5508ef", "path": "auth/token/create"},
            "response": {"wrap_info": {"token": "s.cccccccccccccccccccccccc", "ttl": 60}},
        });
        let secrets = Secrets::of(&[entry]);
        assert_eq!(secrets.len(), 3);
        secrets.assert_absent("a text without", "s.dddddddddddddddddddddddd");
        assert_eq!(secrets.shorten("<s.cccccccccccccccccccccccc>"), "<s.cccc…>");
    }

    #[test]
    fn finds_each_line_of_a_private_key() {
        let line = "MHcCAQEEIAbcdefghijklmnopqrstuvwxyz0123456789+/ABCDEFGHIJKLMNOPQ";
        let key = format!(
            "-----BEGIN EC PRIVATE KEY-----\n{line}\nshort==\n-----END EC PRIVATE KEY-----"
        );
        let entry = json!({"response": {"data": {"private_key": key, "certificate": line}}});
        let secrets = Secrets::of(&[entry]);
        assert_eq!(secrets.len(), 1);
        let shown = json!({ "key": key }).to_string();
        assert!(secrets.line_with_one(&shown).is_some());
    }

    #[test]
    #[should_panic(expected = "a secret in the log: token=s.cccccccccccccccccccccccc")]
    fn tells_where_one_is() {
        let entry = json!({"response": {"wrap_info": {"token": "s.cccccccccccccccccccccccc"}}});
        Secrets::of(&[entry]).assert_absent("the log", "well\ntoken=s.cccccccccccccccccccccccc\n");
    }
}
