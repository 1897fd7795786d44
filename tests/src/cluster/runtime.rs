//! The container runtime: containerd with runc, and the one image that all containers are made from.

use crate::child::RunAs;
use crate::lab::CONTAINERS;
use crate::{Child, Node, eventually};
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The image of every container, pods' own ones too: a static busybox.
pub(super) const IMAGE: &str = "vaulttmpfs.test/busybox:1";

/// From Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// Where Debian has ip, containerd and runc.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// containerd. Its containers outlive it.
pub(super) struct Runtime {
    directory: PathBuf,
    process: Option<Child>,
}

impl Runtime {
    /// Starts it, and gives it the image.
    pub(super) fn start(node: &Node) -> Self {
        let mut runtime = Self {
            directory: node.path(CONTAINERS),
            process: None,
        };
        fs::create_dir(&runtime.directory).expect("a directory for containerd");
        runtime.write_configuration();
        runtime.start_again();
        let archive = image_archive(&runtime.directory.join("image"));
        let imported = runtime.ctr(&["images", "import"]).arg(archive).output();
        let imported = imported.expect("ctr");
        assert!(
            imported.status.success(),
            "the image cannot be imported: {imported:?}"
        );
        runtime
    }

    /// Starts it after [`Self::forget`].
    pub(super) fn start_again(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("log"));
        let log = log.expect("containerd's log");
        let mut command = Child::command(OsStr::new("containerd"), RunAs::Root);
        command
            .arg("--config")
            .arg(self.directory.join("config.toml"))
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("containerd's log"))
            .stderr(log);
        self.process = Some(Child::spawn(&mut command, "containerd"));
        eventually("containerd to answer", || {
            let said = self.ctr(&["version"]).output().expect("ctr");
            said.status.success().then_some(())
        });
    }

    /// A reboot: it was killed, and what it keeps below /run is gone.
    pub(super) fn forget(&mut self) {
        self.process = None;
        fs::remove_dir_all(self.directory.join("state")).expect("containerd's state");
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .env("PATH", PATH)
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        command
    }

    fn write_configuration(&self) {
        let directory = self.directory.display();
        let text = format!(
            r#"
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  # A container has no right to a negative one where its makers have none.
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
        );
        fs::write(self.directory.join("config.toml"), text).expect("containerd's configuration");
    }
}

/// Writes the image in the form of `docker save`, and returns its path.
fn image_archive(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)] {
        let path = root.join(path);
        fs::create_dir_all(&path).expect("a directory of the image");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("a copy of busybox");
    for applet in run(Command::new(BUSYBOX).arg("--list")).lines() {
        // busybox itself is in that list.
        let _ = symlink("busybox", root.join("bin").join(applet));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a file");
    let archive = directory.join("archive");
    fs::create_dir(&archive).expect("a directory for the archive");
    let layer = archive.join("layer.tar");
    tar(&layer, &root);
    let configuration = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        // What a pod's own container runs, which holds its namespaces.
        "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    let name = archive.join("config.json");
    fs::write(&name, configuration.to_string()).expect("the image's configuration");
    let manifest = json!([
        {"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]},
    ]);
    fs::write(archive.join("manifest.json"), manifest.to_string()).expect("the manifest");
    let file = directory.join("image.tar");
    tar(&file, &archive);
    file
}

fn tar(file: &Path, directory: &Path) {
    run(Command::new("tar")
        .arg("-cf")
        .arg(file)
        .arg("-C")
        .arg(directory)
        .arg("."));
}

fn sha256(file: &Path) -> String {
    let said = run(Command::new("sha256sum").arg(file));
    said.split(' ').next().unwrap_or_default().to_owned()
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
