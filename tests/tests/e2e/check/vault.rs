//! What is wrong at Vault: itself, the generator token, its rights, the roles.

use super::{Bed, FAILURE, WARNING, not_checked};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use vaulttmpfs_tests::{Fault, GENERATOR_POLICY, Options, Proxy, Role, in_own_namespaces, text};

/// An answer of `sys/health`.
fn health(fields: &Value) -> Fault {
    Fault::text(&fields.to_string())
}

/// Makes a token with these parameters, and puts it where the generator token belongs.
fn use_token(bed: &Bed, parameters: &Value) {
    let mut body = json!({
        "policies": [GENERATOR_POLICY],
        "no_parent": true,
        "period": "24h",
        "renewable": true,
    });
    for (key, value) in parameters.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = bed.lab.vault.root().write("auth/token/create", &body);
    bed.lab
        .write_generator_token(&text(&answer["auth"]["client_token"]));
}

fn policy(bed: &Bed) -> String {
    let path = format!("sys/policies/acl/{GENERATOR_POLICY}");
    text(&bed.lab.vault.root().read(&path).body["data"]["policy"])
}

#[test]
fn a_vault_that_does_not_serve_is_found() {
    in_own_namespaces(|| {
        let mut bed = Bed::new();
        let proxy = Proxy::start(&bed.lab.vault);
        let health_call = "GET /v1/sys/health";
        proxy.order(
            1,
            health_call,
            health(&json!({"initialized": false, "sealed": true})),
        );
        bed.finds_once_behind(
            &proxy,
            &[(FAILURE, &["is not initialised", "operator init"])],
        );
        proxy.order(1, health_call, Fault::page(502));
        bed.finds_once_behind(&proxy, &[(FAILURE, &["status 502", "see Vault's log"])]);
        let standby =
            json!({"initialized": true, "sealed": false, "standby": true, "version": "1"});
        proxy.order(1, health_call, health(&standby));
        let mut settings = bed.settings.clone();
        settings.insert("VAULT_ADDR".into(), super::by_name(&proxy));
        let (_, findings) = bed.run(&settings, &[]);
        super::assert_found(&findings, &[]);
        let standby = findings.iter().find(|one| one["group"] == "Vault").unwrap();
        assert!(text(&standby["text"]).contains("is a standby"), "{standby}");
        assert!(not_checked(&findings).contains(&("clock", "Vault does not say its time")));
        proxy.order(1, health_call, Fault::HangUp);
        bed.finds_once_behind(&proxy, &[(FAILURE, &["no whole answer"])]);

        bed.lab.vault.seal();
        let (_, findings) = bed.run(&bed.settings, &[]);
        let sealed = findings.iter().find(|one| one["group"] == "Vault").unwrap();
        assert_eq!(sealed["level"], FAILURE, "{sealed}");
        assert!(
            text(&sealed["text"]).contains("is sealed: vault operator unseal"),
            "{sealed}"
        );
        for group in ["rights", "wrapping", "roles", "trial token"] {
            assert!(
                not_checked(&findings).contains(&(group, "Vault does not serve")),
                "{findings:?}"
            );
        }
        bed.lab.vault.unseal();
    });
}

#[test]
fn a_generator_token_that_is_not_good_is_found() {
    in_own_namespaces(|| {
        // The agent is not the one to be asked here.
        let bed = Bed::of(super::builder().not_ready());
        let bed = without_agent(bed);
        let agent_is_down = (FAILURE, &["no agent serves"] as &[_]);
        let finds = |expected: super::Expected<'_>| bed.finds(&[agent_is_down, expected]);
        let token = bed.lab.node.path("etc/token");
        for (mode, expected) in [
            (
                0o444,
                (
                    FAILURE,
                    &["everybody on the node", "mode 0444", "chmod 0400"] as &[_],
                ),
            ),
            (
                0o440,
                (WARNING, &["a group may get at the token", "mode 0440"]),
            ),
        ] {
            fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
            finds(expected);
        }
        // Vault grants less, and it is all there.
        use_token(&bed, &json!({"period": "8760h"}));
        bed.finds(&[agent_is_down]);
        use_token(&bed, &json!({"period": "", "ttl": "1h"}));
        finds((WARNING, &["is not periodic"]));
        use_token(&bed, &json!({"period": "2h"}));
        finds((
            WARNING,
            &["period is 2h: it survives an outage", "of 1h20m"],
        ));
        use_token(
            &bed,
            &json!({"renewable": false, "period": "", "ttl": "1h"}),
        );
        finds((WARNING, &["cannot be renewed and ends in"]));
        use_token(&bed, &json!({"no_parent": false}));
        finds((WARNING, &["ends with the token that made it"]));
        use_token(&bed, &json!({"explicit_max_ttl": "48h"}));
        finds((WARNING, &["explicit max TTL of 48h"]));
        use_token(&bed, &json!({"num_uses": 20}));
        finds((FAILURE, &["is good for", "more calls"]));
        use_token(&bed, &json!({"policies": ["root"], "period": ""}));
        finds((FAILURE, &["it is a root token", "the agent refuses it"]));
        use_token(&bed, &json!({}));
        let used = fs::read_to_string(&token).unwrap();
        let root = bed.lab.vault.root();
        root.write("auth/token/revoke", &json!({ "token": used }));
        finds((
            FAILURE,
            &["does not take the generator token", "vaulttmpfs bootstrap"],
        ));
        fs::remove_file(&token).unwrap();
        finds((FAILURE, &["there is no token in", "vaulttmpfs bootstrap"]));
        let (_, findings) = bed.run(&bed.settings, &[]);
        let skipped = not_checked(&findings);
        assert!(
            skipped.contains(&("rights", "no generator token could be read")),
            "{skipped:?}"
        );
    });
}

/// What the agent finds itself would be found twice.
fn without_agent(mut bed: Bed) -> Bed {
    bed.lab.agent.kill();
    bed
}

#[test]
fn the_roles_of_mounted_volumes_are_looked_at() {
    in_own_namespaces(|| {
        let role = Role::new("web", &json!({ "period": "24h" }));
        let bed = Bed::of(super::builder().role(role));
        let options = Options::new(&[("vault/policies", "app"), ("vault/role", "web")]);
        let _volume = bed.lab.mounted(&options);
        let findings = bed.finds_by(&bed.settings, &[], &[]);
        let roles: Vec<String> = findings
            .iter()
            .filter(|one| one["group"] == "roles")
            .map(|one| text(&one["text"]))
            .collect();
        assert_eq!(roles.len(), 2, "{roles:?}");
        assert!(roles[1].starts_with("`web` makes orphans"), "{roles:?}");
        let root = bed.lab.vault.root();
        root.delete("auth/token/roles/web");
        bed.finds(&[(
            FAILURE,
            &["no token role `web`, by which mounted volumes got"],
        )]);
    });
}

#[test]
fn each_missing_right_is_named() {
    in_own_namespaces(|| {
        let bed = without_agent(Bed::new());
        let agent_is_down = (FAILURE, &["no agent serves"] as &[_]);
        let whole = policy(&bed);
        let root = bed.lab.vault.root();
        for (path, level) in [
            ("auth/token/create/applications", FAILURE),
            ("auth/token/renew-accessor", FAILURE),
            ("auth/token/revoke-accessor", FAILURE),
            ("auth/token/lookup-accessor", FAILURE),
            ("auth/token/roles/applications", WARNING),
        ] {
            let rules: Vec<&str> = whole.lines().filter(|line| !line.contains(path)).collect();
            assert!(rules.len() < whole.lines().count(), "{path}: {whole}");
            root.make_policy(GENERATOR_POLICY, &rules.join("\n"));
            let on = format!("on {path}: ");
            let mend = format!("add to its policy: path \"{path}\"");
            let missing = (
                level,
                &["has no right to", on.as_str(), mend.as_str()] as &[_],
            );
            if path.contains("/create/") {
                // Without the path there are no bounds either.
                let plain = (WARNING, &["min_wrapping_ttl"] as &[_]);
                bed.finds(&[agent_is_down, missing, plain]);
            } else {
                bed.finds(&[agent_is_down, missing]);
            }
        }
        let own = r#"
            path "auth/token/lookup-self" { capabilities = ["read"] }
            path "sys/capabilities-self" { capabilities = ["update"] }
            path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }"#;
        root.make_policy(GENERATOR_POLICY, &format!("{whole}\n{own}"));
        use_token(&bed, &json!({"no_default_policy": true}));
        bed.finds(&[
            agent_is_down,
            (
                FAILURE,
                &["no right to update on auth/token/renew-self: it is not kept alive"],
            ),
        ]);
        let mute = own.replace("sys/capabilities-self", "sys/nothing");
        root.make_policy(GENERATOR_POLICY, &format!("{whole}\n{mute}"));
        bed.finds(&[agent_is_down, (WARNING, &["is not known: it may not ask"])]);

        // How it may wrap.
        use_token(&bed, &json!({}));
        root.make_policy(GENERATOR_POLICY, &whole);
        for ttl in ["20m", "1h"] {
            let allows = ["allows", "a wrap TTL from 1s to 10m", "set VAULT_WRAP_TTL"];
            bed.finds_with(
                &[("VAULT_WRAP_TTL", ttl)],
                &[agent_is_down, (FAILURE, &allows)],
            );
        }
        let high = whole.replace(r#"min_wrapping_ttl = "1s""#, r#"min_wrapping_ttl = "6m""#);
        root.make_policy(GENERATOR_POLICY, &high);
        bed.finds(&[
            agent_is_down,
            (FAILURE, &["from 6m to 10m", "the default is 5m"]),
        ]);
        let none = whole.replace(r#"min_wrapping_ttl = "1s""#, "");
        root.make_policy(GENERATOR_POLICY, &none);
        bed.finds(&[agent_is_down, (WARNING, &["may make plain tokens at"])]);
    });
}

#[test]
fn a_role_that_does_not_do_is_named() {
    in_own_namespaces(|| {
        let bed = without_agent(Bed::new());
        let agent_is_down = (FAILURE, &["no agent serves"] as &[_]);
        let root = bed.lab.vault.root();
        let path = "auth/token/roles/applications";
        let good = json!({
            "orphan": true,
            "renewable": true,
            "period": "24h",
            "allowed_policies": ["app", "other"],
        });
        let faults: &[(Value, super::Expected<'_>)] = &[
            (
                json!({"orphan": false}),
                (FAILURE, &["makes children of the generator token"]),
            ),
            (
                json!({"period": "2h"}),
                (WARNING, &["has a period of 2h", "an outage", "of 1h10m"]),
            ),
            (
                json!({"period": "0s"}),
                (WARNING, &["has no period", "period=24h"]),
            ),
            (
                json!({"renewable": false}),
                (WARNING, &["cannot be kept alive", "cannot be renewed"]),
            ),
            (
                json!({"token_bound_cidrs": ["10.1.0.0/16"]}),
                (
                    WARNING,
                    &[
                        "binds its tokens to 10.1.0.0/16",
                        "comes to Vault from 127.0.0.1",
                    ],
                ),
            ),
            (
                json!({"token_bound_cidrs": ["127.0.0.0/8"]}),
                (
                    WARNING,
                    &["binds its tokens to 127.0.0.0/8", "from elsewhere"],
                ),
            ),
            (
                json!({"token_num_uses": 3}),
                (WARNING, &["end after 3 calls"]),
            ),
            (
                json!({"token_explicit_max_ttl": "720h"}),
                (WARNING, &["explicit max TTL of 720h"]),
            ),
            (
                json!({"allowed_policies": []}),
                (WARNING, &["has no allowed_policies"]),
            ),
            (
                json!({"allowed_policies": ["app", GENERATOR_POLICY]}),
                (
                    FAILURE,
                    &["allows applications_token_creator", "no pod is given"],
                ),
            ),
        ];
        for (change, expected) in faults {
            root.delete(path);
            let mut role = good.clone();
            for (key, value) in change.as_object().unwrap() {
                role[key] = value.clone();
            }
            root.write(path, &role);
            bed.finds(&[agent_is_down, *expected]);
        }
        root.delete(path);
        bed.finds(&[
            agent_is_down,
            (FAILURE, &["Vault has no token role `applications`"]),
        ]);
        root.write(path, &good);
        bed.finds(&[agent_is_down]);
        bed.finds_with(
            &[("VAULTTMPFS_DEFAULT_ROLE_NAME", "web")],
            &[
                agent_is_down,
                (FAILURE, &["on auth/token/create/web"]),
                (WARNING, &["on auth/token/roles/web"]),
                (WARNING, &["may make plain tokens at auth/token/create/web"]),
            ],
        );
    });
}
