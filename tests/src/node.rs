//! A node: a mount namespace with a kubelet's directories and an agent, gone with the test.

use crate::child::RunAs;
use crate::socket::{self, Answer};
use crate::systemd::PASS_SOCKET;
use crate::{Child, Manager, Mount, binaries, eventually, mount_table};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tempfile::TempDir;
use vaulttmpfs_api::{DRIVER_DIRECTORY, SOURCE_PREFIX};

/// Whom the agent runs as: nobody that any machine knows.
const AGENT_USER: u32 = 64_321;

/// A node's directories, on a tmpfs of their own that only its namespace sees.
pub struct Node {
    root: PathBuf,
    // Removed last: the tmpfs is mounted on it.
    _directory: TempDir,
}

/// An agent's environment.
pub type Settings = BTreeMap<String, String>;

impl Node {
    /// Moves the calling thread into a mount namespace of its own. Threads and processes that it
    /// starts from now on are in there with it; everything mounted there ends with them.
    #[must_use]
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "mounting needs root: see tests/README.md"
        );
        umask(Mode::from_bits_truncate(0o022));
        let directory = tempfile::Builder::new()
            .prefix("vaulttmpfs-node-")
            .tempdir()
            .expect("a directory for the node");
        // mountinfo shows paths without symbolic links.
        let root = directory.path().canonicalize().expect("the node's path");
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace (this needs CAP_SYS_ADMIN)");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let plain = MsFlags::empty();
        mount(Some("node"), &root, Some("tmpfs"), plain, Some("mode=0755")).expect("a tmpfs");
        let node = Self {
            root,
            _directory: directory,
        };
        node.make_directories();
        node
    }

    fn make_directories(&self) {
        for (path, mode, owner) in [
            ("kubelet", 0o750, 0),
            ("kubelet/pods", 0o750, 0),
            ("plugins", 0o755, 0),
            ("etc", 0o755, 0),
            ("run", 0o755, AGENT_USER),
            ("state", 0o700, AGENT_USER),
        ] {
            let path = self.path(path);
            fs::create_dir(&path).expect("a directory");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
            chown(&path, Some(owner), Some(owner)).expect("its owner");
        }
    }

    /// A path on the node's own tmpfs.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Lets everybody on the node find this machine under another name.
    pub fn name_this_machine(&self, name: &str) {
        let hosts = self.path("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost {name}\n")).expect("a file of names");
        let (bind, none) = (MsFlags::MS_BIND, None::<&str>);
        mount(Some(&hosts), "/etc/hosts", none, bind, none).expect("a bind mount");
    }

    /// Gives the node a directory of the machine's as its own: what is changed in it, only the node sees.
    pub fn own(&self, directory: &str) {
        own(directory, &self.path("own"));
    }

    /// Writes a file that the agent may read.
    #[must_use]
    pub fn write_for_agent(&self, relative: &str, content: &str) -> PathBuf {
        let path = self.path(relative);
        fs::write(&path, content).expect("a file for the agent");
        fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("its mode");
        chown(&path, Some(AGENT_USER), Some(AGENT_USER)).expect("its owner");
        path
    }

    /// Installs the driver as the kubelet finds it.
    #[must_use]
    pub fn install_driver(&self) -> PathBuf {
        let installed = self.driver();
        let directory = installed.parent().expect("a directory");
        fs::create_dir(directory).expect("the driver's directory");
        fs::copy(binaries::driver(), &installed).expect("a copy of the driver");
        installed
    }

    /// Where the installed driver is.
    #[must_use]
    pub fn driver(&self) -> PathBuf {
        let directory = self.path("plugins").join(DRIVER_DIRECTORY);
        directory.join("vaulttmpfs")
    }

    /// Where the agent's socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("run/agent.sock")
    }

    /// The mounts attached at or below the node's own directory, its tmpfs aside.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        let mut mounts = mount_table();
        mounts.retain(|mount| mount.point.starts_with(&self.root) && mount.point != self.root);
        mounts
    }

    /// The product's mounts on this node.
    #[must_use]
    pub fn volumes(&self) -> Vec<Mount> {
        let mut mounts = self.mounts();
        mounts.retain(|mount| mount.source.starts_with(SOURCE_PREFIX));
        mounts
    }

    /// Everything in the agent's state directory, as text.
    #[must_use]
    pub fn journal(&self) -> String {
        let mut text = String::new();
        let mut pending = vec![self.path("state")];
        while let Some(directory) = pending.pop() {
            // A file may go while one looks.
            for entry in fs::read_dir(directory)
                .expect("the state directory")
                .flatten()
            {
                let path = entry.path();
                if path.is_dir() {
                    pending.push(path);
                } else if let Ok(bytes) = fs::read(&path) {
                    text += &String::from_utf8_lossy(&bytes);
                    text.push('\n');
                }
            }
        }
        text
    }
}

/// Lets whatever this mount namespace changes in a directory go below `layers`, on a tmpfs.
pub(crate) fn own(directory: &str, layers: &Path) {
    let layers = layers.join(directory.replace('/', "-"));
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    for layer in [&upper, &work] {
        fs::create_dir_all(layer).expect("a layer");
    }
    let (upper, work) = (upper.display(), work.display());
    let options = format!("lowerdir={directory},upperdir={upper},workdir={work}");
    let (kind, flags) = (Some("overlay"), MsFlags::empty());
    mount(Some("own"), directory, kind, flags, Some(&*options)).expect("an overlay");
}

/// The journal's records, for tests that need what a real machine does to them: another boot, another
/// machine, a bad sector.
impl Node {
    /// Each record, with its file's path.
    #[must_use]
    pub fn records(&self) -> Vec<(PathBuf, Value)> {
        let entries = fs::read_dir(self.path("state/volumes")).expect("the journal");
        entries
            .flatten()
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .filter_map(|entry| {
                // It may go while one looks.
                let text = fs::read(entry.path()).ok()?;
                Some((entry.path(), serde_json::from_slice(&text).ok()?))
            })
            .collect()
    }

    /// The record of the volume that has or had this directory.
    #[must_use]
    pub fn record_of(&self, directory: &Path) -> Option<Value> {
        let directory = directory.to_str();
        self.records()
            .into_iter()
            .map(|(_, record)| record)
            .find(|record| record["mount_dir"].as_str() == directory)
    }

    /// Changes each record. No agent may be running.
    pub fn change_records(&self, mut change: impl FnMut(&mut Value)) {
        for (path, mut record) in self.records() {
            change(&mut record);
            // In place, so that it stays the agent's.
            fs::write(path, record.to_string()).expect("a record");
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The namespace's end would do, but the directory is to be removed before.
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
    }
}

/// Whether a thread, by its directory in `/proc`, is stopped.
fn stands_still(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, state)| state);
    state.is_some_and(|state| state.starts_with('T'))
}

/// An agent process on a node, and the way to talk to it.
pub struct Agent {
    /// Its environment at the next start.
    pub settings: Settings,
    process: Option<Child>,
    run_as: RunAs,
    /// Whoever passes it its socket and hears how it is, where it does not run by hand.
    manager: Option<Manager>,
    log: PathBuf,
    socket: PathBuf,
}

impl Agent {
    /// An agent not yet started, as the product runs it: a user of its own, no capability.
    #[must_use]
    pub fn new(node: &Node, settings: Settings) -> Self {
        Self {
            process: None,
            settings,
            run_as: RunAs::User(AGENT_USER),
            manager: None,
            log: node.path("agent.log"),
            socket: node.socket(),
        }
    }

    /// Lets it run as root, as an administrator may try.
    pub fn run_as_root(&mut self) {
        self.run_as = RunAs::Root;
    }

    /// Lets it be run as systemd runs it, from its next start on.
    pub fn run_by(&mut self, manager: Manager) {
        self.manager = Some(manager);
    }

    /// Whoever runs it as systemd does.
    #[must_use]
    pub fn manager(&self) -> &Manager {
        self.manager.as_ref().expect("an agent with a manager")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("a started agent").id()
    }

    /// Starts it. It ends with the calling thread.
    pub fn start(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("the agent's log");
        let program = binaries::agent();
        let mut command = match &self.manager {
            None => {
                let mut command = Child::command(program.as_os_str(), self.run_as);
                command.stdin(Stdio::null());
                command
            }
            Some(manager) => {
                let mut command = Child::command("sh".as_ref(), self.run_as);
                command
                    .args(["-c", PASS_SOCKET, "sh"])
                    .arg(program)
                    .stdin(manager.socket())
                    .env("NOTIFY_SOCKET", manager.notify_path());
                command
            }
        };
        command
            .arg("agent")
            .envs(&self.settings)
            .current_dir("/")
            .stdout(log.try_clone().expect("the agent's log"))
            .stderr(log);
        self.process = Some(Child::spawn(&mut command, "the agent"));
    }

    /// Waits until it answers at all.
    pub fn wait_until_serving(&mut self) {
        self.wait_for("/healthz", "the agent to serve");
    }

    /// Waits until it is warm.
    pub fn wait_until_ready(&mut self) {
        self.wait_for("/readyz", "the agent to be ready");
    }

    fn wait_for(&mut self, path: &str, what: &str) {
        eventually(what, || {
            let ended = self.process.as_mut().expect("a started agent").ended();
            assert!(
                ended.is_none(),
                "the agent ended, {ended:?}:\n{}",
                self.log()
            );
            let answer = socket::call(&self.socket, "GET", path, "")?;
            answer.is_success().then_some(())
        });
    }

    /// The process, while there is one.
    pub fn process(&mut self) -> &mut Child {
        self.process.as_mut().expect("a started agent")
    }

    /// Asks it to end, as systemd does, and says how it did.
    pub fn stop(&mut self) -> ExitStatus {
        let status = self.process().terminate();
        self.process = None;
        status
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Lets it hang, as a machine out of memory or an attached debugger does.
    pub fn freeze(&mut self) {
        self.process().signal(Signal::SIGSTOP);
        let threads = format!("/proc/{}/task", self.id());
        eventually("the agent to stand still", || {
            let mut threads = fs::read_dir(&threads).ok()?.flatten();
            threads
                .all(|thread| stands_still(&thread.path()))
                .then_some(())
        });
    }

    /// Ends what [`Self::freeze`] began.
    pub fn thaw(&mut self) {
        self.process().signal(Signal::SIGCONT);
    }

    /// Its environment's `JOURNAL_STREAM`, were its log journald's: device and inode, as
    /// `systemd.exec(5)` has them.
    #[must_use]
    pub fn journal_stream(&self) -> String {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.and_then(|log| log.metadata()).expect("the agent's log");
        format!("{}:{}", log.dev(), log.ino())
    }

    /// What it has written so far, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many connections to its socket it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        const CONNECTED: &str = "03";
        let sockets = fs::read("/proc/thread-self/net/unix").expect("the sockets");
        let sockets = String::from_utf8_lossy(&sockets);
        let socket = self.socket.to_str();
        let is_one = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(5) == Some(&CONNECTED) && words.get(7).copied() == socket
        };
        sockets.lines().filter(is_one).count()
    }

    /// One call on its socket as root.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = socket::call(&self.socket, method, path, body);
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}:\n{}", self.log()))
    }

    /// Reads from its socket, which must go well.
    #[must_use]
    pub fn get(&self, path: &str) -> serde_json::Value {
        let answer = self.call("GET", path, "");
        assert_eq!(answer.status, 200, "GET {path}: {answer:?}");
        answer.json()
    }

    /// The volumes it knows, as it shows them.
    #[must_use]
    pub fn volumes(&self) -> Vec<serde_json::Value> {
        let list = self.get("/v1/volumes");
        list["volumes"]
            .as_array()
            .cloned()
            .expect("a list of volumes")
    }
}
