use super::*;
use serde_json::{Value, json};

const UNWRAPPED: &str = r#"{"request_id":"7f0c","lease_id":"","renewable":false,"lease_duration":0,
    "data":null,"wrap_info":null,"warnings":["period was capped"],"mount_type":"token",
    "auth":{"client_token":"s.pod","accessor":"acc","policies":["default","web"],
        "token_policies":["default","web"],"identity_policies":null,"metadata":{"poduid":"u"},
        "orphan":true,"entity_id":"","lease_duration":3600,"renewable":true,
        "mfa_requirement":null,"num_uses":0,"token_type":"service"}}"#;

fn options(permissions: u32, group: Option<u32>) -> FileOptions {
    FileOptions {
        token_filename: "vault-token".to_owned(),
        permissions,
        group,
    }
}

fn delivered() -> DeliveredFiles {
    DeliveredFiles {
        vault_addr: Some("https://vault.example.com:8200".to_owned()),
        namespace: Some("team".to_owned()),
        ca: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
    }
}

fn wrapped(
    options: &FileOptions,
    delivered: &DeliveredFiles,
) -> Result<(Directory, Vec<File<'static>>), RenderError> {
    let credential = Credential::Wrapped {
        token: &SecretString::from("s.wrap"),
        ttl: 300,
        creation_time: "2026-11-21T03:46:21.123456789Z",
        wrapped_accessor: "acc",
    };
    render(&credential, options, delivered)
}

fn unwrapped(token: &str, secret: &str) -> Result<(Directory, Vec<File<'static>>), RenderError> {
    let credential = Credential::Unwrapped {
        token: &SecretString::from(token),
        secret,
    };
    render(
        &credential,
        &options(0o400, None),
        &DeliveredFiles::default(),
    )
}

fn content(file: &File<'_>) -> String {
    String::from_utf8(STANDARD.decode(file.bytes.as_bytes()).unwrap()).unwrap()
}

fn names(files: &[File<'_>]) -> Vec<String> {
    files.iter().map(|file| file.name.to_string()).collect()
}

#[test]
fn a_wrapped_token_is_as_the_first_plugin_wrote_it() {
    let (_, files) = wrapped(&options(0o644, None), &DeliveredFiles::default()).unwrap();
    assert_eq!(names(&files), ["vault-token", "vault-token.json"]);
    assert_eq!(content(&files[0]), "s.wrap");
    assert_eq!(
        content(&files[1]),
        r#"{"token":"s.wrap","ttl":300,"creation_time":"2026-11-21T03:46:21.123456789Z","wrapped_accessor":"acc"}"#
    );
}

#[test]
fn an_unwrapped_token_has_the_keys_of_the_first_plugin_and_no_other() {
    let (_, files) = unwrapped("s.pod", UNWRAPPED).unwrap();
    assert_eq!(content(&files[0]), "s.pod");
    let json: Value = serde_json::from_str(&content(&files[1])).unwrap();
    assert_eq!(
        json,
        json!({
            "request_id": "7f0c", "lease_id": "", "lease_duration": 0, "renewable": false,
            "data": null, "warnings": ["period was capped"],
            "auth": {
                "client_token": "s.pod", "accessor": "acc", "policies": ["default", "web"],
                "metadata": {"poduid": "u"}, "lease_duration": 3600, "renewable": true,
            },
        })
    );
}

#[test]
fn what_vault_leaves_out_has_gos_zero_value() {
    let (_, files) = unwrapped("s.pod", r#"{"auth":{"client_token":"s.pod"}}"#).unwrap();
    let json: Value = serde_json::from_str(&content(&files[1])).unwrap();
    assert_eq!(
        json,
        json!({
            "request_id": "", "lease_id": "", "lease_duration": 0, "renewable": false,
            "data": null, "warnings": null,
            "auth": {
                "client_token": "s.pod", "accessor": "", "policies": null, "metadata": null,
                "lease_duration": 0, "renewable": false,
            },
        })
    );
}

#[test]
fn what_is_not_the_tokens_json_is_refused() {
    for secret in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"auth":null}"#,
        r#"{"auth":{}}"#,
        r#"{"auth":{"client_token":"s.other"}}"#,
        r#"{"auth":{"client_token":7}}"#,
        r#"{"auth":{"client_token":"s.pod","lease_duration":-1}}"#,
        r#"{"auth":{"client_token":"s.pod"}"#,
    ] {
        assert_eq!(
            unwrapped("s.pod", secret).err(),
            Some(RenderError::NotASecret),
            "{secret}"
        );
    }
}

#[test]
fn facts_about_vault_are_readable_by_all() {
    let (_, files) = wrapped(&options(0o400, None), &delivered()).unwrap();
    assert_eq!(
        names(&files),
        [
            "vault-token",
            "vault-token.json",
            "vault-addr",
            "vault-namespace",
            "ca.crt"
        ]
    );
    let modes: Vec<_> = files.iter().map(|file| file.mode).collect();
    assert_eq!(modes, [0o400, 0o400, 0o644, 0o644, 0o644]);
    assert_eq!(content(&files[2]), "https://vault.example.com:8200");
    assert_eq!(content(&files[3]), "team");
}

#[test]
fn a_group_owns_and_reads() {
    let (directory, files) = wrapped(&options(0o400, Some(2000)), &delivered()).unwrap();
    let owner = Owner { uid: 0, gid: 2000 };
    assert_eq!((directory.mode, directory.owner), (0o755, owner));
    assert!(files.iter().all(|file| file.owner == owner));
    assert_eq!((files[0].mode, files[1].mode), (0o440, 0o440));

    let (directory, files) = wrapped(&options(0o600, None), &delivered()).unwrap();
    assert_eq!(directory.owner, Owner::default());
    assert_eq!((files[0].mode, files[1].mode), (0o600, 0o600));
}

#[test]
fn the_root_holds_the_files_on_the_largest_pages() {
    let (directory, _) = wrapped(&options(0o644, None), &DeliveredFiles::default()).unwrap();
    assert_eq!(directory.size, 3 * 64 * 1024);
    let large = DeliveredFiles {
        ca: Some("x".repeat(64 * 1024 + 1)),
        ..DeliveredFiles::default()
    };
    let (directory, _) = wrapped(&options(0o644, None), &large).unwrap();
    assert_eq!(directory.size, 5 * 64 * 1024);
}

#[test]
fn an_answer_never_grows_beyond_what_the_shim_reads() {
    let of = |length| {
        let delivered = DeliveredFiles {
            ca: Some("x".repeat(length)),
            ..delivered()
        };
        wrapped(&options(0o644, Some(1)), &delivered)
    };
    assert_eq!(of(MAX_ANSWER).err(), Some(RenderError::TooLarge));
    let (directory, files) = of(512 * 1024).unwrap();
    let answer = vaulttmpfs_api::VolumeAnswer {
        id: vaulttmpfs_api::VolumeId::from_bytes([0; 16]),
        attach_by: u64::MAX,
        directory,
        files,
    };
    assert!(serde_json::to_vec(&answer).unwrap().len() <= MAX_ANSWER);
}

/// The largest answer that passes is still one that the shim reads, also where JSON escapes most.
#[test]
fn the_bound_counts_escapes() {
    let options = FileOptions {
        token_filename: "\"".repeat(200),
        ..options(0o777, Some(u32::MAX - 1))
    };
    let largest = (0..MAX_ANSWER / 4 * 3)
        .rev()
        .step_by(256)
        .find_map(|length| {
            let delivered = DeliveredFiles {
                ca: Some("x".repeat(length)),
                ..delivered()
            };
            wrapped(&options, &delivered).ok()
        })
        .unwrap();
    let answer = vaulttmpfs_api::VolumeAnswer {
        id: vaulttmpfs_api::VolumeId::from_bytes([255; 16]),
        attach_by: u64::MAX,
        directory: largest.0,
        files: largest.1,
    };
    let length = serde_json::to_vec(&answer).unwrap().len();
    assert!(
        length <= MAX_ANSWER && length > MAX_ANSWER - 16 * 1024,
        "{length}"
    );
}
