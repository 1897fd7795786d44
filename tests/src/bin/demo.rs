//! Shows the main job to a newcomer, step by step. `tests/demo` builds what it needs and starts it
//! in namespaces of its own, which end with it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a demonstration that cannot go on ends, naming the place"
)]

use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use vaulttmpfs_tests::{Lab, Options, Outcome, Pod, Volume};

/// A host name that stands for a Vault server's in a real cluster.
const VAULT_HOST: &str = "vault.test";

/// The pod's user and group: not root.
const POD_USER: &str = "1000";
const POD_GROUP: u32 = 2000;

/// The pod's side: nothing but what is in its volume, and Vault's client.
const POD_COMMANDS: [&str; 6] = [
    "id",
    "export VAULT_ADDR=$(cat vault-addr) VAULT_CACERT=$PWD/ca.crt",
    "export VAULT_TOKEN=$(VAULT_TOKEN=$(cat vault-token) bao unwrap -field=token)",
    "bao token lookup | grep -E '^(meta|orphan|period|policies)'",
    "bao read secret/app",
    "bao read secret/other",
];

/// How a command is told from its output.
const PROMPT: &str = "  $ ";

fn main() {
    let demo = Demo::start(std::env::args().any(|argument| argument == "--pause"));
    demo.show_surroundings();
    let volume = demo.show_mount();
    demo.show_volume(&volume);
    demo.show_pod(&volume);
    demo.show_unmount(&volume);
    println!("\nThat was it. Everything that was started or mounted here is gone now.");
}

struct Demo {
    lab: Lab,
    pause: bool,
}

impl Demo {
    fn start(pause: bool) -> Self {
        let mut lab = Lab::builder().without_agent().start();
        let address = lab.vault.address().replace("127.0.0.1", VAULT_HOST);
        resolve_vault_host(&lab);
        lend_client(&lab);
        lab.agent.settings.insert("VAULT_ADDR".to_owned(), address);
        lab.agent.start();
        lab.agent.wait_until_ready();
        Self { lab, pause }
    }

    fn root(&self) -> String {
        let root = self.lab.node.path("");
        root.display().to_string().trim_end_matches('/').to_owned()
    }

    fn step(&self, heading: &str, text: &str) {
        if self.pause {
            print!("\n[Enter] ");
            std::io::stdout().flush().unwrap();
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        println!("\n=== {heading}\n{text}\n");
    }

    /// Prints a text without letting anyone learn a living token from the screen, and with a word
    /// for the long path of a node's own directory.
    fn print(&self, text: &str) {
        let text = self.lab.vault.secrets().shorten(text);
        for line in text.replace(&self.root(), "$NODE").lines() {
            let margin = if line.starts_with(PROMPT) { "" } else { "    " };
            println!("{margin}{line}");
        }
    }

    /// Runs a command as the administrator, and shows both.
    fn run(&self, command: &str) {
        let output = Command::new("bash")
            .arg("-c")
            .arg(format!("exec 2>&1\n{}", with_prompt(command)))
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        self.print(&String::from_utf8_lossy(&output.stdout));
    }

    /// Shows a call of the driver's.
    fn call(&self, what: &str, outcome: &Outcome) {
        self.print(&format!("{PROMPT}{what}"));
        self.print(&outcome.answer.to_string());
        println!(
            "    (exit 0, after {:.1} ms)",
            outcome.took.as_secs_f64() * 1000.0
        );
        outcome.assert_success();
    }

    fn show_surroundings(&self) {
        self.step(
            "1. A Vault server and an agent",
            "Vault (OpenBao, over TLS with an authority of its own) has two secrets, a policy for each, and a\n\
             token role `applications` for pods: orphan, periodic, policies `app` and `other` only.",
        );
        let role = self.lab.vault.root().read("auth/token/roles/applications");
        for field in ["orphan", "token_period", "allowed_policies"] {
            println!("    {field}: {}", role.body["data"][field]);
        }
        println!(
            "\nThe agent is one a node. It runs as a user of its own (uid 64321 here) without any capability, and\n\
             keeps a connection to Vault warm. Its state, asked as an administrator:\n"
        );
        println!("{PROMPT}NODE={}", self.root());
        let socket = self.lab.agent.socket().display();
        let script = format!("curl --silent --unix-socket {socket} http://agent/v1/status");
        self.run(&script);
    }

    fn show_mount(&self) -> Volume {
        self.step(
            "2. The kubelet asks the driver what it can do, and has a volume mounted",
            "The pod's manifest names `driver: cloudwatt/vaulttmpfs` and `vault/policies: app`. The kubelet executes\n\
             the driver, which asks the agent and answers with one line of JSON:",
        );
        self.call("vaulttmpfs init", &self.lab.kubelet.init());
        let volume = self.lab.kubelet.volume(&Pod::new("web-0"), "vault");
        let options = Options::new(&[("vault/policies", "app"), ("vault/filePermissions", "0440")])
            .fs_group(POD_GROUP);
        let [verb, directory, json] = self.lab.kubelet.mount_arguments(&volume, &options);
        let what = format!("vaulttmpfs {verb} {directory} '{json}'");
        self.call(&what, &self.lab.kubelet.mount(&volume, &options));
        volume
    }

    fn show_volume(&self, volume: &Volume) {
        self.step(
            "3. The volume",
            "A small tmpfs that appeared whole: nobody ever sees it half filled. Its files belong to the pod's group.",
        );
        let directory = volume.directory.display();
        let columns = "SOURCE,FSTYPE,OPTIONS";
        for script in [
            format!("findmnt --output {columns} {directory}"),
            format!("ls -l {directory}"),
            format!("cat {directory}/vault-token.json"),
        ] {
            self.run(&script);
        }
        println!("\n  (Tokens and accessors are shortened on this screen only.)");
    }

    fn show_pod(&self, volume: &Volume) {
        self.step(
            "4. The pod",
            "A process of the pod, not root, in its volume's directory. It unwraps its token, which works once;\n\
             Vault knows whose token it is; it may read the secret of its policy, and no other:",
        );
        let container = self.lab.node.path("container");
        fs::create_dir(&container).expect("a container's directory");
        bind(&volume.directory, &container);
        self.run_as_pod(&container, &POD_COMMANDS.map(with_prompt).concat());
        println!("\n  Whoever comes second, a thief or the pod, learns that it is too late:\n");
        let second = "VAULT_TOKEN=$(cat vault-token) bao unwrap -field=token";
        let setting = POD_COMMANDS[1];
        self.run_as_pod(&container, &format!("{setting}\n{}", with_prompt(second)));
        umount(&container).expect("the container's end");
    }

    fn run_as_pod(&self, directory: &Path, script: &str) {
        let tools = self.lab.node.path("tools");
        let output = Command::new("setpriv")
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", tools.display()))
            .env("HOME", "/nonexistent")
            .args(["--reuid", POD_USER, "--regid", &POD_GROUP.to_string()])
            .args(["--clear-groups", "--no-new-privs", "bash", "-c"])
            .arg(format!("exec 2>&1\n{script}"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .expect("a process of the pod");
        self.print(&String::from_utf8_lossy(&output.stdout));
    }

    fn show_unmount(&self, volume: &Volume) {
        self.step(
            "5. The pod is gone",
            "The kubelet has the volume unmounted. That works without agent and Vault, too.",
        );
        let what = format!("vaulttmpfs unmount {}", volume.directory.display());
        self.call(&what, &self.lab.kubelet.unmount(volume));
        assert_eq!(self.lab.node.volumes(), [], "nothing is mounted any more");
        let volumes = volume.directory.parent().expect("a directory of volumes");
        self.run(&format!("ls -A {} | wc --lines", volumes.display()));
    }
}

/// A command that shows itself first.
fn with_prompt(command: &str) -> String {
    let quoted = command.replace('\'', r"'\''");
    format!("printf '%s\\n' '{PROMPT}{quoted}'\n{command}\n")
}

/// Lets the namespace know the Vault server's host name, which no resolver does.
fn resolve_vault_host(lab: &Lab) {
    let hosts = lab.node.path("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {VAULT_HOST}\n")).expect("a hosts file");
    bind(&hosts, Path::new("/etc/hosts"));
}

/// Puts Vault's client where a pod that is not root finds it.
fn lend_client(lab: &Lab) {
    let tools = lab.node.path("tools");
    fs::create_dir(&tools).expect("a directory");
    let client = tools.join("bao");
    fs::write(&client, "").expect("a file to mount on");
    bind(Path::new(&format!("/proc/{}/exe", lab.vault.id())), &client);
}

fn bind(what: &Path, place: &Path) {
    mount(
        Some(what),
        place,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("a bind mount");
}
