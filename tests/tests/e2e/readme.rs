//! README.md's own commands, executed: whoever follows it gets what it says.

use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use vaulttmpfs_tests::{
    Kubelet, Node, OpenBao, Options, Pod, eventually, outside_cargo, readme, readme_block as block,
    source_tree, text,
};

/// Every block of commands in README.md, by the name in the comment before it. The tests below run
/// each of them.
const BLOCKS: [&str; 9] = [
    "commands",
    "build",
    "vault",
    "vault-unwrapped",
    "generator",
    "install",
    "agent",
    "status",
    "unwrap",
];

/// Runs commands in a shell that stops at the first that fails.
fn run(script: &str, change: impl FnOnce(&mut Command)) -> String {
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", script])
        .stdin(Stdio::null());
    change(&mut shell);
    let output = shell.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{script}\n{out}\n{err}");
    out.into_owned()
}

#[test]
fn every_block_of_commands_is_run_by_a_test() {
    let readme = readme();
    let blocks: Vec<&str> = readme.split("```sh\n").collect();
    for (index, before) in blocks[..blocks.len() - 1].iter().enumerate() {
        let named = BLOCKS
            .iter()
            .any(|name| before.ends_with(&format!("<!-- run: {name} -->\n")));
        assert!(
            named,
            "this block is run by no test:\n{}",
            blocks[index + 1]
        );
    }
}

#[test]
fn the_commands_are_there_and_help() {
    for command in block("commands").lines() {
        let help = run(&format!("{command} --help"), |shell| {
            shell.current_dir(source_tree());
        });
        assert!(help.contains(&format!("Usage: {command}")), "{help}");
    }
}

#[test]
fn the_build_is_the_one_that_the_tests_use() {
    let scripts = ["tests/setup", "tests/bench"]
        .map(|script| fs::read_to_string(source_tree().join(script)).unwrap())
        .concat();
    for command in block("build").lines() {
        assert!(scripts.contains(command), "{command} is run nowhere");
    }
}

#[test]
#[ignore = "long"]
fn the_build_builds() {
    run(&block("build"), |shell| {
        outside_cargo(shell).current_dir(source_tree());
    });
}

/// A machine on which README.md is followed, with other paths and another Vault.
struct Machine {
    kubelet: Kubelet,
    node: Node,
    vault: OpenBao,
    administrator: String,
}

impl Machine {
    fn new() -> Self {
        // First: what is started later lives in the node's namespace.
        let node = Node::new();
        for directory in ["/etc", "/usr/libexec"] {
            node.own(directory);
        }
        node.name_this_machine("vault.test");
        let mut vault = OpenBao::start();
        vault.root().make_secrets();
        let secret = json!({"password": "the secret of web"});
        vault.root().write("secret/web", &secret);
        let body = json!({"policies": ["root"], "no_parent": true});
        let answer = vault.root().write("auth/token/create", &body);
        let administrator = text(&answer["auth"]["client_token"]);
        fs::create_dir_all(node.path("bin")).unwrap();
        let program = format!("/proc/{}/exe", vault.process().id());
        let program = fs::read_link(program).expect("OpenBao's program");
        std::os::unix::fs::symlink(program, node.path("bin/vault")).unwrap();
        let authority = vault.authority().certificate();
        fs::write(node.path("etc/vault-ca.crt"), authority).unwrap();
        let driver =
            "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/cloudwatt~vaulttmpfs/vaulttmpfs";
        let kubelet = Kubelet::new(Path::new(driver), &node.path("kubelet"), &node.socket());
        Self {
            kubelet,
            node,
            vault,
            administrator,
        }
    }

    fn path(&self, relative: &str) -> String {
        let path = self.node.path(relative);
        path.into_os_string().into_string().unwrap()
    }

    fn address(&self) -> String {
        self.vault.address().replace("127.0.0.1", "vault.test")
    }

    /// A block's commands for this machine.
    fn here(&self, name: &str) -> String {
        let own = std::env::current_exe().unwrap();
        let profile = own.parent().and_then(Path::parent).unwrap();
        let target = profile.parent().unwrap();
        block(name)
            .replace("https://vault.example.com:8200", &self.address())
            .replace("/etc/kubernetes", &self.path("etc"))
            .replace("/run/vaulttmpfs/agent.sock", &self.path("run/agent.sock"))
            .replace("target/release", profile.to_str().unwrap())
            .replace("target/driver", &format!("{}/driver", target.display()))
    }

    fn environment(&self, shell: &mut Command) {
        shell
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin")))
            .env("HOME", self.path("etc"))
            .current_dir("/");
    }

    fn as_administrator(&self, script: &str) {
        run(script, |shell| {
            self.environment(shell);
            shell
                .env("VAULT_ADDR", self.address())
                .env("VAULT_CACERT", self.path("etc/vault-ca.crt"))
                .env("VAULT_TOKEN", &self.administrator);
        });
    }

    fn start_agent(&self) -> Running {
        let script = self.here("agent");
        let (settings, start) = script.trim_end().rsplit_once('\n').unwrap();
        let mut shell = Command::new("setpriv");
        self.environment(&mut shell);
        shell
            .args(["--pdeathsig", "KILL", "--", "bash", "-euc"])
            .arg(format!("{settings}\nexec {start}"))
            .env("VAULTTMPFS_SOCKET", self.node.socket())
            .env("VAULTTMPFS_STATE_DIR", self.path("state"))
            .env(
                "VAULTTMPFS_GENERATOR_TOKEN_PATH",
                self.path("etc/vaulttoken"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running(shell.spawn().unwrap());
        eventually("the agent to be ready", || {
            let script = format!(
                "{{ {}\n}} || true",
                self.here("status").replace("curl ", "curl -s ")
            );
            let shown = run(&script, |shell| self.environment(shell));
            shown.contains(r#""ready":true"#).then_some(())
        });
        running
    }

    fn unwrap(&self, directory: &Path) -> String {
        let script = block("unwrap").replace(
            "/var/run/secrets/vault",
            directory.to_str().expect("a path of text"),
        );
        run(&script, |shell| self.environment(shell))
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The options in the pod's manifest.
fn manifest() -> Options {
    let manifest = block("pod");
    assert!(manifest.contains("driver: cloudwatt/vaulttmpfs\n"));
    let (_, options) = manifest.split_once("options:\n").unwrap();
    let options: Vec<(&str, &str)> = options
        .lines()
        .map(|line| line.trim().split_once(": ").expect("an option"))
        .collect();
    assert!(options.len() >= 3, "{options:?}");
    Options::new(&options)
}

#[test]
fn whoever_follows_it_gets_a_token() {
    let machine = Machine::new();
    machine.as_administrator(&machine.here("vault"));
    machine.as_administrator(&machine.here("generator"));
    run(&machine.here("install"), |shell| machine.environment(shell));
    let agent = machine.start_agent();
    machine.kubelet.init().assert_success();

    let volume = machine.kubelet.volume(&Pod::new("web"), "vault");
    let mounted = machine.kubelet.mount(&volume, &manifest());
    mounted.assert_success();
    let files = ["ca.crt", "vault-addr", "vault-token", "vault-token.json"];
    assert_eq!(volume.files(), files);
    let shown = machine.unwrap(&volume.directory);
    assert!(shown.contains("the secret of web"), "{shown}");
    machine.kubelet.unmount(&volume).assert_success();

    // The second role, for pods that cannot unwrap.
    let plain = Options::new(&[
        ("vault/role", "applications-unwrapped"),
        ("vault/unwrap", "true"),
    ]);
    let volume = machine.kubelet.volume(&Pod::new("plain"), "vault");
    let refused = machine.kubelet.mount(&volume, &plain);
    refused.assert_failure(&["auth/token/roles/applications-unwrapped"]);
    drop(agent);
    machine.as_administrator(&machine.here("vault-unwrapped"));
    let both = "-policy=applications_token_creator -policy=applications_unwrapped_token_creator";
    let generator = machine
        .here("generator")
        .replace("-policy=applications_token_creator", both);
    machine.as_administrator(&generator);
    let _agent = machine.start_agent();
    machine.kubelet.mount(&volume, &plain).assert_success();
    let holder = machine.vault.root().with_token(&volume.read("vault-token"));
    assert_eq!(holder.read("secret/web").status, 200);
    machine.kubelet.unmount(&volume).assert_success();
}
