//! What is given or answered, checked. Each parser answers with what is expected.

use crate::duration;
use crate::options::RoleName;
use std::path::PathBuf;
use std::time::Duration;

/// The longest name that goes into a path at Vault, in characters.
const LONGEST_NAME: usize = 256;

type Parsed<T> = Result<T, String>;

/// An auth method that takes a user and a password.
pub(super) fn method(text: &str) -> Parsed<String> {
    match text {
        "ldap" | "userpass" => Ok(text.to_owned()),
        _ => Err("ldap or userpass".to_owned()),
    }
}

/// Where an auth method is mounted: names between slashes.
pub(super) fn mount(text: &str) -> Parsed<String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let path = text.trim_matches('/');
    let path = path.strip_prefix("auth/").unwrap_or(path);
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(fits);
    if path.len() <= LONGEST_NAME && path.split('/').all(is_name) {
        Ok(path.to_owned())
    } else {
        Err("a path of letters, digits, _ . and -, as in ldap or corp/ldap".to_owned())
    }
}

/// A user: one part of a path.
pub(super) fn username(text: &str) -> Parsed<String> {
    let bad = matches!(text, "" | "." | "..")
        || text.contains('/')
        || text.chars().any(char::is_control)
        || text.chars().count() > LONGEST_NAME;
    if bad {
        return Err(format!(
            "a name of at most {LONGEST_NAME} characters, without / and control characters"
        ));
    }
    Ok(text.to_owned())
}

/// Policies, comma-separated, blanks dropped. Vault writes them in small letters.
pub(super) fn policies(text: &str) -> Parsed<Vec<String>> {
    let expected = || "names of policies, comma-separated, root not among them".to_owned();
    let names: Vec<String> = text
        .split(',')
        .map(|name| name.trim().to_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    let bad = |name: &String| {
        name == "root"
            || name.chars().any(|c| c.is_control() || c.is_whitespace())
            || name.chars().count() > LONGEST_NAME
    };
    if names.is_empty() || names.iter().any(bad) {
        return Err(expected());
    }
    Ok(names)
}

/// A period in whole seconds.
pub(super) fn period(text: &str) -> Parsed<Duration> {
    duration::parse_seconds_too(text)
        .map(|period| Duration::from_secs(period.as_secs()))
        .ok()
        .filter(|period| !period.is_zero())
        .ok_or_else(|| "a duration of at least 1s, as in 768h, or whole seconds".to_owned())
}

/// A token role, or none.
pub(super) fn role(text: &str) -> Parsed<Option<RoleName>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error: crate::options::RoleNameError| error.to_string())
}

/// A file.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
        return Err("the absolute path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A key that systemd-creds encrypts by.
pub(super) fn key(text: &str) -> Parsed<String> {
    match text {
        "auto" | "host" | "tpm2" | "host+tpm2" => Ok(text.to_owned()),
        _ => Err("auto, host, tpm2 or host+tpm2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_climbs_out_of_a_path_is_refused() {
        assert_eq!(mount("/auth/corp/ldap/").as_deref(), Ok("corp/ldap"));
        for bad in ["", "/", "a//b", "../sys", "a/./b", "a b", "a%2e", "é"] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        assert_eq!(username("alice @ home").as_deref(), Ok("alice @ home"));
        for bad in ["", ".", "..", "a/b", "a\nb", &"x".repeat(257)] {
            assert!(username(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn policies_are_names_and_never_root() {
        assert_eq!(policies(" A, b ,").unwrap(), ["a", "b"]);
        for bad in ["", " , ", "a,root", "ROOT", "a b", "a\nb"] {
            assert!(policies(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_period_is_whole_seconds() {
        assert_eq!(period("768h"), Ok(Duration::from_secs(768 * 3600)));
        assert_eq!(period("90.5s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "0.5s", "-1h", "forever"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_values() {
        assert_eq!(role(""), Ok(None));
        assert!(role("nodes").unwrap().is_some());
        assert!(role("a/b").is_err());
        assert!(path("/etc/x").is_ok() && path("x").is_err() && path("/etc/").is_err());
        assert!(key("host").is_ok() && key("null").is_err());
        assert!(method("userpass").is_ok() && method("approle").is_err());
    }
}
