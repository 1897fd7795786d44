//! The trial token: made as for a pod, and ended whatever happens.

use super::{Bed, FAILURE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use vaulttmpfs_tests::{Fault, Proxy, eventually, in_own_namespaces};

const CREATE: &str = "POST /v1/auth/token/create/applications";

/// What was found with `--mint`, and the tokens for pods that live then.
fn mint(bed: &Bed, proxy: Option<&Proxy>) -> (Vec<Value>, Vec<Value>) {
    let mut settings = bed.settings.clone();
    if let Some(proxy) = proxy {
        settings.insert("VAULT_ADDR".into(), super::by_name(proxy));
    }
    let (_, findings) = bed.run(&settings, &["--mint"]);
    (findings, bed.lab.vault.root().pod_tokens())
}

fn creates(bed: &Bed) -> usize {
    bed.lab.vault.count("auth/token/create/applications")
}

#[test]
fn a_trial_token_is_made_and_ended() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let (findings, living) = mint(&bed, None);
        super::assert_found(&findings, &[]);
        let last = findings.last().unwrap();
        assert_eq!(
            (&last["group"], &last["level"]),
            (&"trial token".into(), &"ok".into())
        );
        assert_eq!((creates(&bed), living.len()), (1, 0), "{living:?}");
        // The wrapping token is gone as well.
        assert_eq!(bed.lab.vault.count("auth/token/revoke-accessor"), 2);
    });
}

#[test]
fn a_trial_token_ends_though_the_answer_is_torn_or_the_check_interrupted() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let proxy = Proxy::start(&bed.lab.vault);
        // Interrupted while Vault makes it.
        proxy.order(1, CREATE, Fault::Late(Duration::from_secs(2)));
        let mut settings = bed.settings.clone();
        settings.insert("VAULT_ADDR".into(), super::by_name(&proxy));
        let check = bed
            .lab
            .node
            .command(&["check", "--mint"])
            .envs(&settings)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("the token's creation", || {
            (creates(&bed) == 1).then_some(())
        });
        let id = Pid::from_raw(check.id().cast_signed());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            kill(id, signal).unwrap();
        }
        let output = check.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("a token was made after"), "{text}");
        assert_eq!(bed.lab.living(), 0);

        // Nobody knows the accessor: the token ends by itself.
        proxy.order(1, CREATE, Fault::Cut(120));
        let (findings, living) = mint(&bed, Some(&proxy));
        super::assert_found(
            &findings,
            &[(
                FAILURE,
                &["no token could be made", "it ends by itself within 1m"],
            )],
        );
        assert_eq!(living.len(), 1, "{living:?}");
        assert!(living[0]["ttl"].as_u64().unwrap() <= 60, "{living:?}");
        assert_eq!(living[0]["explicit_max_ttl"], 60, "{living:?}");

        // It is made and cannot be ended.
        proxy.always("POST /v1/auth/token/revoke-accessor", Fault::page(502));
        let (findings, _) = mint(&bed, Some(&proxy));
        super::assert_found(
            &findings,
            &[(
                FAILURE,
                &["could not be ended", "it ends by itself within 1m"],
            )],
        );
        proxy.heal();

        // It cannot be made.
        proxy.order(1, CREATE, Fault::error(403, "permission denied"));
        let (findings, _) = mint(&bed, Some(&proxy));
        super::assert_found(
            &findings,
            &[(FAILURE, &["no token could be made", "permission denied"])],
        );
        assert!(
            !findings.last().unwrap()["text"]
                .as_str()
                .unwrap()
                .contains("ends by itself")
        );
    });
}
