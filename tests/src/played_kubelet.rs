//! A kubelet's side of the driver: how it prepares a directory, executes the driver and takes its
//! answer, as measured on a real one.

use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::fs;
use std::io::{PipeReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use vaulttmpfs_api::{DRIVER_DIRECTORY, POD_UID_OPTION, READ_WRITE_OPTION, SOCKET_VARIABLE};

/// The driver's own bound is 110 s; one that is later than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A pod, as far as the driver hears of it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account, empty for static pods.
    pub service_account: String,
}

impl Pod {
    /// A pod of the API server's: its uid has dashes.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            uid: random_uuid(),
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
        }
    }

    /// A static pod: its uid is a bare md5 and it has no service account.
    #[must_use]
    pub fn fixed(name: &str) -> Self {
        Self {
            uid: random_uuid().replace('-', ""),
            service_account: String::new(),
            ..Self::new(name)
        }
    }
}

/// A pod's volume and where it is mounted.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Whose it is.
    pub pod: Pod,
    /// Its name in the pod.
    pub name: String,
    /// The mount directory as the kubelet gives it.
    pub directory: PathBuf,
}

impl Volume {
    /// A file's content, without a newline at its end being touched.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        let path = self.directory.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A JSON file's content.
    #[must_use]
    pub fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).expect("a JSON file")
    }

    /// The names of its files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).expect("the volume's directory");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        names.sort();
        names
    }
}

/// The options of one mount, as the kubelet puts them together.
#[derive(Clone, Debug, Default)]
pub struct Options(Map<String, Value>);

impl Options {
    /// What the pod's manifest says under `flexVolume.options`.
    #[must_use]
    pub fn new(options: &[(&str, &str)]) -> Self {
        let pairs = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()));
        Self(pairs.collect())
    }

    /// One more option, or another value for one.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// `readOnly: true`.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.with(READ_WRITE_OPTION, "ro")
    }

    /// `securityContext.fsGroup`.
    #[must_use]
    pub fn fs_group(self, group: u32) -> Self {
        self.with("kubernetes.io/mounterArgs.FsGroup", &group.to_string())
    }

    /// As JSON with the kubelet's own keys; the pod's win, as they do there. Go's JSON writes
    /// `<`, `>` and `&` as escapes.
    fn json(&self, volume: &Volume) -> String {
        let pod = &volume.pod;
        let mut all = Map::new();
        for (key, value) in [
            ("kubernetes.io/fsType", "tmpfs"),
            ("kubernetes.io/pod.name", &pod.name),
            ("kubernetes.io/pod.namespace", &pod.namespace),
            (POD_UID_OPTION, &pod.uid),
            ("kubernetes.io/pvOrVolumeName", &volume.name),
            (READ_WRITE_OPTION, "rw"),
            ("kubernetes.io/serviceAccount.name", &pod.service_account),
        ] {
            all.insert(key.to_owned(), value.into());
        }
        all.extend(self.0.clone());
        let text = Value::Object(all).to_string();
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    }
}

/// What one call of the driver gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `Success`, `Failure` or `Not supported`.
    pub status: String,
    /// The message, empty where there is none.
    pub message: String,
    /// The whole answer.
    pub answer: Value,
    /// From exec to the pipe's end.
    pub took: Duration,
}

impl Outcome {
    /// Fails the test unless it went well.
    #[track_caller]
    pub fn assert_success(&self) {
        assert_eq!(self.status, "Success", "{}", self.message);
    }

    /// Fails the test unless it failed and its message has all these words, in any case.
    #[track_caller]
    pub fn assert_failure(&self, words: &[&str]) {
        assert_eq!(self.status, "Failure", "{}", self.answer);
        let message = self.message.to_lowercase();
        for word in words {
            assert!(
                message.contains(&word.to_lowercase()),
                "no {word:?} in: {}",
                self.message
            );
        }
    }
}

/// A kubelet with one driver installed. Clones are the same one.
#[derive(Clone)]
pub struct Kubelet {
    driver: PathBuf,
    root: PathBuf,
    socket: PathBuf,
    /// What comes before each command: `nsenter`, where the kubelet lives in other namespaces.
    by_way_of: Vec<String>,
    transcript: Arc<Mutex<String>>,
}

impl Kubelet {
    /// A kubelet whose root directory is `root`.
    #[must_use]
    pub fn new(driver: &Path, root: &Path, socket: &Path) -> Self {
        Self {
            driver: driver.to_owned(),
            root: root.to_owned(),
            socket: socket.to_owned(),
            by_way_of: Vec::new(),
            transcript: Arc::default(),
        }
    }

    /// The same with another root directory, for example a symbolic link to this one's.
    #[must_use]
    pub fn with_root(&self, root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ..self.clone()
        }
    }

    /// The same in the mount namespace of this process.
    #[must_use]
    pub fn living_with(&self, process: u32) -> Self {
        Self {
            by_way_of: nsenter(&[&format!("--mount=/proc/{process}/ns/mnt")]),
            ..self.clone()
        }
    }

    /// The same as a process of a machine whose files the calling thread sees as its own.
    pub(crate) fn on_a_machine(&self) -> Self {
        Self {
            by_way_of: nsenter(&["--target=1", "--pid", "--mount", "--uts", "--ipc"]),
            ..self.clone()
        }
    }

    /// A volume of the pod, its directory not yet made.
    #[must_use]
    pub fn volume(&self, pod: &Pod, name: &str) -> Volume {
        let volumes = self.root.join("pods").join(&pod.uid).join("volumes");
        Volume {
            pod: pod.clone(),
            name: name.to_owned(),
            directory: volumes.join(DRIVER_DIRECTORY).join(name),
        }
    }

    /// `init`.
    #[must_use]
    pub fn init(&self) -> Outcome {
        self.call(&["init"])
    }

    /// Makes the directory and calls `mount DIR JSON`.
    #[must_use]
    pub fn mount(&self, volume: &Volume, options: &Options) -> Outcome {
        make_directory(&volume.directory);
        self.call(&self.mount_arguments(volume, options))
    }

    /// The older form, `mount DIR DEVICE JSON`.
    #[must_use]
    pub fn mount_device(&self, volume: &Volume, options: &Options) -> Outcome {
        make_directory(&volume.directory);
        let [verb, directory, options] = self.mount_arguments(volume, options);
        self.call(&[&verb, &directory, "device", &options])
    }

    /// The argv of a mount, the driver's path aside.
    #[must_use]
    pub fn mount_arguments(&self, volume: &Volume, options: &Options) -> [String; 3] {
        let directory = volume.directory.to_str().expect("a path of text");
        [
            "mount".to_owned(),
            directory.to_owned(),
            options.json(volume),
        ]
    }

    /// Calls `unmount DIR` and, after a success, removes the directory as the kubelet does.
    #[must_use]
    pub fn unmount(&self, volume: &Volume) -> Outcome {
        let outcome = self.unmount_only(volume);
        if outcome.status == "Success" {
            fs::remove_dir(&volume.directory).expect("an empty directory after unmount");
        }
        outcome
    }

    /// Calls `unmount DIR` and leaves the directory.
    #[must_use]
    pub fn unmount_only(&self, volume: &Volume) -> Outcome {
        let directory = volume.directory.to_str().expect("a path of text");
        self.call(&["unmount", directory])
    }

    /// A command as the kubelet executes it, its output aside.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let driver = std::iter::once(self.driver.as_os_str());
        let mut words = self.by_way_of.iter().map(OsStr::new).chain(driver);
        let mut command = Command::new(words.next().expect("at least the driver"));
        command
            .args(words)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env(SOCKET_VARIABLE, &self.socket)
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Executes the driver and takes its whole output, on both streams, as one line with one JSON
    /// object.
    #[must_use]
    pub fn call(&self, arguments: &[impl AsRef<OsStr>]) -> Outcome {
        self.run(&mut self.command(arguments))
    }

    /// [`Self::call`] of a command that a test has changed.
    #[must_use]
    pub fn run(&self, command: &mut Command) -> Outcome {
        let begun = Instant::now();
        let (status, output) = execute(command);
        let took = begun.elapsed();
        self.transcript.lock().unwrap().push_str(&output);
        assert!(status.success(), "exit status {status}, output {output:?}");
        let line = output.strip_suffix('\n').unwrap_or(&output);
        assert!(!line.contains('\n'), "more than one line: {output:?}");
        let answer: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("not one JSON object, {error}: {output:?}"));
        let field = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let outcome = Outcome {
            status: field("status"),
            message: field("message"),
            took,
            answer: answer.clone(),
        };
        match outcome.status.as_str() {
            "Success" | "Not supported" => {}
            "Failure" => assert!(
                !outcome.message.is_empty(),
                "a failure without a word: {output:?}"
            ),
            _ => panic!("no status that a kubelet knows: {output:?}"),
        }
        outcome
    }

    /// Everything that the driver ever wrote.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.transcript.lock().unwrap().clone()
    }
}

/// Runs it with both output streams in one pipe, as the kubelet does, and waits for the pipe's end.
fn execute(command: &mut Command) -> (ExitStatus, String) {
    let (output, stdout) = std::io::pipe().expect("a pipe");
    let stderr = stdout.try_clone().expect("a pipe");
    command.stdout(stdout).stderr(stderr);
    let mut process = command.spawn().expect("the driver starts");
    // The command holds the pipe's writing ends until they are replaced.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Some(output) = read_in_time(output) else {
        // It may be gone by now; the test fails all the same.
        let _ = process.kill();
        panic!("no end of the driver's output within {PATIENCE:?}");
    };
    let status = process.wait().expect("the driver's exit status");
    (status, output)
}

fn read_in_time(mut pipe: PipeReader) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let outcome = pipe.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody may be waiting any more.
        let _ = sender.send(outcome);
    });
    let bytes = receiver
        .recv_timeout(PATIENCE)
        .ok()?
        .expect("the driver's output");
    Some(String::from_utf8(bytes).expect("output in UTF-8"))
}

/// As the kubelet makes it: 0750, root's.
fn make_directory(path: &Path) {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(path).expect("the mount directory");
}

fn nsenter(options: &[&str]) -> Vec<String> {
    let words = ["nsenter"].iter().chain(options).chain(&["--"]);
    words.map(|word| (*word).to_owned()).collect()
}

fn random_uuid() -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random uuid");
    uuid.trim_end().to_owned()
}
