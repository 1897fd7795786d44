//! Everything that is wrong with a volume's options.

use std::fmt;

/// One wrong option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The option's key, as the pod gave it, on one line and bounded.
    pub key: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// All wrong options of a volume, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionErrors(pub(super) Vec<OptionError>);

/// More than these are only counted: a pod's event has little room.
const SHOWN: usize = 8;

/// More characters than these of a key or value are left out.
const SHOWN_CHARACTERS: usize = 80;

impl OptionErrors {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &OptionError> {
        self.0.iter()
    }
}

/// A key or value for a message: quoted, on one line, bounded.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl fmt::Display for OptionErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for OptionError {}
impl std::error::Error for OptionErrors {}
