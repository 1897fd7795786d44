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
    let seconds = match (whole % 60, duration.subsec_nanos()) {
        (0, 0) if whole > 0 => String::new(),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, nanos) => {
            let fraction = format!("{nanos:09}");
            format!("{seconds}.{}s", fraction.trim_end_matches('0'))
        }
    };
    [part(whole / 3600, 'h'), part(whole / 60 % 60, 'm'), seconds].concat()
}

/// Writes a duration for a glance: its two largest units, days among them, the rest cut off: `45s`,
/// `12m3s`, `23h59m`, `31d23h`.
#[must_use]
pub fn to_glance(duration: Duration) -> String {
    let whole = duration.as_secs();
    let units = [
        (whole / 86400, 'd'),
        (whole / 3600 % 24, 'h'),
        (whole / 60 % 60, 'm'),
        (whole % 60, 's'),
    ];
    let largest = units.iter().position(|(number, _)| *number > 0);
    match largest {
        None => "0s".to_owned(),
        Some(first) => units[first..]
            .iter()
            .take(2)
            .map(|(number, unit)| part(*number, *unit))
            .collect(),
    }
}

fn part(number: u64, unit: char) -> String {
    match number {
        0 => String::new(),
        _ => format!("{number}{unit}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanos(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The cases of Go's own `TestParseDuration` that are not negative, and more.
    #[test]
    fn reads_what_go_reads() {
        for (text, expected) in [
            ("0", seconds(0)),
            ("+0", seconds(0)),
            ("0s", seconds(0)),
            ("5s", seconds(5)),
            ("+5s", seconds(5)),
            ("30s", seconds(30)),
            ("1478s", seconds(1478)),
            ("5.0s", seconds(5)),
            ("5.6s", nanos(5_600_000_000)),
            ("5.s", seconds(5)),
            (".5s", nanos(500_000_000)),
            ("1.0s", seconds(1)),
            ("1.00s", seconds(1)),
            ("1.004s", nanos(1_004_000_000)),
            ("1.0040s", nanos(1_004_000_000)),
            ("100.00100s", nanos(100_001_000_000)),
            ("10ns", nanos(10)),
            ("11us", nanos(11_000)),
            ("12\u{b5}s", nanos(12_000)),
            ("12\u{3bc}s", nanos(12_000)),
            ("13ms", nanos(13_000_000)),
            ("14s", seconds(14)),
            ("15m", seconds(900)),
            ("16h", seconds(57_600)),
            ("3h30m", seconds(12_600)),
            ("1h30m", seconds(5400)),
            ("1.5h", seconds(5400)),
            ("30m1h", seconds(5400)),
            ("10.5s4m", nanos(250_500_000_000)),
            ("1h2m3s4ms5us6ns", nanos(3_723_004_005_006)),
            ("39h9m14.425s", nanos(140_954_425_000_000)),
            ("0.3333333333333333333h", nanos(1_199_999_999_999)),
            ("0.100000000000000000000h", seconds(360)),
            ("0000000000000000000000001s", seconds(1)),
            ("876000h", LONGEST),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        use DurationError::{Empty, Negative, NumberExpected, TooLong, UnitMissing, UnknownUnit};
        for (text, why) in [
            ("", Empty),
            ("+", Empty),
            ("-", Negative),
            ("-5m", Negative),
            ("-0", Negative),
            ("3", UnitMissing),
            ("00", UnitMissing),
            ("1h30", UnitMissing),
            (".", NumberExpected),
            (".s", NumberExpected),
            ("+.s", NumberExpected),
            ("s", NumberExpected),
            (" 5m", NumberExpected),
            ("++5m", NumberExpected),
            ("5m ", UnknownUnit),
            ("5 m", UnknownUnit),
            ("1d", UnknownUnit),
            ("1M", UnknownUnit),
            ("1S", UnknownUnit),
            ("1h-5m", UnknownUnit),
            ("1.2.3s", UnitMissing),
            ("1,5h", UnknownUnit),
            ("٣s", NumberExpected),
            ("876001h", TooLong),
            ("876000h1ns", TooLong),
            ("99999999999999999999999999999999999999999h", TooLong),
            ("999999999999999999h999999999999999999h", TooLong),
        ] {
            assert_eq!(parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn reads_seconds_and_days_for_variables() {
        for (text, expected) in [
            ("60", Ok(seconds(60))),
            ("0", Ok(seconds(0))),
            ("060", Ok(seconds(60))),
            ("2d", Ok(seconds(172_800))),
            ("90s", Ok(seconds(90))),
            ("1.5h", Ok(seconds(5400))),
            ("", Err(DurationError::Empty)),
            ("d", Err(DurationError::NumberExpected)),
            ("1.5d", Err(DurationError::UnknownUnit)),
            ("-60", Err(DurationError::Negative)),
            ("1.5", Err(DurationError::UnitMissing)),
            ("36501d", Err(DurationError::TooLong)),
            ("99999999999999999999", Err(DurationError::TooLong)),
        ] {
            assert_eq!(parse_seconds_too(text), expected, "{text:?}");
        }
    }

    #[test]
    fn writes_for_people() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(59), "59s"),
            (Duration::from_secs(60), "1m"),
            (Duration::from_secs(300), "5m"),
            (Duration::from_secs(3600), "1h"),
            (Duration::from_secs(3601), "1h1s"),
            (Duration::from_secs(5400), "1h30m"),
            (Duration::from_secs(86_400), "24h"),
            (Duration::from_millis(300), "0.3s"),
            (Duration::from_millis(61_500), "1m1.5s"),
            (Duration::from_nanos(60_000_000_001), "1m0.000000001s"),
        ] {
            assert_eq!(to_go(duration), text);
        }
    }

    #[test]
    fn writes_for_a_glance() {
        for (duration, text) in [
            (0, "0s"),
            (45, "45s"),
            (60, "1m"),
            (723, "12m3s"),
            (86_399, "23h59m"),
            (86_400, "1d"),
            (86_460, "1d"),
            (2_764_799, "31d23h"),
        ] {
            assert_eq!(to_glance(seconds(duration)), text);
        }
        assert_eq!(to_glance(nanos(999_999_999)), "0s");
    }

    proptest! {
        #[test]
        fn survives_being_written(seconds in 0..LONGEST.as_secs(), nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&to_go(duration)), Ok(duration));
            prop_assert_eq!(parse_seconds_too(&to_go(duration)), Ok(duration));
            prop_assert_eq!(parse_seconds_too(&seconds.to_string()), Ok(Duration::from_secs(seconds)));
        }

        #[test]
        fn adds_up(h in 0..1000_u64, m in 0..1000_u64, s in 0..1000_u64, ms in 0..1000_u64) {
            let expected = Duration::from_millis(((h * 60 + m) * 60 + s) * 1000 + ms);
            prop_assert_eq!(parse(&format!("{h}h{m}m{s}s{ms}ms")), Ok(expected));
            prop_assert_eq!(parse(&format!("{ms}ms{s}s{m}m{h}h")), Ok(expected));
            prop_assert_eq!(parse(&format!("{h}h{m}m{s}.{ms:03}s")), Ok(expected));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}|[-+0-9.hmsnuµd]{0,60}") {
            for read in [parse(&text).ok(), parse_seconds_too(&text).ok()] {
                prop_assert!(read.is_none_or(|duration| duration <= LONGEST));
            }
        }
    }
}
