use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use tempfile::TempDir;

pub(super) const CA_1: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBfjCCASWgAwIBAgIUU2H+MUGaN/fqy+SKJ52dj017YYIwCgYIKoZIzj0EAwIw\n\
FDESMBAGA1UEAwwJVGVzdCBDQSAxMCAXDTI2MTEyMTA0MDQ1MFoYDzIxMjYxMDI4\n\
MDQwNDUwWjAUMRIwEAYDVQQDDAlUZXN0IENBIDEwWTATBgcqhkjOPQIBBggqhkjO\n\
PQMBBwNCAASbnYZ0g6TENG/fMxRrgGTfhD0E2d5iPdCQJzZvlqZ7NRebJn9+u9LC\n\
Jg2+tQt+Cbb5+A9cl4mmV/9hTJOOAoXvo1MwUTAdBgNVHQ4EFgQUSUQ6nzakReYX\n\
CHHA/TLM8pKOvr0wHwYDVR0jBBgwFoAUSUQ6nzakReYXCHHA/TLM8pKOvr0wDwYD\n\
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBiNuYlDUHYZpFr+0cQS5e7\n\
iRMkvA0ososAz3r2v+n6zwIgQrY/ljaNtLSrX1pQqve1kJVD1dQfHXPfrBB9jap2\n\
I44=\n\
-----END CERTIFICATE-----\n";
const CA_2: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBfzCCASWgAwIBAgIUWbLubV25/BykRDgEllT30dKjQrswCgYIKoZIzj0EAwIw\n\
FDESMBAGA1UEAwwJVGVzdCBDQSAyMCAXDTI2MTEyMTA0MDQ1MFoYDzIxMjYxMDI4\n\
MDQwNDUwWjAUMRIwEAYDVQQDDAlUZXN0IENBIDIwWTATBgcqhkjOPQIBBggqhkjO\n\
PQMBBwNCAAQEAt+VsgqjmaBxT/Ml2VPBMZKGxGnJaxecBx8gakMBXRoGL7ISqNbh\n\
PXvaDrM4x74cILUnBWJ5Zys9x2m4j/8lo1MwUTAdBgNVHQ4EFgQU2mKibwWSW552\n\
Fa12/QPOqHVlvxMwHwYDVR0jBBgwFoAU2mKibwWSW552Fa12/QPOqHVlvxMwDwYD\n\
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA4SlDbUQ2wPXOyXDxb3ku\n\
NUDk507Vuf4HEuhcbjKh/jkCIBpRJEvlJ4FyoH4l60ht9OP8cDj42ALgOze5qEvq\n\
vP8Z\n\
-----END CERTIFICATE-----\n";

/// The form of a private key; what is in it does not matter here.
pub(super) const KEY: &str =
    "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IGtleSBtYXRlcmlhbA==\n-----END PRIVATE KEY-----\n";

/// Files of a certificate and its key.
fn identity(dir: &TempDir, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (
        file(dir, &format!("{name}.crt"), made.cert.pem()),
        file(
            dir,
            &format!("{name}.key"),
            made.signing_key.serialize_pem(),
        ),
    )
}

pub(super) fn with(variables: &[(&'static str, &str)]) -> Result<Settings, SettingErrors> {
    read(&environment(variables))
}

fn environment(variables: &[(&'static str, &str)]) -> HashMap<&'static str, OsString> {
    variables
        .iter()
        .map(|(name, value)| (*name, OsString::from(value)))
        .collect()
}

pub(super) fn refusal(variables: &[(&'static str, &str)]) -> String {
    with(variables).unwrap_err().to_string()
}

pub(super) fn file(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn an_empty_environment_gives_the_defaults() {
    let settings = with(&[]).unwrap();
    assert_eq!(settings.vault.address.as_str(), "https://127.0.0.1:8200");
    assert_eq!(settings.vault.timeout, Duration::from_secs(30));
    assert_eq!(settings.vault.max_retries, 2);
    assert!(!settings.vault.skip_verify);
    assert_eq!(settings.vault.ca, None);
    assert_eq!(settings.vault.client_certificate, None);
    assert_eq!(settings.vault.rate_limit, None);
    assert_eq!(settings.vault.server_name, None);
    assert_eq!(settings.vault.namespace, None);
    assert!(settings.vault.redirect_hosts.is_empty());
    assert_eq!(
        settings.generator_token_path,
        Path::new("/etc/kubernetes/vaulttoken")
    );
    assert_eq!(
        settings.pod_defaults,
        PodDefaults {
            role: "applications".parse().unwrap(),
            token_filename: "vault-token".to_owned(),
            wrap_ttl: Duration::from_secs(300),
            unknown_options: UnknownOptions::Refuse,
        }
    );
    assert_eq!(
        settings.delivered,
        Delivered {
            vault_addr: None,
            namespace: None,
            ca: None,
            extra_files: true
        }
    );
    assert_eq!(settings.cluster, None);
    assert!(!settings.node.is_empty());
    assert_eq!(
        settings.warnings,
        [
            "https://127.0.0.1:8200 leads to the node itself: pods get no vault-addr unless \
          VAULTTMPFS_POD_VAULT_ADDR is set"
        ]
    );
}

#[test]
fn an_empty_variable_is_none() {
    let names = VARIABLES.iter().flat_map(|variable| variable.names);
    let empty: HashMap<_, _> = names.map(|name| (*name, OsString::new())).collect();
    assert_eq!(read(&empty), with(&[]));
    assert_eq!(locations(&empty), locations(&environment(&[])));
}

#[test]
fn every_variable_together() {
    let dir = TempDir::new().unwrap();
    let (ca, pod_ca) = (file(&dir, "ca.pem", CA_1), file(&dir, "pod-ca.pem", CA_2));
    let (cert, key) = identity(&dir, "client");
    let settings = with(&[
        ("VAULT_ADDR", "https://Vault.example.com:8200/base/"),
        ("VAULT_CACERT", &ca),
        ("VAULT_CLIENT_CERT", &cert),
        ("VAULT_CLIENT_KEY", &key),
        ("VAULT_CLIENT_TIMEOUT", "60"),
        ("VAULT_MAX_RETRIES", "5"),
        ("VAULT_RATE_LIMIT", "100:20"),
        ("VAULT_SKIP_VERIFY", "f"),
        ("VAULT_TLS_SERVER_NAME", "Vault.internal"),
        ("VAULT_NAMESPACE", "team/a"),
        ("VAULT_WRAP_TTL", "90s"),
        ("VAULTTMPFS_GENERATOR_TOKEN_PATH", "/run/credentials/token"),
        ("VAULTTMPFS_TOKEN_FILENAME", "token"),
        ("VAULTTMPFS_DEFAULT_ROLE_NAME", "pods"),
        ("VAULTTMPFS_UNKNOWN_OPTIONS", "warn"),
        ("VAULTTMPFS_EXTRA_FILES", "true"),
        ("VAULTTMPFS_POD_VAULT_ADDR", "https://vault.cluster.local"),
        ("VAULTTMPFS_POD_CACERT", &pod_ca),
        ("VAULTTMPFS_CLUSTER_NAME", "prod-1"),
        (
            "VAULTTMPFS_REDIRECT_HOSTS",
            " Vault-2.example.com,, [::1],10.0.0.1",
        ),
    ])
    .unwrap();
    let vault = settings.vault;
    assert_eq!(
        vault.address.as_str(),
        "https://vault.example.com:8200/base"
    );
    assert_eq!(vault.ca, Some(CaSource::File(ca.into())));
    assert_eq!(vault.client_certificate, Some((cert.into(), key.into())));
    assert_eq!(vault.timeout, Duration::from_secs(60));
    assert_eq!(vault.max_retries, 5);
    let interval = Duration::from_millis(10);
    assert_eq!(
        vault.rate_limit,
        Some(RateLimit {
            interval,
            burst: 20
        })
    );
    assert_eq!(vault.server_name.as_deref(), Some("vault.internal"));
    assert_eq!(vault.namespace.as_deref(), Some("team/a"));
    assert_eq!(
        vault.redirect_hosts,
        ["vault-2.example.com", "[::1]", "10.0.0.1"]
    );
    assert_eq!(
        settings.generator_token_path,
        Path::new("/run/credentials/token")
    );
    assert_eq!(
        settings.pod_defaults,
        PodDefaults {
            role: "pods".parse().unwrap(),
            token_filename: "token".to_owned(),
            wrap_ttl: Duration::from_secs(90),
            unknown_options: UnknownOptions::Warn,
        }
    );
    assert_eq!(settings.cluster.as_deref(), Some("prod-1"));
    assert_eq!(settings.warnings, [""; 0]);
    assert_eq!(
        settings.delivered.files().unwrap(),
        DeliveredFiles {
            vault_addr: Some("https://vault.cluster.local".to_owned()),
            namespace: Some("team/a".to_owned()),
            ca: Some(CA_2.to_owned()),
        }
    );
}

#[test]
fn every_spelling_counts_and_the_first_wins() {
    let address = |variables: &[_]| with(variables).unwrap().vault.address.to_string();
    assert_eq!(address(&[("BAO_ADDR", "https://bao")]), "https://bao");
    let both = [("BAO_ADDR", "https://bao"), ("VAULT_ADDR", "https://vault")];
    assert_eq!(address(&both), "https://bao");
    assert_eq!(
        with(&both).unwrap().warnings,
        ["BAO_ADDR and VAULT_ADDR differ: BAO_ADDR counts"]
    );
    let same = [
        ("BAO_ADDR", "https://vault"),
        ("VAULT_ADDR", "https://vault"),
    ];
    assert_eq!(with(&same).unwrap().warnings, [""; 0]);
    assert_eq!(
        address(&[("BAO_ADDR", ""), ("VAULT_ADDR", "https://vault")]),
        "https://vault"
    );

    let retries = |variables: &[_]| with(variables).unwrap().vault.max_retries;
    assert_eq!(retries(&[("VAULT_MAX_RETRY", "7")]), 7);
    assert_eq!(
        retries(&[("VAULT_MAX_RETRY", "7"), ("VAULT_MAX_RETRIES", "8")]),
        8
    );
    assert_eq!(
        retries(&[("VAULT_MAX_RETRIES", "8"), ("BAO_MAX_RETRIES", "0")]),
        0
    );

    let role = |variables: &[_]| with(variables).unwrap().pod_defaults.role.to_string();
    assert_eq!(role(&[("VAULTTMPFS_ROLE_NAME", "old")]), "old");
    assert_eq!(
        role(&[
            ("VAULTTMPFS_ROLE_NAME", "old"),
            ("VAULTTMPFS_DEFAULT_ROLE_NAME", "new")
        ]),
        "new"
    );

    let settings = with(&[
        ("BAO_CLIENT_TIMEOUT", "7s"),
        ("BAO_RATE_LIMIT", "5"),
        ("BAO_SKIP_VERIFY", "true"),
        ("BAO_TLS_SERVER_NAME", "bao"),
        ("BAO_NAMESPACE", "ns"),
        ("BAO_WRAP_TTL", "1m"),
    ])
    .unwrap();
    assert_eq!(settings.vault.timeout, Duration::from_secs(7));
    assert_eq!(settings.vault.rate_limit.map(|limit| limit.burst), Some(5));
    assert!(settings.vault.skip_verify);
    assert_eq!(settings.vault.server_name.as_deref(), Some("bao"));
    assert_eq!(settings.vault.namespace.as_deref(), Some("ns"));
    assert_eq!(settings.pod_defaults.wrap_ttl, Duration::from_secs(60));
}

#[test]
fn addresses() {
    for (text, host, port, base, written) in [
        (
            "https://vault:8200",
            "vault",
            8200,
            "",
            "https://vault:8200",
        ),
        ("https://vault", "vault", 443, "", "https://vault"),
        ("http://vault/", "vault", 80, "", "http://vault"),
        ("HTTPS://VAULT:443", "vault", 443, "", "https://vault"),
        ("https://v/a/b/", "v", 443, "/a/b", "https://v/a/b"),
        (
            "https://[2001:db8::1]:8200",
            "[2001:db8::1]",
            8200,
            "",
            "https://[2001:db8::1]:8200",
        ),
        ("https://10.0.0.1", "10.0.0.1", 443, "", "https://10.0.0.1"),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!((address.host(), address.port()), (host, port), "{text}");
        assert_eq!(
            (address.base_path(), address.as_str()),
            (base, written),
            "{text}"
        );
        assert_eq!(address.is_https(), written.starts_with("https"), "{text}");
        assert!(!address.is_loopback(), "{text}");
    }
}

#[test]
fn what_is_no_address() {
    use AddressError::{Credentials, NotHttp, Path, Query};
    for (text, why) in [
        ("", NotHttp),
        ("vault:8200", NotHttp),
        ("vault.example.com", NotHttp),
        ("//vault", NotHttp),
        ("https:vault", NotHttp),
        ("https:/vault", NotHttp),
        ("https://", NotHttp),
        ("https://vault:99999", NotHttp),
        ("ftp://vault", NotHttp),
        ("unix:///run/vault.sock", NotHttp),
        (" https://vault", NotHttp),
        ("https://va\tult", NotHttp),
        ("https://vault\n", NotHttp),
        ("https://user:secret@vault", Credentials),
        ("https://user@vault", Credentials),
        ("https://@vault", Credentials),
        ("https://vault?x=1", Query),
        ("https://vault/?", Query),
        ("https://vault#x", Query),
        ("https://vault/a/../b", Path),
        ("https://vault/%2e%2e/b", Path),
        ("https://vault/a/./b", Path),
        ("https://vault\\b", Path),
    ] {
        assert_eq!(text.parse::<Address>(), Err(why), "{text:?}");
    }
}

#[test]
fn a_pod_is_never_sent_to_its_own_node() {
    for local in [
        "http://localhost:8200",
        "https://LOCALHOST",
        "https://localhost.",
        "https://vault.localhost",
        "https://127.0.0.1:8200",
        "https://127.8.9.1",
        "https://127.1",
        "https://0x7f000001",
        "https://0.0.0.0",
        "https://[::1]",
        "https://[::]",
        "https://[::ffff:127.0.0.1]",
    ] {
        assert!(local.parse::<Address>().unwrap().is_loopback(), "{local}");
        let settings = with(&[("VAULT_ADDR", local)]).unwrap();
        assert_eq!(settings.delivered.vault_addr, None, "{local}");
        let refusal = refusal(&[("VAULTTMPFS_POD_VAULT_ADDR", local)]);
        assert!(refusal.contains("not to the pod itself"), "{refusal}");
    }
    let told = |variables: &[_]| with(variables).unwrap().delivered.vault_addr;
    let own = ("VAULT_ADDR", "https://vault:8200");
    assert_eq!(told(&[own]).as_deref(), Some("https://vault:8200"));
    let other = ("VAULTTMPFS_POD_VAULT_ADDR", "https://other/");
    assert_eq!(told(&[own, other]).as_deref(), Some("https://other"));
    assert_eq!(told(&[other]).as_deref(), Some("https://other"));
}

#[test]
fn extra_files_can_be_left_out() {
    let settings = with(&[
        ("VAULT_ADDR", "https://vault"),
        ("VAULT_NAMESPACE", "ns"),
        ("VAULTTMPFS_EXTRA_FILES", "0"),
    ]);
    let files = settings.unwrap().delivered.files().unwrap();
    assert_eq!(files, DeliveredFiles::default());
}

#[test]
fn doubtful_settings_are_told() {
    let warnings = with(&[("VAULT_ADDR", "http://vault"), ("VAULT_SKIP_VERIFY", "1")]);
    let warnings = warnings.unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("not checked") && warnings[1].contains("in the clear"));
}

#[test]
fn bad_values_are_named_with_what_is_expected() {
    let dir = TempDir::new().unwrap();
    let empty = file(&dir, "empty", "");
    let long = "x".repeat(300);
    for (variable, bad, expected) in [
        (
            "VAULT_ADDR",
            &["vault:8200", "unix:///run/v"][..],
            "a URL as in",
        ),
        ("BAO_ADDR", &["ftp://x"], "a URL as in"),
        (
            "VAULT_CACERT",
            &["ca.pem", "/nonexistent/ca.pem", &empty],
            "",
        ),
        ("VAULT_CAPATH", &["/nonexistent", "x"], ""),
        (
            "VAULT_CLIENT_TIMEOUT",
            &["0", "99ms", "-1s", "soon", "5 s", "1e3"],
            "at least 0.1s",
        ),
        (
            "VAULT_MAX_RETRIES",
            &["-1", "+2", "2.0", "many", "4294967296"],
            "a whole number",
        ),
        ("VAULT_MAX_RETRY", &["x"], "a whole number"),
        (
            "VAULT_RATE_LIMIT",
            &[
                "0", "-1", "x", "NaN", "inf", "10:", "10:0", "10:-1", ":5", "1:2:3", "1e9",
            ],
            "rate:burst",
        ),
        (
            "VAULT_SKIP_VERIFY",
            &["no", "yes", "on", " true", "tRUE", "-1", "2"],
            "true or false",
        ),
        ("VAULTTMPFS_EXTRA_FILES", &["no"], "true or false"),
        (
            "VAULT_TLS_SERVER_NAME",
            &["10.0.0.1", "a b", "a/b", "https://a"],
            "a host name",
        ),
        (
            "VAULT_NAMESPACE",
            &["a b", "a\nb", "é", &long],
            "visible ASCII",
        ),
        ("VAULT_WRAP_TTL", &["0", "999ms", "never"], "at least 1s"),
        (
            "VAULTTMPFS_GENERATOR_TOKEN_PATH",
            &["token", "./token"],
            "an absolute path",
        ),
        (
            "VAULTTMPFS_TOKEN_FILENAME",
            &["a/b", "..", "ca.crt"],
            "the name of a file",
        ),
        ("VAULTTMPFS_ROLE_NAME", &["a/b", "..", "é"], "a role's name"),
        (
            "VAULTTMPFS_UNKNOWN_OPTIONS",
            &["ignore", "Warn"],
            "refuse or warn",
        ),
        (
            "VAULTTMPFS_POD_CACERT",
            &["/nonexistent"],
            "PEM certificates",
        ),
        (
            "VAULTTMPFS_CLUSTER_NAME",
            &["a\nb", &long],
            "control character",
        ),
        (
            "VAULTTMPFS_REDIRECT_HOSTS",
            &["a:8200", "https://a", "a/b", "::1"],
            "hosts without port",
        ),
        ("VAULTTMPFS_SOCKET", &["agent.sock"], "an absolute path"),
        ("VAULTTMPFS_STATE_DIR", &["state"], "an absolute path"),
    ] {
        for value in bad {
            let refusal = refusal(&[(variable, value)]);
            assert!(refusal.starts_with(&format!("{variable}=\"")), "{refusal}");
            assert!(refusal.contains(expected), "{value:?}: {refusal}");
            assert!(refusal.len() < 400 && !refusal.contains('\n'), "{refusal}");
        }
    }
}

#[test]
fn rate_limits() {
    for (text, micros, burst) in [
        ("1", 1_000_000, 1),
        ("0.5", 2_000_000, 1),
        ("2.5", 400_000, 2),
        ("1000", 1000, 1000),
        ("0.5:10", 2_000_000, 10),
        ("1e3:1", 1000, 1),
    ] {
        let limit = with(&[("VAULT_RATE_LIMIT", text)])
            .unwrap()
            .vault
            .rate_limit;
        let interval = Duration::from_micros(micros);
        assert_eq!(limit, Some(RateLimit { interval, burst }), "{text}");
    }
    for (text, burst) in [("20", 1), ("20:5", 5)] {
        let limit = with(&[("VAULTTMPFS_MAX_VAULT_RATE", text)])
            .unwrap()
            .lifecycle
            .max_rate;
        assert_eq!(limit.burst, burst, "{text}");
    }
}

#[test]
fn all_bad_settings_are_reported_at_once() {
    let errors = with(&[
        ("VAULT_ADDR", "nowhere"),
        ("VAULT_SKIP_VERIFY", "no"),
        ("VAULT_CLIENT_CERT", "/nonexistent"),
        ("VAULT_MAX_RETRIES", "x"),
        ("VAULTTMPFS_ROLE_NAME", ".."),
        ("VAULTTMPFS_EXTRA_FILES", "maybe"),
        ("VAULTTMPFS_STATE_DIR", "here"),
        ("VAULTTMPFS_POD_VAULT_ADDR", "http://localhost"),
    ])
    .unwrap_err();
    let mut names: Vec<_> = errors.iter().map(|error| error.variable).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "VAULTTMPFS_EXTRA_FILES",
            "VAULTTMPFS_POD_VAULT_ADDR",
            "VAULTTMPFS_ROLE_NAME",
            "VAULTTMPFS_STATE_DIR",
            "VAULT_ADDR",
            "VAULT_CLIENT_CERT",
            "VAULT_CLIENT_KEY",
            "VAULT_MAX_RETRIES",
            "VAULT_SKIP_VERIFY",
        ]
    );
}

#[test]
fn a_value_that_may_be_secret_is_not_shown() {
    for (variable, secret) in [
        ("VAULT_ADDR", "https://user:hunter2@vault"),
        ("VAULT_ADDR", "user:hunter2@vault"),
        ("VAULTTMPFS_POD_VAULT_ADDR", "https://user:hunter2@vault"),
        ("VAULTTMPFS_GENERATOR_TOKEN_PATH", "hvs.hunter2"),
        ("VAULTTMPFS_GENERATOR_TOKEN_PATH", "s.hunter2"),
    ] {
        let refusal = refusal(&[(variable, secret)]);
        assert!(
            refusal.starts_with(&format!("{variable}: expected ")),
            "{refusal}"
        );
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn what_is_not_utf_8_is_named() {
    let bad = OsString::from_vec(vec![b'/', 0xff]);
    for variable in VARIABLES {
        let name = variable.names[0];
        let errors = read(&HashMap::from([(name, bad.clone())])).unwrap_err();
        let text = errors.to_string();
        assert!(text.contains(&format!("{name}: expected UTF-8")), "{text}");
    }
}

#[test]
fn a_certificate_needs_its_key_and_a_key_its_certificate() {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = identity(&dir, "client");
    assert_eq!(
        refusal(&[("BAO_CLIENT_CERT", &certificate)]),
        "VAULT_CLIENT_KEY: expected a value, since BAO_CLIENT_CERT has one"
    );
    assert_eq!(
        refusal(&[("VAULT_CLIENT_KEY", &key)]),
        "VAULT_CLIENT_CERT: expected a value, since VAULT_CLIENT_KEY has one"
    );
    let mixed = with(&[
        ("BAO_CLIENT_CERT", &certificate),
        ("VAULT_CLIENT_KEY", &key),
    ])
    .unwrap();
    assert!(mixed.vault.client_certificate.is_some());
}

#[test]
fn a_certificate_and_a_key_that_vault_could_not_be_shown_are_bad_settings() {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = identity(&dir, "client");
    let (_, other) = identity(&dir, "other");
    let empty = file(&dir, "empty.pem", "");
    let torn = file(&dir, "torn.pem", &fs::read(&certificate).unwrap()[..200]);
    let odd = file(&dir, "odd.pem", KEY);
    for (certificate, key, bad, words) in [
        (
            &certificate,
            &empty,
            "VAULT_CLIENT_KEY",
            "a file that is not empty",
        ),
        (
            &torn,
            &key,
            "VAULT_CLIENT_CERT",
            "holds no certificate in PEM form",
        ),
        (
            &key,
            &key,
            "VAULT_CLIENT_CERT",
            "holds no certificate in PEM form",
        ),
        (
            &certificate,
            &certificate,
            "VAULT_CLIENT_KEY",
            "holds no private key in PEM form",
        ),
        (
            &certificate,
            &odd,
            "VAULT_CLIENT_KEY",
            "hold a key of an unknown kind",
        ),
        (
            &certificate,
            &other,
            "VAULT_CLIENT_KEY",
            "do not belong together",
        ),
    ] {
        let text = refusal(&[
            ("VAULT_CLIENT_CERT", certificate),
            ("VAULT_CLIENT_KEY", key),
        ]);
        assert!(text.starts_with(&format!("{bad}=")), "{text}");
        assert!(text.ends_with(words), "{text}");
    }
}

/// systemd gives the next agent a new copy of it.
#[test]
fn a_key_that_is_a_credential_is_not_judged_with_the_certificate() {
    let dir = TempDir::new().unwrap();
    let (certificate, _) = identity(&dir, "client");
    let other = file(&dir, "client-key", KEY);
    let directory = dir.path().to_str().unwrap();
    let read = |certificate| {
        with(&[
            ("VAULT_CLIENT_CERT", certificate),
            ("CREDENTIALS_DIRECTORY", directory),
        ])
    };
    let files = read(&certificate).unwrap().vault.client_certificate;
    assert_eq!(
        files,
        Some((certificate.as_str().into(), other.as_str().into()))
    );
    let text = read(&other).unwrap_err().to_string();
    assert!(text.starts_with("VAULT_CLIENT_CERT="), "{text}");
    assert!(text.ends_with("holds no certificate in PEM form"), "{text}");
}

#[test]
fn the_log_is_known_whatever_else_is_bad_and_a_bad_one_is_reported() {
    let of = |variables: &[(&'static str, &str)]| logging(&environment(variables));
    let default = Logging {
        format: LogFormat::Auto,
        level: Level::INFO,
    };
    assert_eq!(of(&[]), default);
    for (text, format) in [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journal", LogFormat::Journal),
    ] {
        let set = [("VAULTTMPFS_LOG_FORMAT", text), ("VAULT_ADDR", "bad")];
        assert_eq!(of(&set), Logging { format, ..default });
    }
    for (text, level) in [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
    ] {
        let set = [("VAULTTMPFS_LOG_LEVEL", text)];
        assert_eq!(of(&set), Logging { level, ..default });
    }
    let bad = [
        ("VAULTTMPFS_LOG_FORMAT", "JSON"),
        ("VAULTTMPFS_LOG_LEVEL", "trace"),
    ];
    assert_eq!(of(&bad), default);
    assert_eq!(
        refusal(&bad),
        r#"VAULTTMPFS_LOG_FORMAT="JSON": expected auto, text, json or journal; VAULTTMPFS_LOG_LEVEL="trace": expected error, warn, info or debug"#
    );
}

#[test]
fn locations_are_known_whatever_else_is_bad() {
    let at = |variables: &[(&'static str, &str)]| {
        let locations = locations(&environment(variables));
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        (text(locations.socket), text(locations.state_dir))
    };
    let of = |socket: &str, state: &str| (socket.to_owned(), state.to_owned());
    let socket = "/run/vaulttmpfs/agent.sock";
    assert_eq!(at(&[]), of(socket, "/var/lib/vaulttmpfs"));
    assert_eq!(
        at(&[
            ("VAULT_ADDR", "bad"),
            ("VAULTTMPFS_SOCKET", "/tmp/s"),
            ("STATE_DIRECTORY", "/a")
        ]),
        of("/tmp/s", "/a")
    );
    assert_eq!(at(&[("STATE_DIRECTORY", "/a:/b")]), of(socket, "/a"));
    assert_eq!(
        at(&[("STATE_DIRECTORY", "/a"), ("VAULTTMPFS_STATE_DIR", "/c:d")]),
        of(socket, "/c:d")
    );
    let odd = OsString::from_vec(vec![b'/', 0xff]);
    let odd_socket = locations(&HashMap::from([("VAULTTMPFS_SOCKET", odd.clone())])).socket;
    assert_eq!(odd_socket.into_os_string(), odd);
}

#[test]
fn a_file_of_cas() {
    let dir = TempDir::new().unwrap();
    let mixed = format!("# two CAs\r\n{CA_1}{KEY}text between\n{CA_2}{CA_1}");
    let path = file(&dir, "bundle", mixed);
    let ca = read_ca(&CaSource::File(path.into())).unwrap();
    assert_eq!(ca.pem, format!("{CA_1}{CA_2}"));
    assert_eq!(ca.der.len(), 2);
}

#[test]
fn a_directory_of_cas() {
    let dir = TempDir::new().unwrap();
    file(&dir, "b.crt", CA_1);
    file(&dir, "a/c.pem", CA_2);
    file(&dir, "z.0", CA_1);
    file(&dir, ".hidden", "anything");
    file(&dir, "..data/x", "anything");
    std::os::unix::fs::symlink("b.crt", dir.path().join("link")).unwrap();
    let source = CaSource::Directory(dir.path().to_owned());
    assert_eq!(read_ca(&source).unwrap().pem, format!("{CA_2}{CA_1}"));

    let stray = file(&dir, "README", "no certificate here");
    let text = read_ca(&source).unwrap_err().to_string();
    assert_eq!(text, format!("{stray} holds no PEM certificate"));
}

#[test]
fn what_is_no_ca_is_named() {
    let dir = TempDir::new().unwrap();
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let end = "-----END CERTIFICATE-----\n";
    for (name, content, problem) in [
        ("empty", Vec::new(), "holds no PEM certificate"),
        ("key", KEY.into(), "holds no PEM certificate"),
        ("binary", vec![0xff; 100], "holds no PEM certificate"),
        (
            "short",
            format!("{begin}AAAA\n{end}").into(),
            "a certificate that cannot be read",
        ),
        ("cut", CA_1[..200].into(), ""),
        (
            "garbled",
            format!("{begin}!!!!\n{end}").into(),
            "a certificate that cannot be read",
        ),
        (
            "second",
            format!("{CA_1}{begin}AAAA\n{end}").into(),
            "a certificate that cannot",
        ),
        (
            "huge",
            vec![b' '; 5 * 1024 * 1024],
            "more than a list of CAs",
        ),
    ] {
        let path = file(&dir, name, content);
        let text = read_ca(&CaSource::File(path.clone().into()))
            .unwrap_err()
            .to_string();
        assert!(text.starts_with(&path) && text.contains(problem), "{text}");
    }
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = read_ca(&CaSource::File(pipe)).unwrap_err().to_string();
    assert!(text.ends_with("is not a file"), "{text}");
    let empty = TempDir::new().unwrap();
    let text = read_ca(&CaSource::Directory(empty.path().to_owned()))
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("holds no PEM certificate"), "{text}");
}

#[test]
fn a_file_of_cas_wins_over_a_directory() {
    let dir = TempDir::new().unwrap();
    let ca = file(&dir, "ca.pem", CA_1);
    let both = with(&[("VAULT_CACERT", &ca), ("BAO_CAPATH", "/nonexistent")]).unwrap();
    assert_eq!(both.vault.ca, Some(CaSource::File(ca.into())));
    let path = dir.path().to_str().unwrap();
    let directory = with(&[("VAULT_CAPATH", path)]).unwrap();
    assert_eq!(directory.vault.ca, Some(CaSource::Directory(path.into())));
    assert_eq!(directory.delivered.ca, directory.vault.ca);
}

#[test]
fn the_table_has_every_name_once() {
    let table = table();
    let mut names: Vec<_> = VARIABLES
        .iter()
        .flat_map(|variable| variable.names)
        .collect();
    assert!(
        names
            .iter()
            .all(|name| table.contains(&format!("`{name}`")))
    );
    assert_eq!(table.lines().count(), VARIABLES.len() + 2);
    assert!(table.lines().all(|line| line.matches('|').count() == 4));
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), before);
}

proptest! {
    #[test]
    fn never_panics(
        variables in prop::collection::hash_map(
            prop::sample::select(VARIABLES).prop_map(|variable| variable.names[0]),
            prop_oneof![
                "\\PC{0,20}|https?://[a-z.:/@0-9\\[\\]]{0,20}|[0-9.:]{0,8}[smhd]?|/[a-z/]{0,9}"
                    .prop_map(OsString::from),
                prop::collection::vec(any::<u8>(), 0..20).prop_map(OsString::from_vec),
            ],
            0..6,
        ),
    ) {
        let _ = locations(&variables);
        match read(&variables) {
            Err(errors) => {
                let text = errors.to_string();
                prop_assert!(!text.is_empty() && !text.contains('\n'), "{}", text);
            }
            Ok(settings) => {
                prop_assert!(settings.vault.timeout > Duration::ZERO);
                prop_assert!(settings.pod_defaults.wrap_ttl >= Duration::from_secs(1));
                let told = settings.delivered.vault_addr.map(|told| told.parse::<Address>());
                prop_assert!(told.is_none_or(|told| told.is_ok_and(|told| !told.is_loopback())));
            }
        }
    }
}
