//! What a variable's text must be. Each parser answers with what is expected.

use super::{Address, AddressError, LogFormat, RateLimit, WatchUnwrap};
use crate::duration;
use crate::files::check_token_filename;
use crate::options::{self, RoleName, RoleNameError, UnknownOptions};
use rustls::pki_types::DnsName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Level;
use url::Host;

/// The longest name that ends up in Vault's request header or a token's metadata, in characters.
const LONGEST_NAME: usize = 256;

/// The longest path that can be opened, in bytes: Linux' `PATH_MAX` without its NUL.
const LONGEST_PATH: usize = 4095;

/// A shorter attempt than this reaches no Vault.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// Vault counts in whole seconds and takes a half for none.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// Calls a second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

pub(super) type Parsed<T> = Result<T, String>;

pub(super) fn address(text: &str) -> Parsed<Address> {
    text.parse()
        .map_err(|error: AddressError| error.to_string())
}

/// A pod's address of Vault: what leads to the node itself would lead to the pod.
pub(super) fn pod_address(text: &str) -> Parsed<Address> {
    let address = address(text)?;
    if address.is_loopback() {
        return Err("a URL that leads to Vault from a pod, not to the pod itself".to_owned());
    }
    Ok(address)
}

/// Where to listen. A port that the kernel picks would be known to nobody.
pub(super) fn listener(text: &str) -> Parsed<SocketAddr> {
    let address: Option<SocketAddr> = text.parse().ok();
    address
        .filter(|address| address.port() != 0)
        .ok_or_else(|| "an IP address and a port, as in 127.0.0.1:9743 or [::]:9743".to_owned())
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if !text.starts_with('/') || text.contains('\0') || text.len() > LONGEST_PATH {
        return Err("an absolute path".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    options::boolean(text).ok_or_else(|| "true or false".to_owned())
}

pub(super) fn timeout(text: &str) -> Parsed<Duration> {
    at_least(text, SHORTEST_TIMEOUT)
}

pub(super) fn ttl(text: &str) -> Parsed<Duration> {
    at_least(text, SHORTEST_TTL)
}

pub(super) fn delay(text: &str) -> Parsed<Duration> {
    at_least(text, Duration::ZERO)
}

fn at_least(text: &str, shortest: Duration) -> Parsed<Duration> {
    let expected = || {
        let shortest = duration::to_go(shortest);
        format!("a duration of at least {shortest}, as in 30s or 1h30m, or whole seconds")
    };
    match duration::parse_seconds_too(text) {
        Ok(duration) if duration >= shortest => Ok(duration),
        Ok(_) => Err(expected()),
        Err(error) => Err(format!("{} ({error})", expected())),
    }
}

pub(super) fn count(text: &str) -> Parsed<u32> {
    whole(text).ok_or_else(|| format!("a whole number, at most {}", u32::MAX))
}

/// Digits only: Rust's own parser takes a plus.
fn whole(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// As Vault's own clients take it; without a burst it is the rate, but at least one (a burst of
/// none lets nothing through).
pub(super) fn rate_limit(text: &str) -> Parsed<RateLimit> {
    limit(text, |rate| rate.max(1))
}

/// Without a burst, no second has more calls than the rate.
pub(super) fn steady_rate(text: &str) -> Parsed<RateLimit> {
    limit(text, |_| 1)
}

fn limit(text: &str, usual_burst: fn(u32) -> u32) -> Parsed<RateLimit> {
    let expected = || {
        "calls a second as rate or rate:burst, as in 100 or 0.5:10, with a burst of at least 1"
            .to_owned()
    };
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, Some(whole(burst).ok_or_else(expected)?)),
        None => (text, None),
    };
    let rate: f64 = rate.parse().map_err(|_| expected())?;
    if !RATES.contains(&rate) || burst == Some(0) {
        return Err(expected());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked above, and a burst is whole"
    )]
    let burst = burst.unwrap_or_else(|| usual_burst(rate as u32));
    Ok(RateLimit {
        interval: Duration::from_secs_f64(rate.recip()),
        burst,
    })
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journal" => Ok(LogFormat::Journal),
        _ => Err("auto, text, json or journal".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Parsed<Level> {
    match text {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        _ => Err("error, warn, info or debug".to_owned()),
    }
}

pub(super) fn server_name(text: &str) -> Parsed<String> {
    DnsName::try_from(text)
        .map(|name| name.as_ref().to_ascii_lowercase())
        .map_err(|_| "a host name".to_owned())
}

/// A namespace goes into a header and a file.
pub(super) fn namespace(text: &str) -> Parsed<String> {
    if text.len() > LONGEST_NAME || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("at most {LONGEST_NAME} visible ASCII characters"));
    }
    Ok(text.to_owned())
}

/// A name for the tokens' metadata.
pub(super) fn name(text: &str) -> Parsed<String> {
    if text.chars().count() > LONGEST_NAME || text.chars().any(char::is_control) {
        return Err(format!(
            "at most {LONGEST_NAME} characters, none of them a control character"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn token_filename(text: &str) -> Parsed<String> {
    check_token_filename(text).map_err(|error| format!("the name of a file, but {error}"))?;
    Ok(text.to_owned())
}

pub(super) fn role(text: &str) -> Parsed<RoleName> {
    text.parse()
        .map_err(|error: RoleNameError| error.to_string())
}

pub(super) fn unknown_options(text: &str) -> Parsed<UnknownOptions> {
    match text {
        "refuse" => Ok(UnknownOptions::Refuse),
        "warn" => Ok(UnknownOptions::Warn),
        _ => Err("refuse or warn".to_owned()),
    }
}

pub(super) fn watch_unwrap(text: &str) -> Parsed<WatchUnwrap> {
    match (text, options::boolean(text)) {
        ("revoke", _) => Ok(WatchUnwrap::Revoke),
        (_, Some(true)) => Ok(WatchUnwrap::Say),
        (_, Some(false)) => Ok(WatchUnwrap::Off),
        (_, None) => Err("true, false or revoke".to_owned()),
    }
}

/// A path in Vault, as of a secrets engine, without a slash at its end.
pub(super) fn vault_path(text: &str) -> Parsed<String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let fit = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    if path.len() > LONGEST_NAME || !path.split('/').all(fit) {
        return Err("a path in Vault, as in pki or team/pki".to_owned());
    }
    Ok(path.to_owned())
}

/// Such paths, comma-separated, blanks dropped.
pub(super) fn vault_paths(text: &str) -> Parsed<Vec<String>> {
    parts(text).map(vault_path).collect()
}

/// The name of a role of one of Vault's secrets engines.
pub(super) fn vault_role(text: &str) -> Parsed<String> {
    match vault_path(text) {
        Ok(role) if role == text && !role.contains('/') => Ok(role),
        _ => Err("the name of a role in Vault".to_owned()),
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// Hosts, comma-separated, blanks dropped.
pub(super) fn hosts(text: &str) -> Parsed<Vec<String>> {
    parts(text).map(host).collect()
}

fn host(text: &str) -> Parsed<String> {
    Host::parse(text)
        .map(|host| host.to_string())
        .map_err(|_| "comma-separated hosts without port, IPv6 addresses in brackets".to_owned())
}
