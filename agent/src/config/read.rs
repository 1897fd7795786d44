//! From the environment to checked settings. Every bad one is reported, not only the first.

use super::metrics::metrics;
use super::values::{self, Parsed};
use super::variables as table;
use super::{
    CaSource, Delivered, Environment, Lifecycle, Locations, LogFormat, Logging, PodDefaults,
    Settings, Variable, VaultSettings, read_ca,
};
use crate::files::VAULT_ADDR_FILE;
use crate::identity;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tracing::Level;

/// One bad setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The variable as it was spelled.
    pub variable: &'static str,
    /// Its value, on one line and bounded; nothing when it may be secret or is not UTF-8.
    pub value: Option<String>,
    /// What is expected.
    pub expected: String,
}

/// All bad settings, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingErrors(Vec<SettingError>);

/// More characters than these of a value are left out.
const SHOWN_CHARACTERS: usize = 80;

/// Where the agent serves and keeps its journal, as the environment says it. Never fails, so that
/// the agent can serve and tell what is wrong; [`read`] reports a bad one.
pub fn locations(env: &impl Environment) -> Locations {
    Locations {
        socket: location(env, &table::SOCKET),
        state_dir: location(env, &table::STATE_DIR),
    }
}

/// How the log is written. A bad setting counts as none here; [`read`] reports it.
pub fn logging(env: &impl Environment) -> Logging {
    log(&mut Reader::new(env))
}

/// The file with the generator token, for who does not need to know whether all else is good.
pub fn generator_token_path(env: &impl Environment) -> PathBuf {
    location(env, &table::GENERATOR_TOKEN_PATH)
}

fn location(env: &impl Environment, variable: &Variable) -> PathBuf {
    let named = match spellings(env, variable).next() {
        Some((table::SYSTEMD_STATE_DIR, list)) => first_of(list.into()),
        Some((_, path)) => path.into(),
        None => PathBuf::new(),
    };
    if named.is_absolute() {
        named
    } else {
        PathBuf::from(variable.default)
    }
}

/// The variable's names that are set, with their values, in the order in which they count. An empty
/// value is none.
pub(super) fn spellings(
    env: &impl Environment,
    variable: &Variable,
) -> impl Iterator<Item = (&'static str, OsString)> {
    variable.names.iter().filter_map(|name| {
        let value = env.get(name).filter(|value| !value.is_empty())?;
        Some((*name, value))
    })
}

/// systemd separates several state directories by colons.
fn first_of(list: PathBuf) -> PathBuf {
    match list.to_str().and_then(|text| text.split_once(':')) {
        Some((first, _)) => PathBuf::from(first),
        None => list,
    }
}

/// Every setting but the locations and the log's. Files of CAs are read once, so that a bad one is known early.
pub fn read(env: &impl Environment) -> Result<Settings, SettingErrors> {
    let mut reader = Reader::new(env);
    let settings = settings(&mut reader);
    match settings {
        Some(mut settings) if reader.errors.is_empty() => {
            settings.warnings = reader.warnings;
            Ok(settings)
        }
        _ => Err(SettingErrors(reader.errors)),
    }
}

/// Reads every part before giving up on any. Nothing only where an error was reported.
fn settings<E: Environment>(reader: &mut Reader<'_, E>) -> Option<Settings> {
    for location in [&table::SOCKET, &table::STATE_DIR] {
        reader.value(location, values::path);
    }
    log(reader);
    let vault = vault(reader);
    let delivered = delivered(reader, vault.as_ref());
    let pod_defaults = pod_defaults(reader);
    let generator_token_path = reader.value(&table::GENERATOR_TOKEN_PATH, values::path);
    let allow_root_token = reader.value(&table::ALLOW_ROOT_TOKEN, values::boolean);
    let lifecycle = lifecycle(reader);
    let cluster = reader.value(&table::CLUSTER_NAME, values::name);
    let node = node_name();
    let metrics = metrics(reader, &node);
    let generator_token_path = generator_token_path?;
    Some(Settings {
        vault: vault?,
        generator_token_credential: credential(reader.env, table::GENERATOR_TOKEN_CREDENTIAL),
        generator_token_path,
        allow_root_token: allow_root_token?,
        pod_defaults: pod_defaults?,
        delivered: delivered?,
        lifecycle: lifecycle?,
        metrics,
        node,
        cluster,
        warnings: Vec::new(),
    })
}

/// The file of a credential that systemd hands over, whether or not it holds anything yet.
fn credential(env: &impl Environment, id: &str) -> Option<PathBuf> {
    let directory = env.get(table::SYSTEMD_CREDENTIALS)?;
    let path = Path::new(&directory).join(id);
    (path.is_absolute() && path.is_file()).then_some(path)
}

fn vault<E: Environment>(reader: &mut Reader<'_, E>) -> Option<VaultSettings> {
    let address = reader.value(&table::ADDRESS, values::address);
    let ca = ca(reader);
    let client_certificate = client_certificate(reader);
    let timeout = reader.value(&table::CLIENT_TIMEOUT, values::timeout);
    let max_retries = reader.value(&table::MAX_RETRIES, values::count);
    let rate_limit = reader.value(&table::RATE_LIMIT, values::rate_limit);
    let skip_verify = reader.value(&table::SKIP_VERIFY, values::boolean);
    let server_name = reader.value(&table::SERVER_NAME, values::server_name);
    let namespace = reader.value(&table::NAMESPACE, values::namespace);
    let redirect_hosts = reader.value(&table::REDIRECT_HOSTS, values::hosts);
    let settings = VaultSettings {
        address: address?,
        ca,
        client_certificate,
        timeout: timeout?,
        max_retries: max_retries?,
        rate_limit,
        skip_verify: skip_verify?,
        server_name,
        namespace,
        redirect_hosts: redirect_hosts.unwrap_or_default(),
    };
    reader.warnings.extend(settings.doubts());
    Some(settings)
}

/// A file wins over a directory, as in Vault's own clients (go-rootcerts). What does not count is not
/// checked.
fn ca<E: Environment>(reader: &mut Reader<'_, E>) -> Option<CaSource> {
    if reader.is_set(&table::CA_FILE) {
        reader.value(&table::CA_FILE, ca_file)
    } else {
        reader.value(&table::CA_DIRECTORY, |text| {
            readable_ca(CaSource::Directory(values::path(text)?))
        })
    }
}

pub(super) fn ca_file(text: &str) -> Parsed<CaSource> {
    readable_ca(CaSource::File(values::path(text)?))
}

fn readable_ca(source: CaSource) -> Parsed<CaSource> {
    read_ca(&source)
        .map(|_| source)
        .map_err(|error| format!("PEM certificates, but {error}"))
}

/// PEM files of a certificate and its key.
pub(super) fn identity_files<E: Environment>(
    reader: &mut Reader<'_, E>,
    certificate: &Variable,
    key: &Variable,
) -> Option<(PathBuf, PathBuf)> {
    let files = (
        reader.value(certificate, readable_file),
        reader.value(key, readable_file),
    );
    reader.together(certificate, key);
    files.0.zip(files.1)
}

/// Both are judged here, so that bad ones replace no agent that runs. A credential is not: systemd hands
/// the next agent a new copy, which this one cannot see.
fn client_certificate<E: Environment>(reader: &mut Reader<'_, E>) -> Option<(PathBuf, PathBuf)> {
    let certificate = reader.value(&table::CLIENT_CERTIFICATE, certificate_file);
    if !reader.is_set(&table::CLIENT_KEY)
        && let Some(key) = credential(reader.env, table::CLIENT_KEY_CREDENTIAL)
        && fs::read(&key).is_ok_and(|text| !is_none(text.trim_ascii()))
    {
        return certificate.map(|certificate| (certificate, key));
    }
    let key = reader.value(&table::CLIENT_KEY, |text| {
        key_file(text, certificate.as_deref())
    });
    reader.together(&table::CLIENT_CERTIFICATE, &table::CLIENT_KEY);
    certificate.zip(key)
}

fn certificate_file(text: &str) -> Parsed<PathBuf> {
    let path = readable_file(text)?;
    identity::read_chain(&path)
        .map(|_| path)
        .map_err(|problem| format!("a certificate, but {problem}"))
}

/// The key of a certificate, where that one is good.
fn key_file(text: &str, certificate: Option<&Path>) -> Parsed<PathBuf> {
    let path = readable_file(text)?;
    match certificate.map(|certificate| identity::read(certificate, &path)) {
        Some(Err(problem)) => Err(format!("the certificate's key, but {problem}")),
        _ => Ok(path),
    }
}

/// A look at the file and no more: who uses a key reads it then.
fn readable_file(text: &str) -> Parsed<PathBuf> {
    let path = values::path(text)?;
    let metadata = fs::metadata(&path);
    if metadata.is_ok_and(|metadata| !metadata.is_file() || metadata.len() == 0) {
        return Err("a file that is not empty".to_owned());
    }
    match File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("a file, but it cannot be read: {error}")),
    }
}

fn is_none(credential: &[u8]) -> bool {
    credential.is_empty() || credential == table::NO_CREDENTIAL.as_bytes()
}

fn pod_defaults<E: Environment>(reader: &mut Reader<'_, E>) -> Option<PodDefaults> {
    let role = reader.value(&table::ROLE, values::role);
    let token_filename = reader.value(&table::TOKEN_FILENAME, values::token_filename);
    let wrap_ttl = reader.value(&table::WRAP_TTL, values::ttl);
    let unknown_options = reader.value(&table::UNKNOWN_OPTIONS, values::unknown_options);
    Some(PodDefaults {
        role: role?,
        token_filename: token_filename?,
        wrap_ttl: wrap_ttl?,
        unknown_options: unknown_options?,
    })
}

fn log<E: Environment>(reader: &mut Reader<'_, E>) -> Logging {
    Logging {
        format: reader
            .value(&table::LOG_FORMAT, values::log_format)
            .unwrap_or(LogFormat::Auto),
        level: reader
            .value(&table::LOG_LEVEL, values::log_level)
            .unwrap_or(Level::INFO),
    }
}

fn lifecycle<E: Environment>(reader: &mut Reader<'_, E>) -> Option<Lifecycle> {
    let revoke = reader.value(&table::REVOKE, values::boolean);
    let revoke_delay = reader.value(&table::REVOKE_DELAY, values::delay);
    let max_age = reader.value(&table::MAX_AGE, values::ttl);
    let watch_unwrap = reader.value(&table::WATCH_UNWRAP, values::watch_unwrap);
    let max_rate = reader.value(&table::MAX_VAULT_RATE, values::steady_rate);
    Some(Lifecycle {
        revoke: revoke?,
        revoke_delay: revoke_delay?,
        max_age,
        watch_unwrap: watch_unwrap?,
        max_rate: max_rate?,
    })
}

/// What is not said for pods is as for the agent, but an address that leads to the node itself.
fn delivered<E: Environment>(
    reader: &mut Reader<'_, E>,
    vault: Option<&VaultSettings>,
) -> Option<Delivered> {
    let address = reader.value(&table::POD_VAULT_ADDR, values::pod_address);
    let ca = reader.value(&table::POD_CACERT, ca_file);
    let extra_files = reader.value(&table::EXTRA_FILES, values::boolean)?;
    let vault = vault?;
    let own = (!vault.address.is_loopback()).then_some(&vault.address);
    let address = address.as_ref().or(own);
    if address.is_none() && extra_files {
        reader.warn(format!(
            "{} leads to the node itself: pods get no {VAULT_ADDR_FILE} unless {} is set",
            vault.address,
            table::POD_VAULT_ADDR.names[0],
        ));
    }
    Some(Delivered {
        vault_addr: address.map(ToString::to_string),
        namespace: vault.namespace.clone(),
        ca: ca.or_else(|| vault.ca.clone()),
        extra_files,
    })
}

impl VaultSettings {
    /// What is allowed, but lets a token be read on its way: each a line.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.skip_verify {
            doubts.push(
                "Vault's certificate is not checked: anyone on the way can take tokens".to_owned(),
            );
        }
        if !self.address.is_https() && !self.address.is_loopback() {
            doubts.push(format!(
                "{}: tokens cross the network in the clear",
                self.address
            ));
        }
        doubts
    }
}

/// The host name as the kernel has it; Kubernetes' name of the node may be another.
fn node_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Reads variables and keeps what is wrong with them.
pub(super) struct Reader<'a, E> {
    env: &'a E,
    errors: Vec<SettingError>,
    warnings: Vec<String>,
}

impl<'a, E: Environment> Reader<'a, E> {
    fn new(env: &'a E) -> Self {
        Self {
            env,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The variable's value, its default where it is not set; nothing when there is neither, or
    /// when it is bad, which is then reported.
    pub(super) fn value<T>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Option<T> {
        let (name, value) = match self.spelling(variable) {
            Some((name, value)) => (name, value.into_string().ok()),
            None if variable.default.is_empty() => return None,
            None => (variable.names[0], Some(variable.default.to_owned())),
        };
        let Some(value) = value else {
            self.report(name, None, "UTF-8".to_owned());
            return None;
        };
        parse(&value)
            .map_err(|expected| self.report(name, shown(&value), expected))
            .ok()
    }

    /// The name by which the variable is set, and its value.
    fn spelling(&mut self, variable: &Variable) -> Option<(&'static str, OsString)> {
        let mut spellings = spellings(self.env, variable);
        let (name, value) = spellings.next()?;
        let other = spellings.find(|(_, other)| *other != value);
        drop(spellings);
        if let Some((other, _)) = other {
            self.warn(format!("{name} and {other} differ: {name} counts"));
        }
        Some((name, value))
    }

    pub(super) fn is_set(&self, variable: &Variable) -> bool {
        spellings(self.env, variable).next().is_some()
    }

    /// Reports the one of two variables that is missing.
    fn together(&mut self, one: &Variable, other: &Variable) {
        for (set, missing) in [(one, other), (other, one)] {
            if self.is_set(missing) {
                continue;
            }
            let set = spellings(self.env, set).next();
            if let (Some((name, _)), [.., missing]) = (set, missing.names) {
                self.report(missing, None, format!("a value, since {name} has one"));
            }
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub(super) fn report(
        &mut self,
        variable: &'static str,
        value: Option<String>,
        expected: String,
    ) {
        self.errors.push(SettingError {
            variable,
            value,
            expected,
        });
    }
}

/// May a setting's value hold a secret: a URL with a password, or a token where a path was meant?
pub(super) fn may_be_secret(value: &str) -> bool {
    let token = ["hvs.", "hvb.", "hvr.", "s.", "b.", "r."]
        .iter()
        .any(|prefix| value.starts_with(prefix));
    token || value.contains('@')
}

/// A value for a message: on one line and bounded, or nothing when it may hold a secret.
fn shown(value: &str) -> Option<String> {
    if may_be_secret(value) {
        return None;
    }
    Some(match value.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    })
}

impl SettingErrors {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &SettingError> {
        self.0.iter()
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            value,
            expected,
        } = self;
        match value {
            Some(value) => write!(f, "{variable}={value}: expected {expected}"),
            None => write!(f, "{variable}: expected {expected}"),
        }
    }
}

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingError {}
impl std::error::Error for SettingErrors {}
