//! Everything together: Vault with the product's side set up, a node, an agent, a kubelet.

use crate::{
    Agent, JOURNAL, Kubelet, Manager, Node, OpenBao, Options, Pod, Proxy, Role, Settings, Storage,
    Vault, Volume, eventually, text,
};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// A name in Vault's certificate that is none of this machine's.
const VAULT_NAME: &str = "vault.test";

/// Where an agent has its generator token: in a file, and as systemd hands one over.
const GENERATOR_TOKEN: &str = "etc/token";
const CREDENTIAL: &str = "run/generator-token";

/// Where a real kubelet's containers keep their own files, below the node's directory.
pub(crate) const CONTAINERS: &str = "containerd";

/// A running whole. When a test is over it looks for secrets where none may be.
pub struct Lab {
    /// The agent.
    pub agent: Agent,
    /// The kubelet.
    pub kubelet: Kubelet,
    /// The node.
    pub node: Node,
    /// The faulty proxy, where one was asked for.
    proxy: Option<Proxy>,
    /// Vault.
    pub vault: OpenBao,
    /// The files that may hold a secret.
    kept: Mutex<Vec<PathBuf>>,
}

/// A whole to be started.
pub struct LabBuilder {
    roles: Vec<Role>,
    settings: Settings,
    proxied: bool,
    agent_as_root: bool,
    supervised: bool,
    vault_name: Option<&'static str>,
    vault: fn() -> OpenBao,
    wait: Wait,
}

/// How far the agent is when a test begins.
enum Wait {
    NotStarted,
    Serving,
    Ready,
}

impl Lab {
    /// One with the recommended role, an agent that runs as the product does, and no proxy.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// One to be changed before it starts.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder {
            roles: vec![Role::applications()],
            settings: Settings::new(),
            proxied: false,
            agent_as_root: false,
            supervised: false,
            vault_name: None,
            vault: OpenBao::start,
            wait: Wait::Ready,
        }
    }

    /// The proxy, which must have been asked for.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a lab with a proxy")
    }

    /// The options of a pod that wants the policy `app`.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::new(&[("vault/policies", "app")])
    }

    /// Mounts a new pod's volume with these options, which must go well.
    #[must_use]
    #[track_caller]
    pub fn mounted(&self, options: &Options) -> Volume {
        let volume = self.kubelet.volume(&Pod::new("web-0"), "vault");
        self.kubelet.mount(&volume, options).assert_success();
        assert_eq!(
            self.node.volumes().len(),
            1,
            "one volume of ours is mounted"
        );
        volume
    }

    /// Unwraps a volume's token as the pod does, with what is in the volume, and returns Vault as
    /// the token's holder sees it.
    #[must_use]
    #[track_caller]
    pub fn unwrap(&self, volume: &Volume) -> Vault {
        let reply = self.vault.root().unwrap(&volume.read("vault-token"));
        assert_eq!(reply.status, 200, "unwrapping: {reply:?}");
        let token = text(&reply.body["auth"]["client_token"]);
        self.vault.root().with_token(&token)
    }

    /// Tries to mount a new pod's volume with these options, which must fail with a message that
    /// has these words, leave nothing mounted and no token that nobody accounts for.
    #[track_caller]
    pub fn assert_refused(&self, options: &Options, words: &[&str]) {
        let volume = self.kubelet.volume(&Pod::new("web-0"), "vault");
        let outcome = self.kubelet.mount(&volume, options);
        outcome.assert_failure(words);
        self.assert_nothing_left();
    }

    /// Nothing of ours is mounted, and every living token is in the journal.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.node.volumes(), [], "mounts left behind");
        self.assert_all_accounted_for();
    }

    /// Every living token of a pod is in the journal, as soon as calls in flight are over.
    #[track_caller]
    pub fn assert_all_accounted_for(&self) {
        eventually("every living token to be in the agent's journal", || {
            // First the tokens: one that is made meanwhile is not looked for.
            let tokens = self.vault.root().pod_tokens();
            let journal = self.node.journal();
            let known = |token: &Value| journal.contains(&text(&token["accessor"]));
            tokens.iter().all(known).then_some(())
        });
    }

    /// How many tokens for pods live.
    #[must_use]
    pub fn living(&self) -> usize {
        self.vault.root().pod_tokens().len()
    }

    /// Puts another generator token where the agent looks for it.
    pub fn write_generator_token(&self, token: &str) {
        // An older one cannot be written over: it is the agent's.
        let _ = fs::remove_file(self.node.path(GENERATOR_TOKEN));
        let _ = self.node.write_for_agent(GENERATOR_TOKEN, token);
    }

    /// One more file that may hold a secret, alone in it and for its owner alone.
    pub fn may_hold_a_secret(&self, path: PathBuf) {
        self.kept.lock().expect("the files' names").push(path);
    }

    fn assert_no_secret_shown(&self) {
        let secrets = self.vault.secrets();
        assert!(!secrets.is_empty(), "no secret is known to look for");
        secrets.assert_absent("the agent's log", &self.agent.log());
        secrets.assert_absent("the driver's output", &self.kubelet.transcript());
        let state = self.node.path("state");
        let mut aside = vec![self.node.path(CONTAINERS)];
        aside.extend(JOURNAL.map(|part| state.join(part)));
        let kept = self.kept.lock().expect("the files' names");
        let files = secrets.assert_in_no_file(&self.node.path(""), &aside, &kept);
        assert!(files > 0, "no file was looked at");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.agent.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            println!("the agent's log ends so:\n{}", tail.join("\n"));
        } else {
            self.assert_no_secret_shown();
        }
    }
}

impl LabBuilder {
    /// One more role.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// The recommended role with these settings changed.
    #[must_use]
    pub fn applications(mut self, changes: &serde_json::Value) -> Self {
        self.roles[0] = Role::new("applications", changes);
        self
    }

    /// Vault keeps its data on disk: it can be stopped, started and restored.
    #[must_use]
    pub fn vault_on_disk(mut self) -> Self {
        self.vault = || OpenBao::start_on(Storage::Disk);
        self
    }

    /// Vault is one that has LDAP among its auth methods.
    #[must_use]
    pub fn vault_with_ldap(mut self) -> Self {
        self.vault = OpenBao::start_with_ldap;
        self
    }

    /// Another environment variable for the agent, or another value for one.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The agent talks to Vault through a faulty proxy.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// The agent runs as root.
    #[must_use]
    pub fn agent_as_root(mut self) -> Self {
        self.agent_as_root = true;
        self
    }

    /// The agent is run as systemd runs it.
    #[must_use]
    pub fn supervised(mut self) -> Self {
        self.supervised = true;
        self
    }

    /// Agent and pods know Vault as `vault.test`, not by an address of this machine.
    #[must_use]
    pub fn vault_by_name(mut self) -> Self {
        self.vault_name = Some(VAULT_NAME);
        self
    }

    /// The agent is not expected to get ready, only to serve.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.wait = Wait::Serving;
        self
    }

    /// The agent is not started.
    #[must_use]
    pub fn without_agent(mut self) -> Self {
        self.wait = Wait::NotStarted;
        self
    }

    /// Starts all of it.
    #[must_use]
    pub fn start(self) -> Lab {
        // First: what is started later lives in the node's namespace.
        let node = Node::new();
        let vault = (self.vault)();
        vault.root().make_secrets();
        vault.root().make_roles(&self.roles);
        let proxy = self.proxied.then(|| Proxy::start(&vault));
        let address = proxy
            .as_ref()
            .map_or_else(|| vault.address().to_owned(), Proxy::address);
        let address = self.vault_name.map_or(address.clone(), |name| {
            node.name_this_machine(name);
            address.replace("127.0.0.1", name)
        });
        let token = vault.root().make_generator_token();
        let authority = vault.authority().certificate();
        let mut settings = base_settings(&node, &address);
        let _ = node.write_for_agent(GENERATOR_TOKEN, &token);
        let _ = node.write_for_agent("etc/ca.crt", &authority);
        settings.extend(self.settings);
        let mut agent = Agent::new(&node, settings);
        if self.agent_as_root {
            agent.run_as_root();
        }
        if self.supervised {
            agent.run_by(Manager::new(&node));
        }
        let kubelet = Kubelet::new(
            &node.install_driver(),
            &node.path("kubelet"),
            &node.socket(),
        );
        let mut lab = Lab {
            agent,
            kubelet,
            kept: Mutex::new([GENERATOR_TOKEN, CREDENTIAL].map(|it| node.path(it)).into()),
            node,
            proxy,
            vault,
        };
        match self.wait {
            Wait::NotStarted => {}
            Wait::Serving => {
                lab.agent.start();
                lab.agent.wait_until_serving();
            }
            Wait::Ready => {
                lab.agent.start();
                lab.agent.wait_until_ready();
            }
        }
        lab
    }
}

/// What every agent of a test needs to know.
fn base_settings(node: &Node, address: &str) -> Settings {
    let path = |relative: &str| -> String {
        let path: PathBuf = node.path(relative);
        path.into_os_string().into_string().expect("a path of text")
    };
    [
        ("VAULTTMPFS_SOCKET", path("run/agent.sock")),
        ("VAULTTMPFS_STATE_DIR", path("state")),
        ("VAULTTMPFS_GENERATOR_TOKEN_PATH", path(GENERATOR_TOKEN)),
        ("VAULT_ADDR", address.to_owned()),
        ("VAULT_CACERT", path("etc/ca.crt")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
