//! From the kubelet's options to a checked request.

use super::error::quoted;
use super::{
    Delivery, FileOptions, LifecycleOptions, OptionError, OptionErrors, Pod, PodDefaults, RoleName,
    RoleNameError, TokenRequest, UnknownOptions, VolumeRequest, boolean,
};
use crate::duration;
use crate::files::check_token_filename;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use vaulttmpfs_api::{MountDir, POD_UID_OPTION};

/// Every option of ours is under this.
const PREFIX: &str = "vault/";

const POLICIES: &str = "vault/policies";
/// The option that names the token role.
pub const ROLE: &str = "vault/role";
const UNWRAP: &str = "vault/unwrap";
const FILE_PERMISSIONS: &str = "vault/filePermissions";
const WRAP_TTL: &str = "vault/wrapTTL";
const TOKEN_FILENAME: &str = "vault/tokenFilename";
const TTL: &str = "vault/ttl";
const MAX_TTL: &str = "vault/maxTTL";
const RENEW: &str = "vault/renew";
const REVOKE: &str = "vault/revoke";

/// The options that a pod may give.
pub const KNOWN: [&str; 10] = [
    POLICIES,
    ROLE,
    UNWRAP,
    FILE_PERMISSIONS,
    WRAP_TTL,
    TOKEN_FILENAME,
    TTL,
    MAX_TTL,
    RENEW,
    REVOKE,
];

const POD_NAME: &str = "kubernetes.io/pod.name";
const POD_NAMESPACE: &str = "kubernetes.io/pod.namespace";
const SERVICE_ACCOUNT: &str = "kubernetes.io/serviceAccount.name";
const GROUP: &str = "kubernetes.io/mounterArgs.FsGroup";

/// What the messages call the mount directory, which is no option.
const MOUNT_DIR: &str = "mount directory";

/// The mode of the token's files unless the pod says another, as with the first plugin.
const DEFAULT_PERMISSIONS: u32 = 0o644;

/// Kubernetes' own limit for names (RFC 1123 subdomains). Vault has none for a token's metadata.
const MAX_NAME: usize = 253;

/// The most policies of one token.
pub const MAX_POLICIES: usize = 64;
const MAX_POLICY: usize = 128;

/// The policy that may do everything.
const ROOT_POLICY: &str = "root";

/// Vault counts in whole seconds and takes a half for none.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// A less similar key is no help (Jaro-Winkler, 1 is equal).
const SIMILAR: f64 = 0.7;

/// Checks a mount directory and the options of its volume, all of them at once. An empty value is
/// as good as none. Keys that are neither under `vault/` nor the kubelet's own are nobody's business
/// here.
pub fn parse(
    mount_dir: &str,
    options: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
    defaults: &PodDefaults,
) -> Result<VolumeRequest, OptionErrors> {
    let mut reader = Reader {
        options,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let mount_dir = MountDir::parse(mount_dir)
        .map_err(|error| reader.report(MOUNT_DIR, error.to_string()))
        .ok();
    let pod = pod(&mut reader, mount_dir.as_ref());
    let token = token(&mut reader, defaults);
    let files = files(&mut reader, defaults);
    let lifecycle = LifecycleOptions {
        renew: reader.value(RENEW, yes_or_no).unwrap_or(true),
        revoke: reader.value(REVOKE, yes_or_no).unwrap_or(true),
    };
    unknown(&mut reader, defaults.unknown_options);
    match mount_dir {
        Some(mount_dir) if reader.errors.is_empty() => Ok(VolumeRequest {
            mount_dir,
            pod,
            token,
            files,
            lifecycle,
            warnings: reader.warnings,
        }),
        _ => Err(OptionErrors(reader.errors)),
    }
}

/// The uid is the mount directory's: a static pod's manifest may overwrite the kubelet's options.
fn pod(reader: &mut Reader<'_>, mount_dir: Option<&MountDir>) -> Pod {
    let uid = mount_dir.map_or("", MountDir::pod_uid).to_owned();
    if mount_dir.is_some() {
        reader.value(POD_UID_OPTION, |given| {
            if given == uid {
                return Ok(());
            }
            let given = quoted(given);
            Err(format!(
                "{given} is not the pod of the mount directory, {uid}"
            ))
        });
    }
    let mut name = |key| reader.value(key, name).unwrap_or_default();
    Pod {
        name: name(POD_NAME),
        namespace: name(POD_NAMESPACE),
        service_account: name(SERVICE_ACCOUNT),
        uid,
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        let text = quoted(text);
        return Err(format!(
            "{text} is not at most {MAX_NAME} bytes without control characters"
        ));
    }
    Ok(text.to_owned())
}

fn token(reader: &mut Reader<'_>, defaults: &PodDefaults) -> TokenRequest {
    let ttl = reader.value(TTL, ttl);
    let max_ttl = reader.value(MAX_TTL, self::ttl);
    if let (Some(ttl), Some(max_ttl)) = (ttl, max_ttl)
        && ttl > max_ttl
    {
        let (ttl, max_ttl) = (duration::to_go(ttl), duration::to_go(max_ttl));
        reader.report(TTL, format!("{ttl} is longer than {MAX_TTL} {max_ttl}"));
    }
    TokenRequest {
        role: reader
            .value(ROLE, role)
            .unwrap_or_else(|| defaults.role.clone()),
        policies: reader.value(POLICIES, policies).unwrap_or_default(),
        delivery: delivery(reader, defaults),
        ttl,
        max_ttl,
    }
}

/// A time to unwrap for a token that is not wrapped is a contradiction, and following either half
/// of it could surprise: refused.
fn delivery(reader: &mut Reader<'_>, defaults: &PodDefaults) -> Delivery {
    let unwrap = reader.value(UNWRAP, yes_or_no).unwrap_or(false);
    let wrap_ttl = reader.value(WRAP_TTL, ttl);
    if !unwrap {
        let ttl = wrap_ttl.unwrap_or(defaults.wrap_ttl);
        return Delivery::Wrapped { ttl };
    }
    if wrap_ttl.is_some() {
        let problem = format!(
            "a token that {UNWRAP} wants unwrapped has no time to unwrap: leave one of both out"
        );
        reader.report(WRAP_TTL, problem);
    }
    Delivery::Unwrapped
}

fn files(reader: &mut Reader<'_>, defaults: &PodDefaults) -> FileOptions {
    FileOptions {
        token_filename: reader
            .value(TOKEN_FILENAME, token_filename)
            .unwrap_or_else(|| defaults.token_filename.clone()),
        permissions: reader
            .value(FILE_PERMISSIONS, permissions)
            .unwrap_or(DEFAULT_PERMISSIONS),
        group: reader.value(GROUP, group),
    }
}

fn role(text: &str) -> Result<RoleName, String> {
    text.parse()
        .map_err(|error: RoleNameError| format!("{} is no role's name: {error}", quoted(text)))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    boolean(text).ok_or_else(|| format!("{} is neither true nor false", quoted(text)))
}

fn ttl(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(ttl) if ttl >= SHORTEST_TTL => Ok(ttl),
        Ok(_) => Err(format!("{} is shorter than a second", quoted(text))),
        Err(error) => Err(format!(
            "{} is no duration as in 5m or 1h30m: {error}",
            quoted(text)
        )),
    }
}

fn token_filename(text: &str) -> Result<String, String> {
    check_token_filename(text)
        .map(|()| text.to_owned())
        .map_err(|error| format!("{} is no name for the token's file: {error}", quoted(text)))
}

/// Octal digits, also with the leading `0` or `0o` of Go and C.
fn permissions(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    octal
        .then(|| u32::from_str_radix(digits, 8).ok())
        .flatten()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{} is no octal mode from 0 to 0777", quoted(text)))
}

fn group(text: &str) -> Result<u32, String> {
    let decimal = text.bytes().all(|b| b.is_ascii_digit());
    // The last id means "leave it" to chown(2).
    decimal
        .then(|| text.parse().ok())
        .flatten()
        .filter(|group| *group != u32::MAX)
        .ok_or_else(|| format!("{} is no group id", quoted(text)))
}

/// Policies as Vault itself reads a list (policyutil.SanitizePolicies): trimmed, lower-case, blanks
/// and repetitions dropped.
fn policies(text: &str) -> Result<Vec<String>, String> {
    let mut policies = Vec::new();
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let policy = policy(name)?;
        if !policies.contains(&policy) {
            policies.push(policy);
        }
        if policies.len() > MAX_POLICIES {
            return Err(format!("there are more than {MAX_POLICIES} policies"));
        }
    }
    Ok(policies)
}

fn policy(name: &str) -> Result<String, String> {
    if name.len() > MAX_POLICY || name.chars().any(char::is_control) {
        let name = quoted(name);
        return Err(format!(
            "{name} is not a policy of at most {MAX_POLICY} bytes without control characters"
        ));
    }
    let policy = name.to_ascii_lowercase();
    // Go and Rust lower some letters differently: Vault makes a plain i of U+0130 (tried). What is
    // checked here must be what Vault sees.
    if policy != name.to_lowercase() {
        let name = quoted(name);
        return Err(format!("{name} has capital letters outside ASCII"));
    }
    if policy == ROOT_POLICY {
        return Err(format!("no pod gets the policy {ROOT_POLICY}"));
    }
    Ok(policy)
}

fn unknown(reader: &mut Reader<'_>, mode: UnknownOptions) {
    let options = reader.options;
    let unknown = options
        .keys()
        .filter(|key| key.starts_with(PREFIX) && !KNOWN.contains(&key.as_ref()));
    for key in unknown {
        let problem = match nearest(key) {
            Some(known) => format!("no such option; is {known} meant?"),
            None => format!("no such option; there are {}", KNOWN.join(", ")),
        };
        match mode {
            UnknownOptions::Refuse => reader.report(key, problem),
            UnknownOptions::Warn => reader.warn(key, &problem),
        }
    }
}

/// The known option that a key is most like, if it is like any.
fn nearest(key: &str) -> Option<&'static str> {
    let key = key
        .get(PREFIX.len()..)?
        .get(..64.min(key.len() - PREFIX.len()))?
        .to_ascii_lowercase();
    KNOWN
        .into_iter()
        .map(|known| {
            let name = known[PREFIX.len()..].to_ascii_lowercase();
            (strsim::jaro_winkler(&key, &name), known)
        })
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// Reads options and keeps what is wrong with them.
struct Reader<'a> {
    options: &'a BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    errors: Vec<OptionError>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// The option's value; nothing when it is not given, or when it is bad, which is then reported.
    fn value<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.options.get(key).filter(|value| !value.is_empty())?;
        parse(value)
            .map_err(|problem| self.report(key, problem))
            .ok()
    }

    fn report(&mut self, key: &str, problem: String) {
        self.errors.push(OptionError {
            key: shown(key),
            problem,
        });
    }

    fn warn(&mut self, key: &str, problem: &str) {
        self.warnings.push(format!("{}: {problem}", shown(key)));
    }
}

/// A key for a message. Known ones need no quotes.
fn shown(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ' ');
    if key.len() <= 64 && key.chars().all(plain) {
        return key.to_owned();
    }
    quoted(key)
}
