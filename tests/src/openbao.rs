//! A real OpenBao over TLS, with a private authority.

use crate::child::RunAs;
use crate::tcp::free_port;
use crate::{Authority, Child, Secrets, Vault, binaries, eventually, evidence, text};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use ureq::http::Method;

/// How often another port is tried when someone else was faster to take the one found free.
const PORT_TRIES: usize = 5;

/// The names of its files and directories, in its own directory.
const CONFIGURATION: &str = "openbao.hcl";
const DATA: &str = "data";
const SAVED: &str = "saved";

/// Where a server keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In its memory: gone when it stops.
    Memory,
    /// In files (raft).
    Disk,
}

/// A running, unsealed server.
pub struct OpenBao {
    root: Vault,
    unseal_key: String,
    authority: Authority,
    address: String,
    program: PathBuf,
    process: Child,
    directory: TempDir,
}

impl OpenBao {
    /// Starts, initialises and unseals one that keeps its data in memory. It ends with the calling
    /// thread.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(Storage::Memory)
    }

    /// The same, its data kept there.
    #[must_use]
    pub fn start_on(storage: Storage) -> Self {
        Self::start_program(binaries::openbao(), storage)
    }

    /// Starts the last one that had LDAP among its auth methods.
    #[must_use]
    pub fn start_with_ldap() -> Self {
        Self::start_program(binaries::openbao_with_ldap(), Storage::Memory)
    }

    fn start_program(program: PathBuf, storage: Storage) -> Self {
        let authority = Authority::new();
        let directory = tempfile::Builder::new()
            .prefix("vaulttmpfs-openbao-")
            .tempdir()
            .expect("a directory for OpenBao");
        let (process, address) = (0..PORT_TRIES)
            .find_map(|_| start_on_free_port(&program, &authority, &directory, storage))
            .unwrap_or_else(|| panic!("OpenBao does not start: {}", log(&directory)));
        let anyone = Vault::new(&address, &authority.certificate(), "");
        let keys = put(
            &anyone,
            "sys/init",
            &json!({"secret_shares": 1, "secret_threshold": 1}),
        );
        let mut server = Self {
            root: anyone.with_token(&text(&keys["root_token"])),
            unseal_key: text(&keys["keys"][0]),
            authority,
            address,
            program,
            process,
            directory,
        };
        server.unseal();
        server
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Vault as its administrator sees it.
    #[must_use]
    pub fn root(&self) -> &Vault {
        &self.root
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process, to be stopped, continued or killed.
    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Stops it, as its machine's end would.
    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`Self::stop`], where it was, with the data that is on its disk.
    pub fn start_again(&mut self) {
        let process = spawn(&self.program, &self.directory);
        let vault = &self.root;
        self.process = process;
        eventually("OpenBao's first answer", || {
            vault.call(Method::GET, "sys/seal-status", None).ok()
        });
        self.unseal();
    }

    /// Takes a copy of the data on its disk. It is stopped meanwhile.
    pub fn save(&mut self) {
        self.stop();
        self.copy_data(DATA, SAVED);
        self.start_again();
    }

    /// Puts the data back that [`Self::save`] took, as from a backup.
    pub fn restore(&mut self) {
        self.stop();
        fs::remove_dir_all(self.directory.path().join(DATA)).expect("data on the disk");
        self.copy_data(SAVED, DATA);
        self.start_again();
    }

    fn copy_data(&self, from: &str, to: &str) {
        let path = self.directory.path();
        let status = std::process::Command::new("cp")
            .arg("-a")
            .args([path.join(from), path.join(to)])
            .status();
        assert!(status.expect("cp").success(), "{from} cannot be copied");
    }

    /// Seals it: from now on it answers 503 to nearly everything.
    pub fn seal(&self) {
        put(&self.root, "sys/seal", &json!({}));
    }

    /// Unseals it, and waits until it serves.
    pub fn unseal(&mut self) {
        put(&self.root, "sys/unseal", &json!({"key": self.unseal_key}));
        eventually("OpenBao to serve after unsealing", || {
            (self.root.read("sys/health").status == 200).then_some(())
        });
    }

    /// Lets it hang: connections are taken by the kernel, and nothing answers.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Ends what [`Self::freeze`] began.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// The audit log's entries so far, values in the clear.
    #[must_use]
    pub fn audit_log(&self) -> Vec<Value> {
        let path = self.directory.path().join("audit.log");
        let log = fs::read_to_string(path).expect("the audit log");
        // The last line may be on its way.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let entries = whole.lines().map(serde_json::from_str);
        entries
            .collect::<Result<_, _>>()
            .expect("the audit log's entries")
    }

    /// How many requests there were whose path has this in it.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        self.requests(path).len()
    }

    /// By how many connections requests came whose path has this in it.
    #[must_use]
    pub fn connections_of(&self, path: &str) -> usize {
        let requests = self.requests(path);
        let ports = requests
            .iter()
            .map(|entry| entry["request"]["remote_port"].as_u64());
        ports.collect::<Option<BTreeSet<_>>>().expect("ports").len()
    }

    fn requests(&self, path: &str) -> Vec<Value> {
        let mut entries = self.audit_log();
        entries.retain(|entry| {
            entry["type"] == "request"
                && (entry["request"]["path"].as_str()).is_some_and(|its| its.contains(path))
        });
        entries
    }

    /// Every token and accessor that it ever gave or was given.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::of(&self.audit_log())
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        if evidence::is_kept() && !std::thread::panicking() {
            evidence::keep_secrets(&self.secrets());
        }
    }
}

fn put(vault: &Vault, path: &str, body: &Value) -> Value {
    let reply = vault.call(Method::PUT, path, Some(body));
    let reply = reply.unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(reply.status < 300, "{path}: {reply:?}");
    reply.body
}

/// Starts it on a port that was free a moment ago, or returns nothing when it ended at once.
fn start_on_free_port(
    program: &Path,
    authority: &Authority,
    directory: &TempDir,
    storage: Storage,
) -> Option<(Child, String)> {
    let listener = format!("127.0.0.1:{}", free_port());
    let address = format!("https://{listener}");
    write_configuration(authority, directory, &listener, storage);
    let mut process = spawn(program, directory);
    let vault = Vault::new(&address, &authority.certificate(), "");
    let alive = eventually("OpenBao's first answer", || {
        if process.ended().is_some() {
            return Some(false);
        }
        let reply = vault.call(Method::GET, "sys/seal-status", None);
        reply.is_ok().then_some(true)
    });
    alive.then_some((process, address))
}

fn spawn(program: &Path, directory: &TempDir) -> Child {
    let directory = directory.path();
    let output = File::create(directory.join("log")).expect("OpenBao's log");
    let mut command = Child::command(program.as_os_str(), RunAs::Root);
    command
        .args(["server", "-config"])
        .arg(directory.join(CONFIGURATION))
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().expect("OpenBao's log"))
        .stderr(output);
    Child::spawn(&mut command, "OpenBao")
}

fn write_configuration(
    authority: &Authority,
    directory: &TempDir,
    listener: &str,
    storage: Storage,
) {
    let directory = directory.path();
    let identity = authority.identity();
    fs::write(directory.join("server.crt"), identity.certificate).expect("a certificate file");
    fs::write(directory.join("server.key"), identity.key).expect("a key file");
    let cluster = format!("127.0.0.1:{}", free_port());
    let path = directory.join(CONFIGURATION);
    let directory = directory.display();
    let storage = match storage {
        Storage::Memory => "storage \"inmem\" {}".to_owned(),
        Storage::Disk => {
            fs::create_dir_all(path.with_file_name(DATA)).expect("a directory for data");
            format!(
                "storage \"raft\" {{\n  path = \"{directory}/{DATA}\"\n  node_id = \"one\"\n  performance_multiplier = \"1\"\n}}"
            )
        }
    };
    // The audit log holds its values in the clear: so a test knows every secret there ever was.
    let text = format!(
        r#"
{storage}
listener "tcp" {{
  address         = "{listener}"
  cluster_address = "{cluster}"
  tls_cert_file   = "{directory}/server.crt"
  tls_key_file    = "{directory}/server.key"
}}
api_addr     = "https://{listener}"
cluster_addr = "https://{cluster}"
log_level    = "warn"
audit "file" "tests" {{
  options {{
    file_path = "{directory}/audit.log"
    log_raw   = "true"
  }}
}}
"#
    );
    fs::write(path, text).expect("OpenBao's configuration");
}

fn log(directory: &TempDir) -> String {
    fs::read_to_string(directory.path().join("log")).unwrap_or_default()
}
