//! Durations as people and Vault write them: Go's `time.ParseDuration`, never negative and bounded.

use std::fmt;
use std::time::Duration;

/// The longest duration taken, 100 years of 365 days: far beyond any TTL that Vault gives, far below
/// what Vault's own 64-bit nanoseconds hold.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// There is nothing.
    Empty,
    /// It begins with a minus.
    Negative,
    /// A number is missing before a unit.
    NumberExpected,
    /// A number has no unit.
    UnitMissing,
    /// A unit is none of h, m, s, ms, us, µs and ns.
    UnknownUnit,
    /// It is longer than [`LONGEST`].
    TooLong,
}

/// Reads a duration as Go writes it: numbers with a unit each, for example `5m`, `1h30m`, `1.5h`,
/// `300ms`, or `0`. What is finer than a nanosecond is cut off.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    match rest {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let mut nanos = 0;
    while !rest.is_empty() {
        let (part, after) = component(rest)?;
        nanos += part;
        if nanos > LONGEST.as_nanos() {
            return Err(DurationError::TooLong);
        }
        rest = after;
    }
    Ok(from_nanos(nanos))
}

/// Reads a duration where Vault's own clients also take whole seconds without a unit (`60`) and
/// whole days (`2d`), as in `VAULT_CLIENT_TIMEOUT`.
pub fn parse_seconds_too(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let (digits, seconds) = match text.strip_suffix('d') {
        Some(days) => (days, 24 * 3600),
        None => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return parse(text);
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .filter(|duration| *duration <= LONGEST)
        .ok_or(DurationError::TooLong)
}

/// Writes a duration so that Go, Vault and people read it: `1h30m`, `5m`, `1.5s`, `0s`.
#[must_use]
pub fn to_go(duration: Duration) -> String {
    let whole = duration.as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if minutes > 0 {
        text += &format!("{minutes}m");
    }
    match duration.subsec_nanos() {
        0 if seconds == 0 && !text.is_empty() => {}
        0 => text += &format!("{seconds}s"),
        nanos => {
            let fraction = format!("{nanos:09}");
            text += &format!("{seconds}.{}s", fraction.trim_end_matches('0'));
        }
    }
    text
}

/// One number with its unit, in nanoseconds, and what follows it.
fn component(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::NumberExpected);
    }
    let end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let unit = nanos_of(unit)?;
    let whole = match whole.trim_start_matches('0') {
        "" => 0,
        digits => number(digits).ok_or(DurationError::TooLong)?,
    };
    // Digits past the eighteenth are far below a nanosecond, whatever the unit.
    let fraction = &fraction[..fraction.len().min(MAX_DIGITS)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let part = number(fraction).unwrap_or_default() * unit / scale;
    Ok((whole * unit + part, rest))
}

/// As many decimal digits as always fit into 64 bits.
const MAX_DIGITS: usize = 18;

fn number(digits: &str) -> Option<u128> {
    if digits.len() > MAX_DIGITS {
        return None;
    }
    digits.parse().ok()
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn nanos_of(unit: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "ns" => 1,
        // Micro sign and Greek mu, as Go takes them.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::UnitMissing),
        _ => return Err(DurationError::UnknownUnit),
    })
}

fn from_nanos(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % 1_000_000_000).unwrap_or_default();
    Duration::new(seconds, rest)
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Negative => "it is negative",
            Self::NumberExpected => "a number is missing",
            Self::UnitMissing => "a number has no unit",
            Self::UnknownUnit => "a unit is none of h, m, s, ms, us and ns",
            Self::TooLong => "it is longer than 100 years",
        })
    }
}

impl std::error::Error for DurationError {}
