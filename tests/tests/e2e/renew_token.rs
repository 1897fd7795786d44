//! `vaulttmpfs renew-token`: by the agent where one runs, else with the token's file.

use serde_json::json;
use std::fs;
use std::process::Command;
use vaulttmpfs_tests::{Lab, Said, eventually};

const RENEWAL: &str = "auth/token/renew-self";

/// As root, with the agent's settings.
#[track_caller]
fn run(lab: &Lab) -> Said {
    lab.command_with(&["renew-token"], &lab.agent.settings)
}

#[test]
fn the_running_agent_renews_it() {
    let mut lab = Lab::start();
    let before = lab.vault.count(RENEWAL);
    // The agent alone needs the file.
    fs::remove_file(lab.node.path("etc/token")).unwrap();
    let said = run(&lab);
    assert_eq!(said.status, 0, "{said:?}");
    // A moment has passed since.
    let whole = said.output.contains(" has 24h to live");
    assert!(
        whole || said.output.contains(" has 23h59m"),
        "{}",
        said.output
    );
    assert_eq!(lab.vault.count(RENEWAL), before + 1);
    assert!(lab.agent.log().contains("as an admin wants it"));

    // Only for root, also past the socket's rights.
    let call = "curl -s --unix-socket \"$VAULTTMPFS_SOCKET\" -X POST http://agent/v1/renew-token";
    fs::set_permissions(
        lab.agent.socket(),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    let mut other = Command::new("setpriv");
    other
        .args([
            "--reuid=64999",
            "--regid=64999",
            "--clear-groups",
            "sh",
            "-c",
            call,
        ])
        .env("VAULTTMPFS_SOCKET", lab.agent.socket());
    let said = Said::by(&mut other);
    assert!(said.output.contains("only root"), "{said:?}");
    assert_eq!(lab.vault.count(RENEWAL), before + 1);

    // One that Vault does not renew: it says so, and the agent, too.
    lab.vault.root().make_policy(
        "default",
        "path \"auth/token/lookup-self\" { capabilities = [\"read\"] }",
    );
    let said = run(&lab);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("auth/token/renew-self"), "{said:?}");
    eventually("the agent's concern", || {
        let status = lab.agent.get("/v1/status");
        status["concerns"]
            .to_string()
            .contains("renew-self")
            .then_some(())
    });
    let _ = lab.agent.stop();
}

#[test]
fn without_an_agent_its_file_is_enough() {
    let mut lab = Lab::builder().without_agent().start();
    let said = run(&lab);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(
        said.output,
        "renewed: the generator token has 24h to live\n"
    );
    assert_eq!(lab.vault.count(RENEWAL), 1);

    // A socket that an agent has left behind counts as none.
    drop(std::os::unix::net::UnixListener::bind(lab.node.socket()).unwrap());
    assert_eq!(run(&lab).status, 0);

    lab.vault.seal();
    let said = run(&lab);
    assert_eq!(said.status, 69, "{said:?}");
    lab.vault.unseal();
    let token = fs::read_to_string(lab.node.path("etc/token")).unwrap();
    let own = lab.vault.root().with_token(&token);
    own.write("auth/token/revoke-self", &json!({}));
    let said = run(&lab);
    assert_eq!(said.status, 77, "{said:?}");
    assert!(said.errors.contains("bootstrap"), "{said:?}");
    fs::remove_file(lab.node.path("etc/token")).unwrap();
    let said = run(&lab);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.errors.contains("no generator token"), "{said:?}");
    lab.agent
        .settings
        .insert("VAULT_ADDR".into(), "nowhere".into());
    let said = run(&lab);
    assert_eq!(said.status, 64, "{said:?}");
}
