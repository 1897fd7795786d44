//! The kubelet's options: a JSON object of strings.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use vaulttmpfs_api::{MountDir, POD_UID_OPTION, READ_WRITE_OPTION, SECRET_OPTION_PREFIX};

/// The options of one mount, without the Kubernetes secrets that the kubelet puts among them.
pub struct Options<'a>(BTreeMap<Cow<'a, str>, Cow<'a, str>>);

/// Why options are not taken. Never quotes a value: it may be a secret.
#[derive(Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// Not a JSON object of strings; what went wrong, and the line and column where.
    NotStrings(&'static str, usize, usize),
    /// The pod's uid in the options is not the one in the mount directory.
    OtherPod,
}

impl<'a> Options<'a> {
    /// Parses the text, which must be a JSON object with nothing but strings in it.
    pub fn parse(text: &'a str) -> Result<Self, OptionsError> {
        let mut all: BTreeMap<Cow<'a, str>, Cow<'a, str>> =
            serde_json::from_str(text).map_err(|e| {
                let what = match e.classify() {
                    serde_json::error::Category::Data => "a value is not a string",
                    serde_json::error::Category::Eof => "the JSON is cut off",
                    _ => "the JSON is broken",
                };
                OptionsError::NotStrings(what, e.line(), e.column())
            })?;
        all.retain(|key, _| !key.starts_with(SECRET_OPTION_PREFIX));
        Ok(Self(all))
    }

    /// Refuses options that speak of another pod than the directory does: a static pod's manifest may
    /// overwrite the kubelet's own options.
    pub fn check_pod(&self, dir: &MountDir) -> Result<(), OptionsError> {
        match self.0.get(POD_UID_OPTION) {
            Some(uid) if uid != dir.pod_uid() => Err(OptionsError::OtherPod),
            _ => Ok(()),
        }
    }

    /// Whether the pod asked for `readOnly: true`.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.0.get(READ_WRITE_OPTION).is_some_and(|v| v == "ro")
    }

    /// What goes to the agent.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<Cow<'a, str>, Cow<'a, str>> {
        self.0
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStrings(what, line, column) => write!(
                f,
                "the options, the last argument, are not a JSON object of strings: {what} (line {line}, column {column})"
            ),
            Self::OtherPod => write!(
                f,
                "the option {POD_UID_OPTION} names another pod than the mount directory does"
            ),
        }
    }
}

impl std::error::Error for OptionsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATIC_POD: &str = r#"{"kubernetes.io/fsType":"tmpfs","kubernetes.io/pod.name":"flex-a-lab","kubernetes.io/pod.namespace":"default","kubernetes.io/pod.uid":"afd196c8a70643bdc8c3b5e59c5eb89b","kubernetes.io/pvOrVolumeName":"vol1","kubernetes.io/readwrite":"rw","kubernetes.io/secret/password":"aHVudGVyMg==","kubernetes.io/serviceAccount.name":"","quote":"a\"b\\c\u003c\u0026\u003eé"}"#;

    fn dir(uid: &str) -> MountDir {
        MountDir::parse(&format!("/k/pods/{uid}/volumes/cloudwatt~vaulttmpfs/v")).unwrap()
    }

    #[test]
    fn takes_a_static_pods_options_without_its_secrets() {
        let options = Options::parse(STATIC_POD).unwrap();
        assert!(!options.read_only());
        assert_eq!(
            options.check_pod(&dir("afd196c8a70643bdc8c3b5e59c5eb89b")),
            Ok(())
        );
        assert_eq!(
            options.check_pod(&dir("other")),
            Err(OptionsError::OtherPod)
        );
        let map = options.into_map();
        assert_eq!(map["quote"], "a\"b\\c<&>é");
        assert!(!map.keys().any(|key| key.contains("secret")));
        assert_eq!(map.len(), 8);
    }

    #[test]
    fn knows_read_only() {
        for (text, read_only) in [
            ("{}", false),
            (r#"{"kubernetes.io/readwrite":"rw"}"#, false),
            (r#"{"kubernetes.io/readwrite":"ro"}"#, true),
            (r#"{"kubernetes.io/readwrite":""}"#, false),
        ] {
            let options = Options::parse(text).unwrap();
            assert_eq!(options.read_only(), read_only, "{text}");
            assert_eq!(options.check_pod(&dir("u")), Ok(()));
        }
    }

    #[test]
    fn refuses_other_json_without_quoting_it() {
        for (text, what) in [
            ("", "cut off"),
            ("{", "cut off"),
            (r#"{"a":"hunter2"#, "cut off"),
            ("hunter2", "broken"),
            (r#"{"a":"hunter2"} x"#, "broken"),
            (r#"["hunter2"]"#, "not a string"),
            (r#""hunter2""#, "not a string"),
            (r#"{"a":111}"#, "not a string"),
            (r#"{"a":null}"#, "not a string"),
            (r#"{"a":{"b":"hunter2"}}"#, "not a string"),
            ("null", "not a string"),
        ] {
            let Err(error) = Options::parse(text) else {
                panic!("{text} was taken");
            };
            let shown = error.to_string();
            assert!(shown.contains(what), "{text}: {shown}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("111"),
                "{shown}"
            );
        }
        assert!(Options::parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_no_secret(text in "\\PC{0,60}|\\{(\"(kubernetes.io/secret/)?[a-z]{0,3}\":\"[a-z]{0,3}\",?){0,4}\\}") {
            if let Ok(options) = Options::parse(&text) {
                prop_assert!(!options.into_map().keys().any(|key| key.starts_with(SECRET_OPTION_PREFIX)));
            }
        }
    }
}
