//! A pod's options and its mount directory, as the agent checks them.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use vaulttmpfs::files::check_token_filename;
use vaulttmpfs::options::{self, Delivery, KNOWN, PodDefaults, UnknownOptions};
use vaulttmpfs_api::POD_UID_OPTION;

const DIRECTORY: &str = "/var/lib/kubelet/pods/u-1/volumes/cloudwatt~vaulttmpfs/v";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// A directory of its own, or a good one.
    directory: Option<&'a str>,
    warn: bool,
    /// Values of the known options by their index, so that every one is met early.
    known: Vec<(u8, &'a str)>,
    others: Vec<(&'a str, &'a str)>,
}

fuzz_target!(|input: Input<'_>| {
    let kubelets = [
        POD_UID_OPTION,
        "kubernetes.io/pod.name",
        "kubernetes.io/pod.namespace",
        "kubernetes.io/serviceAccount.name",
        "kubernetes.io/mounterArgs.FsGroup",
    ];
    let keys: Vec<&str> = KNOWN.into_iter().chain(kubelets).collect();
    let mut given: BTreeMap<Cow<'_, str>, Cow<'_, str>> = BTreeMap::new();
    for (index, value) in &input.known {
        given.insert(
            keys[usize::from(*index) % keys.len()].into(),
            (*value).into(),
        );
    }
    for (key, value) in &input.others {
        given.insert((*key).into(), (*value).into());
    }
    let defaults = PodDefaults {
        role: "applications".parse().expect("a role's name"),
        token_filename: "vault-token".into(),
        wrap_ttl: Duration::from_secs(300),
        unknown_options: if input.warn {
            UnknownOptions::Warn
        } else {
            UnknownOptions::Refuse
        },
    };
    match options::parse(input.directory.unwrap_or(DIRECTORY), &given, &defaults) {
        Ok(request) => {
            let role = request.token.role.as_str();
            assert!(!role.contains(['/', '%']) && role != "." && role != "..");
            assert!(!request.token.policies.iter().any(|policy| policy == "root"));
            assert!(request.files.permissions <= 0o777);
            assert_eq!(check_token_filename(&request.files.token_filename), Ok(()));
            if let Delivery::Wrapped { ttl } = request.token.delivery {
                assert!(ttl >= Duration::from_secs(1));
            }
            for text in [
                &request.pod.uid,
                &request.pod.name,
                &request.pod.namespace,
                &request.pod.service_account,
            ] {
                assert!(!text.chars().any(char::is_control));
            }
            assert!(input.warn || request.warnings.is_empty());
        }
        Err(errors) => {
            let message = errors.to_string();
            assert!(!message.is_empty() && message.len() < 16 * 1024);
            assert!(!message.contains(['\n', '\0', '\u{1b}']), "{message:?}");
        }
    }
});
