//! Policies and token roles, from the shipped example.

use super::{Site, assert_said};
use serde_json::json;
use vaulttmpfs_tests::GENERATOR_POLICY;

#[test]
fn what_vault_lacks_is_made_and_what_it_has_is_left() {
    let mut site = Site::new().with_alice("node-admin");
    let root = site.lab.vault.root();
    root.delete("auth/token/roles/applications");
    root.delete(&format!("sys/policies/acl/{GENERATOR_POLICY}"));
    let said = site.run_as_root_of_vault(&[]);
    assert_said(&said, 77, &["of no use"]);

    let refused = site.run_as_alice(&["--set-up-vault"]);
    assert_said(&refused, 77, &["sys/policies/acl/web", "vault-side.sh"]);
    site.assert_nothing_left();
    let unknown = site.run_as_root_of_vault(&["--set-up-vault", "--policies=app"]);
    assert_said(&unknown, 64, &["--set-up-vault knows", GENERATOR_POLICY]);

    let said = site.run_as_root_of_vault(&["--set-up-vault"]);
    assert_said(
        &said,
        0,
        &[
            "made at Vault: sys/policies/acl/web",
            "made at Vault: auth/token/roles/applications",
            "made at Vault: sys/policies/acl/applications_token_creator",
            "written: ",
        ],
    );
    let role = root.read("auth/token/roles/applications").body;
    assert_eq!(role["data"]["orphan"], true, "{role}");
    assert_eq!(
        role["data"]["token_period"]
            .as_u64()
            .or(role["data"]["period"].as_u64()),
        Some(24 * 3600),
        "{role}"
    );
    assert_eq!(role["data"]["allowed_policies"], json!(["web"]), "{role}");

    // What an administrator has changed stays, and nothing is made twice.
    root.write(
        "auth/token/roles/applications",
        &json!({"allowed_policies": ["app"]}),
    );
    let again = site.run_as_root_of_vault(&["--set-up-vault", "--force"]);
    assert_said(&again, 0, &["written: "]);
    assert!(!again.output.contains("made at Vault"), "{again:?}");
    let role = root.read("auth/token/roles/applications").body;
    assert_eq!(role["data"]["allowed_policies"], json!(["app"]), "{role}");

    // An agent lives by it.
    let token = site.token();
    site.lab.write_generator_token(&token);
    site.lab.agent.start();
    site.lab.agent.wait_until_ready();
    let volume = site.lab.mounted(&site.lab.options());
    site.lab.kubelet.unmount(&volume).assert_success();
}
