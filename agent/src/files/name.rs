//! The rule for the names of a token's files.

use super::{CA_FILE, NAMESPACE_FILE, VAULT_ADDR_FILE};
use std::fmt;

/// Why a text is not a name for a token's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileNameError {
    /// It is empty.
    Empty,
    /// It is longer than 200 bytes.
    TooLong,
    /// It holds a slash, a NUL or another control character.
    BadCharacter,
    /// It is `.` or begins with `..`.
    Dots,
    /// It, or it with `.json`, is another file of the volume.
    Taken,
}

/// Leaves room for `.json` and a temporary suffix within Linux' 255 bytes.
const MAX_LENGTH: usize = 200;

/// Files that a volume may hold besides the token's. Their names are taken also where the settings
/// leave them out, so that such a setting never breaks a pod.
const OTHERS: [&str; 3] = [VAULT_ADDR_FILE, NAMESPACE_FILE, CA_FILE];

/// Checks that a token's file, and the one with `.json` added, stay within the volume and apart from
/// its other files: one path component of at most 200 bytes without control characters, not `.`,
/// nor beginning with `..` (the kubelet's own volumes keep `..data` and the like there).
pub fn check_token_filename(name: &str) -> Result<(), FileNameError> {
    if name.is_empty() {
        return Err(FileNameError::Empty);
    }
    if name.len() > MAX_LENGTH {
        return Err(FileNameError::TooLong);
    }
    if name.chars().any(|c| c == '/' || c.is_control()) {
        return Err(FileNameError::BadCharacter);
    }
    if name == "." || name.starts_with("..") {
        return Err(FileNameError::Dots);
    }
    if OTHERS
        .iter()
        .any(|other| name == *other || format!("{name}.json") == *other)
    {
        return Err(FileNameError::Taken);
    }
    Ok(())
}

impl fmt::Display for FileNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {MAX_LENGTH} bytes"),
            Self::BadCharacter => f.write_str("it holds a slash or a control character"),
            Self::Dots => f.write_str("it is . or begins with .."),
            Self::Taken => write!(
                f,
                "it is another file of the volume ({})",
                OTHERS.join(", ")
            ),
        }
    }
}

impl std::error::Error for FileNameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_clean_component() {
        let longest = "x".repeat(MAX_LENGTH);
        for name in [
            "vault-token",
            "token",
            ".vault-token",
            "a.json",
            "x..",
            "jeton-é",
            "with space",
            "%2e%2e",
            "vault-addr2",
            &longest,
        ] {
            assert_eq!(check_token_filename(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        use FileNameError::{BadCharacter, Dots, Empty, Taken, TooLong};
        let long = "x".repeat(MAX_LENGTH + 1);
        for (name, why) in [
            ("", Empty),
            (".", Dots),
            ("..", Dots),
            ("..data", Dots),
            ("...", Dots),
            ("../x", BadCharacter),
            ("a/b", BadCharacter),
            ("/", BadCharacter),
            ("/etc/passwd", BadCharacter),
            ("a\0", BadCharacter),
            ("a\n", BadCharacter),
            ("a\u{85}", BadCharacter),
            ("vault-addr", Taken),
            ("vault-namespace", Taken),
            ("ca.crt", Taken),
            (&long, TooLong),
        ] {
            assert_eq!(check_token_filename(name), Err(why), "{name:?}");
        }
    }
}
