//! `vaulttmpfs bootstrap`: a node's generator token is made, put in its place, and nothing else is left.

mod encrypted;
mod failing;
mod keeping;
mod ldap;
mod settings;
mod userpass;
mod vault_side;
mod wrapped;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use vaulttmpfs_tests::{GENERATOR_POLICY, Lab, LabBuilder, Said, Settings, text};

/// A password that no output has by chance.
const PASSWORD: &str = "open.sesame.and.nobody.else.enters";

/// What a login needs to make a generator token.
const ADMIN_RULES: &str =
    r#"path "auth/token/create-orphan" { capabilities = ["update", "sudo"] }"#;

/// A node without a generator token, beside a Vault that has all it needs but people.
struct Site {
    lab: Lab,
}

impl Site {
    fn new() -> Self {
        Self::of(Lab::builder())
    }

    fn of(lab: LabBuilder) -> Self {
        let lab = lab.without_agent().start();
        fs::remove_file(lab.node.path("etc/token")).unwrap();
        lab.vault.root().make_policy("node-admin", ADMIN_RULES);
        Self { lab }
    }

    /// Lets `alice` log in by userpass with a policy.
    fn with_alice(self, policy: &str) -> Self {
        let root = self.lab.vault.root();
        root.write("sys/auth/userpass", &json!({"type": "userpass"}));
        root.write(
            "auth/userpass/users/alice",
            &json!({"password": PASSWORD, "policies": policy}),
        );
        self
    }

    fn path(&self) -> PathBuf {
        self.lab.node.path("etc/token")
    }

    /// The settings that the agent has, and these.
    fn settings(&self, more: &[(&str, &str)]) -> Settings {
        let mut settings = self.lab.agent.settings.clone();
        for (name, value) in more {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        settings
    }

    /// The command, to be run on a terminal.
    fn command(&self, arguments: &[&str]) -> Command {
        let arguments = [&["bootstrap"], arguments].concat();
        let mut command = self.lab.node.command(&arguments);
        command.envs(self.settings(&[]));
        command
    }

    /// Runs the command where nobody is to be asked.
    #[track_caller]
    fn run(&self, arguments: &[&str], more: &[(&str, &str)]) -> Said {
        let arguments = [&["bootstrap"], arguments].concat();
        self.lab.command_with(&arguments, &self.settings(more))
    }

    /// The same as an administrator of Vault, with a token of their own.
    #[track_caller]
    fn run_as_root_of_vault(&self, arguments: &[&str]) -> Said {
        let token = self.root_token();
        self.run(arguments, &[("VAULT_TOKEN", &token)])
    }

    fn root_token(&self) -> String {
        let body = json!({"policies": ["root"], "no_parent": true});
        let answer = self.lab.vault.root().write("auth/token/create", &body);
        text(&answer["auth"]["client_token"])
    }

    /// Logs in as `alice` by userpass.
    #[track_caller]
    fn run_as_alice(&self, arguments: &[&str]) -> Said {
        let password = self.password_file();
        let login = [
            "--method=userpass",
            "--username=alice",
            "--password-file",
            &password,
        ];
        self.run(&[&login, arguments].concat(), &[])
    }

    fn password_file(&self) -> String {
        self.file("password", &format!("{PASSWORD}\n"))
    }

    /// A file of root's, which may hold a secret.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.lab.node.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.lab.may_hold_a_secret(path.clone());
        path.into_os_string().into_string().unwrap()
    }

    /// The token in its place.
    fn token(&self) -> String {
        fs::read_to_string(self.path()).expect("the generator token's file")
    }

    /// What Vault knows of the token in its place, which must be good, and its file for root alone.
    #[track_caller]
    fn looked_up(&self) -> Value {
        let file = fs::metadata(self.path()).expect("the generator token's file");
        assert_eq!(
            (file.mode() & 0o7777, file.uid(), file.gid()),
            (0o600, 0, 0)
        );
        let reply = self
            .lab
            .vault
            .root()
            .with_token(&self.token())
            .lookup_self();
        assert_eq!(reply.status, 200, "{reply:?}");
        let token = reply.body["data"].clone();
        assert_eq!(token["orphan"], true, "{token}");
        assert_eq!(token["renewable"], true, "{token}");
        assert_eq!(token["policies"], json!([GENERATOR_POLICY, "default"]));
        token
    }

    /// How many tokens live that were made at this path.
    fn living(&self, path: &str) -> usize {
        let tokens = self.lab.vault.root().tokens();
        tokens.iter().filter(|token| token["path"] == path).count()
    }

    /// No login's token lives, and no generator token but the one in its place, where there is one.
    #[track_caller]
    fn assert_nothing_left(&self) {
        let tokens = self.lab.vault.root().tokens();
        let own = fs::read_to_string(self.path()).unwrap_or_default();
        let own = self.lab.vault.root().with_token(&own).lookup_self();
        let own = &own.body["data"]["accessor"];
        let left: Vec<&Value> = tokens
            .iter()
            .filter(|token| {
                let path = text(&token["path"]);
                let made = path.starts_with("auth/token/create-orphan")
                    || path.starts_with("auth/token/create/");
                (made || path.contains("/login/")) && token["accessor"] != *own
            })
            .collect();
        assert!(left.is_empty(), "left behind: {left:#?}");
        let directory = self.path().with_file_name("");
        let names: Vec<_> = fs::read_dir(directory).unwrap().flatten().collect();
        let is_half = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        assert!(
            !names.iter().any(|it| is_half(&it.file_name())),
            "{names:?}"
        );
    }
}

/// The command ended so, and said this.
#[track_caller]
fn assert_said(said: &Said, status: i32, words: &[&str]) {
    assert_eq!(said.status, status, "{said:#?}");
    let all = format!("{}{}", said.output, said.errors);
    for word in words {
        assert!(all.contains(word), "{word:?} is not in {said:#?}");
    }
}

/// This machine's name, which is the node's.
fn node() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim().to_owned()
}
