//! The one table of environment variables: names, defaults, descriptions.

use std::fmt::Write;

/// A setting's environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its names. The first one that is set and not empty counts.
    pub names: &'static [&'static str],
    /// What holds where none is set; empty where nothing does.
    pub default: &'static str,
    /// What it is for, in one line of Markdown.
    pub about: &'static str,
}

/// Set by systemd from a unit's `StateDirectory=`.
pub const SYSTEMD_STATE_DIR: &str = "STATE_DIRECTORY";

/// Set by systemd where a unit has `LoadCredential=`.
pub const SYSTEMD_CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The credential with the generator token.
pub const GENERATOR_TOKEN_CREDENTIAL: &str = "generator-token";

/// The credential with the key of the client certificate.
pub const CLIENT_KEY_CREDENTIAL: &str = "client-key";

/// What a credential holds that is not there: systemd starts no service without a default for it,
/// and takes no empty one.
pub const NO_CREDENTIAL: &str = "none";

macro_rules! variables {
    ($($constant:ident: [$($name:expr),+], $default:expr, $about:literal;)+) => {
        $(
            #[doc = $about]
            pub const $constant: Variable = Variable {
                names: &[$($name),+],
                default: $default,
                about: $about,
            };
        )+

        /// Every variable, in the order of the documentation.
        pub const VARIABLES: &[Variable] = &[$($constant),+];
    };
}

// OpenBao's client reads BAO_NAME first and VAULT_NAME when that is empty (its api/env.go).
variables! {
    ADDRESS: ["BAO_ADDR", "VAULT_ADDR"], "https://127.0.0.1:8200",
        "Vault's URL, `https` or `http`, with a path where Vault has one.";
    CA_FILE: ["BAO_CACERT", "VAULT_CACERT"], "",
        "PEM file of the CAs to trust instead of the system's. Wins over a directory.";
    CA_DIRECTORY: ["BAO_CAPATH", "VAULT_CAPATH"], "",
        "Directory of such files.";
    CLIENT_CERTIFICATE: ["BAO_CLIENT_CERT", "VAULT_CLIENT_CERT"], "",
        "PEM file of a client certificate for Vault. Needs its key.";
    CLIENT_KEY: ["BAO_CLIENT_KEY", "VAULT_CLIENT_KEY"], "",
        "PEM file of the client certificate's key. systemd's credential `client-key` where none is set.";
    CLIENT_TIMEOUT: ["BAO_CLIENT_TIMEOUT", "VAULT_CLIENT_TIMEOUT"], "30s",
        "Time for one attempt of a call to Vault: a duration, or seconds.";
    MAX_RETRIES: ["BAO_MAX_RETRIES", "VAULT_MAX_RETRIES", "VAULT_MAX_RETRY"], "2",
        "How often a call is attempted again.";
    RATE_LIMIT: ["BAO_RATE_LIMIT", "VAULT_RATE_LIMIT"], "",
        "The most calls a second, as `rate` or `rate:burst`.";
    SKIP_VERIFY: ["BAO_SKIP_VERIFY", "VAULT_SKIP_VERIFY"], "false",
        "`true`: Vault's certificate is not checked. Anyone on the way can then take the tokens.";
    SERVER_NAME: ["BAO_TLS_SERVER_NAME", "VAULT_TLS_SERVER_NAME"], "",
        "The host name that Vault's certificate must have, where not the URL's.";
    NAMESPACE: ["BAO_NAMESPACE", "VAULT_NAMESPACE"], "",
        "The Vault namespace.";
    WRAP_TTL: ["BAO_WRAP_TTL", "VAULT_WRAP_TTL"], "5m",
        "The time that a pod has to unwrap its token, unless it says `vault/wrapTTL`.";
    GENERATOR_TOKEN_PATH: ["VAULTTMPFS_GENERATOR_TOKEN_PATH"], "/etc/kubernetes/vaulttoken",
        "The file with the generator token. systemd's credential `generator-token` counts first.";
    ALLOW_ROOT_TOKEN: ["VAULTTMPFS_ALLOW_ROOT_TOKEN"], "false",
        "`true`: a root token serves as generator token. For demonstrations only.";
    TOKEN_FILENAME: ["VAULTTMPFS_TOKEN_FILENAME"], "vault-token",
        "The name of a token's file, unless the pod says `vault/tokenFilename`.";
    ROLE: ["VAULTTMPFS_DEFAULT_ROLE_NAME", "VAULTTMPFS_ROLE_NAME"], "applications",
        "The token role, unless the pod says `vault/role`.";
    UNKNOWN_OPTIONS: ["VAULTTMPFS_UNKNOWN_OPTIONS"], "refuse",
        "What an unknown option under `vault/` does to a mount: `refuse` or `warn`.";
    EXTRA_FILES: ["VAULTTMPFS_EXTRA_FILES"], "true",
        "`false`: pods get no `vault-addr`, `vault-namespace` and `ca.crt`.";
    POD_VAULT_ADDR: ["VAULTTMPFS_POD_VAULT_ADDR"], "",
        "Vault's URL for pods, where it is not the agent's. Never one of the node itself.";
    POD_CACERT: ["VAULTTMPFS_POD_CACERT"], "",
        "PEM file of the CAs for pods, where they are not the agent's.";
    CLUSTER_NAME: ["VAULTTMPFS_CLUSTER_NAME"], "",
        "The Kubernetes cluster's name, for the tokens' metadata.";
    REDIRECT_HOSTS: ["VAULTTMPFS_REDIRECT_HOSTS"], "",
        "Hosts besides the URL's that a standby Vault may redirect to, comma-separated, without port.";
    REVOKE: ["VAULTTMPFS_REVOKE"], "true",
        "`false`: the tokens of volumes that have ended are left to expire.";
    REVOKE_DELAY: ["VAULTTMPFS_REVOKE_DELAY"], "0s",
        "How long after a volume's end its token is revoked.";
    MAX_AGE: ["VAULTTMPFS_MAX_AGE"], "",
        "Tokens of volumes older than this are not renewed any more: a bound for leaked ones.";
    WATCH_UNWRAP: ["VAULTTMPFS_WATCH_UNWRAP"], "true",
        "One look before a wrapping ends: `true` says that nobody unwrapped, `revoke` also ends the token, `false` does not look.";
    MAX_VAULT_RATE: ["VAULTTMPFS_MAX_VAULT_RATE"], "20",
        "The most renewals and revocations a second.";
    LOG_FORMAT: ["VAULTTMPFS_LOG_FORMAT"], "auto",
        "`text` or `json` to standard error, `journal` to journald with fields; `auto` is `journal` where standard error leads there, else `text`.";
    LOG_LEVEL: ["VAULTTMPFS_LOG_LEVEL"], "info",
        "The least that is logged: `error`, `warn`, `info` or `debug`.";
    METRICS_ADDRESS: ["VAULTTMPFS_METRICS_ADDR"], "",
        "Address and port, as in `127.0.0.1:9743`, at which metrics and health are served, too. Without TLS on loopback only.";
    METRICS_CERTIFICATE: ["VAULTTMPFS_METRICS_CERT"], "",
        "PEM file of the certificate for it. Needs its key. Read again when it changes.";
    METRICS_KEY: ["VAULTTMPFS_METRICS_KEY"], "",
        "PEM file of that certificate's key.";
    METRICS_PKI_ROLE: ["VAULTTMPFS_METRICS_PKI_ROLE"], "",
        "The role of Vault's PKI that issues the certificate instead. Renewed at two thirds of its life.";
    METRICS_PKI_BACKEND: ["VAULTTMPFS_METRICS_PKI_BACKEND"], "pki",
        "The path in Vault of that PKI.";
    METRICS_NAMES: ["VAULTTMPFS_METRICS_NAMES"], "",
        "Host names and addresses of that certificate, comma-separated. The node's host name where none is set.";
    METRICS_CLIENT_CA: ["VAULTTMPFS_METRICS_CLIENT_CA"], "",
        "PEM file of CAs: only clients with a certificate of one of them are answered.";
    METRICS_CLIENT_CA_BACKENDS: ["VAULTTMPFS_METRICS_CLIENT_CA_BACKENDS"], "",
        "Paths of PKIs in Vault whose CAs count for that, too, comma-separated.";
    SOCKET: ["VAULTTMPFS_SOCKET"], vaulttmpfs_api::DEFAULT_SOCKET,
        "The agent's Unix socket, for agent, shim and commands.";
    STATE_DIR: ["VAULTTMPFS_STATE_DIR", SYSTEMD_STATE_DIR], "/var/lib/vaulttmpfs",
        "The directory of the agent's journal. systemd sets the second name.";
}

/// The table of all variables, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = String::from("| variable | default | what it is for |\n|---|---|---|\n");
    for variable in VARIABLES {
        let names: Vec<_> = variable.names.iter().map(|n| format!("`{n}`")).collect();
        let default = match variable.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {default} | {} |",
            names.join(", "),
            variable.about
        );
    }
    table
}
