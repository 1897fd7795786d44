use super::*;
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;

const UID: &str = "afd196c8a70643bdc8c3b5e59c5eb89b";
const DIR: &str =
    "/var/lib/kubelet/pods/afd196c8a70643bdc8c3b5e59c5eb89b/volumes/cloudwatt~vaulttmpfs/vol1";

fn defaults() -> PodDefaults {
    PodDefaults {
        role: "applications".parse().unwrap(),
        token_filename: "vault-token".to_owned(),
        wrap_ttl: Duration::from_secs(300),
        unknown_options: UnknownOptions::Refuse,
    }
}

fn with(options: &[(&str, &str)]) -> Result<VolumeRequest, OptionErrors> {
    given(options, &defaults())
}

fn given(options: &[(&str, &str)], defaults: &PodDefaults) -> Result<VolumeRequest, OptionErrors> {
    let options: BTreeMap<_, _> = options
        .iter()
        .map(|(key, value)| (Cow::Borrowed(*key), Cow::Borrowed(*value)))
        .collect();
    parse(DIR, &options, defaults)
}

/// The whole text for one wrong option.
fn refusal(key: &str, value: &str) -> String {
    with(&[(key, value)]).unwrap_err().to_string()
}

#[test]
fn a_pod_that_says_nothing_gets_the_defaults() {
    let request = with(&[]).unwrap();
    assert_eq!(request.mount_dir.as_str(), DIR);
    assert_eq!(request.pod.uid, UID);
    assert_eq!(request.pod.name, "");
    assert_eq!(
        request.token,
        TokenRequest {
            role: "applications".parse().unwrap(),
            policies: vec![],
            delivery: Delivery::Wrapped {
                ttl: Duration::from_secs(300)
            },
            ttl: None,
            max_ttl: None,
        }
    );
    assert_eq!(
        request.files,
        FileOptions {
            token_filename: "vault-token".to_owned(),
            permissions: 0o644,
            group: None,
        }
    );
    assert!(request.warnings.is_empty());
}

#[test]
fn an_empty_value_is_none() {
    let empty: Vec<_> = KNOWN
        .into_iter()
        .chain([
            "kubernetes.io/pod.uid",
            "kubernetes.io/serviceAccount.name",
            "kubernetes.io/mounterArgs.FsGroup",
        ])
        .map(|key| (key, ""))
        .collect();
    assert_eq!(with(&empty), with(&[]));
}

#[test]
fn every_option_together() {
    let request = with(&[
        ("vault/policies", " web,, Billing-Read ,web,"),
        ("vault/role", "pods_v1.2-x"),
        ("vault/unwrap", "false"),
        ("vault/filePermissions", "0440"),
        ("vault/wrapTTL", "90s"),
        ("vault/tokenFilename", "token"),
        ("vault/ttl", "1h"),
        ("vault/maxTTL", "24h"),
        ("kubernetes.io/pod.uid", UID),
        ("kubernetes.io/pod.name", "web-0"),
        ("kubernetes.io/pod.namespace", "shop"),
        ("kubernetes.io/serviceAccount.name", "web"),
        ("kubernetes.io/mounterArgs.FsGroup", "2000"),
        ("kubernetes.io/readwrite", "ro"),
        ("kubernetes.io/pvOrVolumeName", "vol1"),
        ("quote", "a\"b"),
        ("Vault/policies", "ignored"),
    ])
    .unwrap();
    assert_eq!(
        request,
        VolumeRequest {
            mount_dir: MountDir::parse(DIR).unwrap(),
            pod: Pod {
                uid: UID.to_owned(),
                name: "web-0".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "web".to_owned(),
            },
            token: TokenRequest {
                role: "pods_v1.2-x".parse().unwrap(),
                policies: vec!["web".to_owned(), "billing-read".to_owned()],
                delivery: Delivery::Wrapped {
                    ttl: Duration::from_secs(90)
                },
                ttl: Some(Duration::from_secs(3600)),
                max_ttl: Some(Duration::from_secs(86_400)),
            },
            files: FileOptions {
                token_filename: "token".to_owned(),
                permissions: 0o440,
                group: Some(2000),
            },
            lifecycle: LifecycleOptions::default(),
            warnings: vec![],
        }
    );
}

#[test]
fn policies_are_what_vault_sees() {
    for (text, expected) in [
        (",", &[][..]),
        (" , ,", &[]),
        ("a", &["a"]),
        ("A,a", &["a"]),
        ("\u{a0}a\u{a0}", &["a"]),
        ("default,team/app", &["default", "team/app"]),
        ("größe", &["größe"]),
    ] {
        let request = with(&[("vault/policies", text)]).unwrap();
        assert_eq!(request.token.policies, expected, "{text:?}");
    }
}

#[test]
fn policies_that_are_none() {
    let many: Vec<_> = (0..65).map(|number| format!("p{number}")).collect();
    let many = many.join(",");
    let long = "p".repeat(129);
    for (text, problem) in [
        ("root", "no pod gets the policy root"),
        ("ROOT", "no pod gets the policy root"),
        ("web, Root ", "no pod gets the policy root"),
        ("a\u{0}b", "control characters"),
        ("a\nb", "control characters"),
        ("applıcat\u{130}ons", "capital letters outside ASCII"),
        ("\u{212a}ey", "capital letters outside ASCII"),
        (&long, "at most 128 bytes"),
        (&many, "more than 64 policies"),
    ] {
        let refusal = refusal("vault/policies", text);
        assert!(refusal.starts_with("vault/policies: "), "{refusal}");
        assert!(refusal.contains(problem), "{text:?}: {refusal}");
    }
}

#[test]
fn roles() {
    let longest = "r".repeat(128);
    for role in ["a", "A-Z_0.9", "...", ".a", &longest] {
        assert_eq!(
            with(&[("vault/role", role)]).unwrap().token.role.as_str(),
            role
        );
    }
    let long = "r".repeat(129);
    let huge = "r".repeat(1_000_000);
    for role in [
        ".", "..", "a/b", "../x", "%2e%2e", "a b", "a\0", "a\n", "é", "a?b", "a#b", &long, &huge,
    ] {
        let refusal = refusal("vault/role", role);
        assert!(refusal.contains("is no role's name"), "{refusal}");
        assert!(refusal.len() < 300 && !refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn unwrap() {
    for yes in ["true", "1", "t", "T", "TRUE", "True"] {
        let request = with(&[("vault/unwrap", yes)]).unwrap();
        assert_eq!(request.token.delivery, Delivery::Unwrapped, "{yes}");
    }
    for no in ["false", "0", "f", "F", "FALSE", "False"] {
        let request = with(&[("vault/unwrap", no)]).unwrap();
        assert_ne!(request.token.delivery, Delivery::Unwrapped, "{no}");
    }
    for bad in ["yes", "no", "tRue", " true", "2", "on"] {
        let refusal = refusal("vault/unwrap", bad);
        assert!(refusal.contains("neither true nor false"), "{refusal}");
    }
    let both = with(&[("vault/unwrap", "true"), ("vault/wrapTTL", "5m")]);
    let both = both.unwrap_err().to_string();
    assert!(both.starts_with("vault/wrapTTL: "), "{both}");
    assert!(both.contains("leave one of both out"), "{both}");
}

#[test]
fn permissions() {
    for (text, mode) in [
        ("0", 0),
        ("0o0", 0),
        ("400", 0o400),
        ("0400", 0o400),
        ("0o640", 0o640),
        ("777", 0o777),
        ("0777", 0o777),
    ] {
        let request = with(&[("vault/filePermissions", text)]).unwrap();
        assert_eq!(request.files.permissions, mode, "{text}");
    }
    for bad in [
        "1000",
        "4755",
        "0o",
        "8",
        "0x1ff",
        "rw-r--r--",
        "-1",
        "+644",
        " 644",
        "0O644",
        "6 4",
        "77777777777777777777777",
    ] {
        let refusal = refusal("vault/filePermissions", bad);
        assert!(refusal.contains("octal mode from 0 to 0777"), "{refusal}");
    }
}

#[test]
fn times() {
    for key in ["vault/wrapTTL", "vault/ttl", "vault/maxTTL"] {
        for good in ["1s", "90s", "1h30m", "1.5h", "1000ms"] {
            with(&[(key, good)]).unwrap();
        }
        for (bad, problem) in [
            ("0", "shorter than a second"),
            ("999ms", "shorter than a second"),
            ("300", "no unit"),
            ("-5m", "negative"),
            ("5 minutes", "unit"),
            ("1d", "unit"),
            ("1000000h", "100 years"),
        ] {
            let refusal = refusal(key, bad);
            assert!(refusal.starts_with(key), "{refusal}");
            assert!(refusal.contains(problem), "{bad}: {refusal}");
        }
    }
    with(&[("vault/ttl", "1h"), ("vault/maxTTL", "60m")]).unwrap();
    let longer = with(&[("vault/ttl", "61m"), ("vault/maxTTL", "1h")]).unwrap_err();
    assert_eq!(
        longer.to_string(),
        "vault/ttl: 1h1m is longer than vault/maxTTL 1h"
    );
}

#[test]
fn file_names() {
    for bad in [
        "..",
        ".",
        "a/b",
        "../../etc/x",
        "..data",
        "vault-addr",
        "vault-namespace",
        "ca.crt",
        "a\0b",
        "a\nb",
    ] {
        let refusal = refusal("vault/tokenFilename", bad);
        assert!(
            refusal.contains("no name for the token's file"),
            "{refusal}"
        );
    }
    let huge = "x".repeat(1_000_000);
    assert!(refusal("vault/tokenFilename", &huge).len() < 300);
}

#[test]
fn groups() {
    for (text, group) in [("0", 0), ("2000", 2000), ("4294967294", u32::MAX - 1)] {
        let request = with(&[("kubernetes.io/mounterArgs.FsGroup", text)]).unwrap();
        assert_eq!(request.files.group, Some(group));
    }
    for bad in [
        "4294967295",
        "4294967296",
        "-1",
        "+1",
        "2000 ",
        "wheel",
        "0x7",
    ] {
        let refusal = refusal("kubernetes.io/mounterArgs.FsGroup", bad);
        assert!(refusal.contains("is no group id"), "{refusal}");
    }
}

#[test]
fn the_kubelets_words_are_checked() {
    let long = "n".repeat(254);
    for key in [
        "kubernetes.io/pod.name",
        "kubernetes.io/pod.namespace",
        "kubernetes.io/serviceAccount.name",
    ] {
        for bad in ["a\nb", "\u{1b}[2J", "a\0", &long] {
            let refusal = refusal(key, bad);
            assert!(refusal.starts_with(key), "{refusal}");
            assert!(!refusal.chars().any(char::is_control), "{refusal:?}");
        }
    }
    let other = refusal("kubernetes.io/pod.uid", "another");
    assert_eq!(
        other,
        format!("kubernetes.io/pod.uid: \"another\" is not the pod of the mount directory, {UID}")
    );
}

#[test]
fn unknown_options_are_refused_with_the_nearest_one() {
    for (key, nearest) in [
        ("vault/policy", "vault/policies"),
        ("vault/Policies", "vault/policies"),
        ("vault/wrapttl", "vault/wrapTTL"),
        ("vault/wrap-ttl", "vault/wrapTTL"),
        ("vault/max_ttl", "vault/maxTTL"),
        ("vault/filepermission", "vault/filePermissions"),
        ("vault/tokenFileName", "vault/tokenFilename"),
        ("vault/roles", "vault/role"),
        ("vault/unwrapped", "vault/unwrap"),
    ] {
        assert_eq!(
            refusal(key, "x"),
            format!("{key}: no such option; is {nearest} meant?")
        );
    }
    for key in ["vault/", "vault/zzz", "vault/é\u{301}漢字"] {
        let refusal = refusal(key, "secret-value");
        assert!(refusal.contains("there are vault/policies, "), "{refusal}");
        assert!(!refusal.contains("secret-value"), "{refusal}");
    }
}

#[test]
fn unknown_options_can_be_let_through_with_a_warning() {
    let lenient = PodDefaults {
        unknown_options: UnknownOptions::Warn,
        ..defaults()
    };
    let request = given(&[("vault/policy", "web"), ("vault/role", "r")], &lenient).unwrap();
    assert_eq!(
        request.warnings,
        ["vault/policy: no such option; is vault/policies meant?"]
    );
    let refused = given(&[("vault/policy", "web"), ("vault/role", "/")], &lenient).unwrap_err();
    assert_eq!(refused.iter().count(), 1);
}

#[test]
fn all_mistakes_are_told_at_once_on_one_line() {
    let options = [
        ("vault/policies", "root"),
        ("vault/role", "a/b"),
        ("vault/unwrap", "maybe"),
        ("vault/filePermissions", "999"),
        ("vault/wrapTTL", "0"),
        ("vault/tokenFilename", ".."),
        ("vault/ttl", "x"),
        ("vault/maxTTL", "-1s"),
        ("vault/x\ny", ""),
        ("kubernetes.io/pod.name", "\n"),
        ("kubernetes.io/mounterArgs.FsGroup", "x"),
    ]
    .map(|(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)));
    let errors = parse("relative", &options.into(), &defaults()).unwrap_err();
    assert_eq!(errors.iter().count(), 12);
    let text = errors.to_string();
    assert!(text.starts_with("mount directory: it does not begin with a slash; "));
    assert!(text.ends_with("; and 4 more"), "{text}");
    assert!(!text.contains('\n'));
    assert!(errors.iter().all(|error| !error.to_string().contains('\n')));
}

#[test]
fn a_flood_of_mistakes_stays_short() {
    let keys: Vec<_> = (0..5000)
        .map(|n| format!("vault/{n}{}", "x".repeat(500)))
        .collect();
    let options = keys
        .iter()
        .map(|key| (Cow::Borrowed(key.as_str()), Cow::Borrowed("")))
        .collect();
    let text = parse(DIR, &options, &defaults()).unwrap_err().to_string();
    assert!(text.len() < 4096, "{}", text.len());
}

proptest! {
    #[test]
    fn never_panics_and_never_escapes(
        options in prop::collection::btree_map(
            prop_oneof![
                prop::sample::select(&KNOWN[..]).prop_map(str::to_owned),
                "kubernetes\\.io/(pod\\.(uid|name|namespace)|mounterArgs\\.FsGroup)",
                "vault/\\PC{0,20}",
            ],
            "[./a-z0-9%,]{0,12}|\\PC{0,20}|(?s).{0,20}|[0-9]{1,4}[hms]|0?[0-7]{3}|true|false",
            0..6,
        ),
        unknown in prop::sample::select(&[UnknownOptions::Refuse, UnknownOptions::Warn][..]),
    ) {
        let options = options.into_iter().map(|(k, v)| (Cow::Owned(k), Cow::Owned(v))).collect();
        let defaults = PodDefaults { unknown_options: unknown, ..defaults() };
        match parse(DIR, &options, &defaults) {
            Err(errors) => {
                let text = errors.to_string();
                prop_assert!(!text.is_empty() && !text.contains('\n'), "{}", text);
            }
            Ok(request) => {
                let name = &request.files.token_filename;
                let path = std::path::Path::new("/volume").join(name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/volume")));
                prop_assert!(name != ".." && !name.contains(['/', '\0']));
                prop_assert!(request.files.permissions <= 0o777);
                prop_assert!(request.token.policies.iter().all(|p| p.to_lowercase().trim() != "root"));
                prop_assert!(!request.token.role.as_str().contains(['/', '%']));
            }
        }
    }
}
