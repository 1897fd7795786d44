//! The real kubelet, as a process.

use super::api::ApiServer;
use super::namespaces;
use super::runtime::{PATH, Runtime};
use crate::child::RunAs;
use crate::{Child, Node, binaries, eventually_within};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use vaulttmpfs_api::SOCKET_VARIABLE;

/// The node's name.
pub(super) const NODE: &str = "node-1";

/// Its own port for whoever asks how it is. The network namespace has but one kubelet.
const HEALTH: &str = "127.0.0.1:10248";

const PATIENCE: Duration = Duration::from_secs(90);

/// A real kubelet, which calls the installed driver and starts real containers.
pub struct RealKubelet {
    arguments: Vec<String>,
    agent_socket: PathBuf,
    log: PathBuf,
    manifests: PathBuf,
    process: Option<Child>,
}

impl RealKubelet {
    /// One that is not started.
    pub(super) fn new(node: &Node, runtime: &Runtime, api: &ApiServer) -> Self {
        let path = |relative: &str| node.path(relative).display().to_string();
        let manifests = node.path("manifests");
        fs::create_dir(&manifests).expect("a directory for static pods");
        fs::write(node.path("kubeconfig"), kubeconfig(api.address())).expect("the kubeconfig");
        let socket = runtime.socket();
        let socket = socket.display();
        let arguments = [
            // What it talks to.
            "--container-runtime=remote",
            &format!("--container-runtime-endpoint=unix://{socket}"),
            &format!("--image-service-endpoint=unix://{socket}"),
            &format!("--kubeconfig={}", path("kubeconfig")),
            "--kube-api-content-type=application/json",
            &format!("--hostname-override={NODE}"),
            // Where it keeps what. The first three are what the driver sees of it.
            &format!("--root-dir={}", path("kubelet")),
            &format!("--volume-plugin-dir={}", path("plugins")),
            &format!("--pod-manifest-path={}", path("manifests")),
            &format!("--cert-dir={}", path("pki")),
            "--file-check-frequency=1s",
            // A machine that is none of its own.
            "--cgroup-driver=cgroupfs",
            "--cgroups-per-qos=false",
            &format!("--cgroup-root=/{}", namespaces::cgroup()),
            "--enforce-node-allocatable=",
            "--fail-swap-on=false",
            "--make-iptables-util-chains=false",
            "--feature-gates=DevicePlugins=false",
            "--eviction-hard=",
            "--image-gc-high-threshold=100",
            "--address=127.0.0.1",
            "--read-only-port=0",
            "--authorization-mode=AlwaysAllow",
            // Many pods at once.
            "--max-pods=250",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
            "--event-qps=0",
            "--registry-qps=0",
            "--v=2",
        ]
        .map(str::to_owned)
        .into();
        Self {
            arguments,
            agent_socket: node.socket(),
            log: node.path("kubelet.log"),
            manifests,
            process: None,
        }
    }

    /// Starts it, and waits until it is healthy. It ends with the calling thread.
    pub fn start(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("the kubelet's log");
        let mut command = Child::command(binaries::kubelet().as_os_str(), RunAs::Root);
        command
            .args(&self.arguments)
            .env("PATH", PATH)
            // The driver's whole environment is the kubelet's.
            .env(SOCKET_VARIABLE, &self.agent_socket)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the kubelet's log"))
            .stderr(log);
        let mut process = Child::spawn(&mut command, "the kubelet");
        eventually_within(PATIENCE, "the kubelet to be healthy", || {
            assert!(
                process.ended().is_none(),
                "the kubelet ended:\n{}",
                self.log()
            );
            healthy().then_some(())
        });
        self.process = Some(process);
    }

    /// Asks it to end, and waits until it has. Containers, and calls of the driver, go on.
    pub fn stop(&mut self) {
        self.process.take().expect("a started kubelet").terminate();
    }

    /// kill -9. Containers, and calls of the driver, go on.
    pub fn kill(&mut self) {
        self.process.take().expect("a started kubelet").kill();
    }

    /// What it has written so far, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The directory of static pods' manifests.
    pub(super) fn manifests(&self) -> &PathBuf {
        &self.manifests
    }
}

fn healthy() -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(HEALTH)?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with("ok"))
}

fn kubeconfig(server: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stub", "cluster": {"server": server}}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": ""}}],
        "current-context": "stub",
    });
    config.to_string()
}
