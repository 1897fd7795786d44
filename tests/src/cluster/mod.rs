//! A cluster of one node on which everything is real but the API server: a kubelet, a container
//! runtime, containers, the agent, the driver, Vault.
//!
//! A test of it runs [`in_own_namespaces`]. The kubelet is a [`RealKubelet`]; where a test needs to call
//! the driver itself, that of [`Lab`](crate::Lab), which is played, is there too and has another
//! root directory.

mod api;
mod kubelet;
mod manifest;
mod namespaces;
mod runtime;

pub use kubelet::RealKubelet;
pub use manifest::PodManifest;
pub use namespaces::in_own_namespaces;

use crate::{Lab, LabBuilder, Mount, binaries, eventually_within, mount_table, text};
use api::{ApiServer, MIRROR};
use manifest::{NAMESPACE, VOLUMES};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Runtime;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use vaulttmpfs_api::{DRIVER_DIRECTORY, SOURCE_PREFIX};

/// How long a pod may take to come or go, on a busy machine and with the kubelet's pauses between two
/// tries, which double up to two minutes.
const PATIENCE: Duration = Duration::from_secs(200);

/// A running whole. When a test is over it looks for secrets where none may be.
pub struct Cluster {
    /// Vault, the node, the agent.
    pub lab: Lab,
    /// The kubelet.
    pub kubelet: RealKubelet,
    runtime: Runtime,
    api: ApiServer,
    boots: u32,
}

/// A pod that the kubelet has heard of.
#[derive(Clone, Debug)]
pub struct RealPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Cluster {
    /// Starts all of it, with an agent that is ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Lab::builder())
    }

    /// The same with a lab of the test's own.
    #[must_use]
    pub fn start_with(lab: LabBuilder) -> Self {
        // Pods are never sent to their own node by its loopback address, but by a name they are.
        let lab = lab.vault_by_name().start();
        let runtime = Runtime::start(&lab.node);
        let api = ApiServer::start();
        let kubelet = RealKubelet::new(&lab.node, &runtime, &api);
        let mut cluster = Self {
            lab,
            kubelet,
            runtime,
            api,
            boots: 0,
        };
        cluster.kubelet.start();
        cluster
    }

    /// `kubectl create` of a pod.
    pub fn create(&self, manifest: &PodManifest) -> RealPod {
        let uid = self.api.create(&collection("pods"), manifest.json());
        let name = manifest.name();
        RealPod { name, uid }
    }

    /// Creates a pod and waits until it runs.
    #[track_caller]
    pub fn run(&self, manifest: &PodManifest) -> RealPod {
        let pod = self.create(manifest);
        self.wait_until_running(&pod);
        pod
    }

    /// A Kubernetes secret for [`PodManifest::secret`].
    pub fn create_secret(&self, name: &str, value: &str) {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE},
            // The kubelet gives a driver only secrets of its own type.
            "type": DRIVER_DIRECTORY.replace('~', "/"),
            "data": {"key": value},
        });
        self.api.create(&collection("secrets"), secret);
    }

    /// Puts the manifest of a static pod where the kubelet looks, or another one in its place.
    pub fn write_static_pod(&self, manifest: &PodManifest) {
        let file = self.static_pod_file(manifest);
        // The kubelet does not look at names that begin with a dot.
        let new = file.with_file_name(format!(".{}", manifest.name()));
        fs::write(&new, manifest.of_static_pod().to_string()).expect("a manifest");
        fs::rename(new, file).expect("a manifest");
    }

    /// Removes the manifest of a static pod.
    pub fn remove_static_pod(&self, manifest: &PodManifest) {
        fs::remove_file(self.static_pod_file(manifest)).expect("a manifest");
    }

    fn static_pod_file(&self, manifest: &PodManifest) -> PathBuf {
        let directory = self.kubelet.manifests();
        directory.join(format!("{}.json", manifest.name()))
    }

    /// The static pod of this manifest once the kubelet shows it.
    #[must_use]
    #[track_caller]
    pub fn static_pod(&self, manifest: &PodManifest) -> RealPod {
        let name = format!("{}-{}", manifest.name(), kubelet::NODE);
        let path = format!("{}/{name}", collection("pods"));
        let uid = eventually_within(PATIENCE, "the static pod's mirror", || {
            let uid = self.api.get(&path)?["metadata"]["annotations"][MIRROR].take();
            Some(text(&uid))
        });
        RealPod { name, uid }
    }

    /// `kubectl delete` of a pod.
    pub fn delete(&self, pod: &RealPod) {
        self.api.delete_pod(&pod.path());
    }

    /// Deletes pods, and waits until nothing of them is left.
    #[track_caller]
    pub fn end(&self, pods: &[&RealPod]) {
        for pod in pods {
            self.delete(pod);
        }
        self.wait_until_gone(pods);
    }

    /// Waits until the pod's container runs.
    #[track_caller]
    pub fn wait_until_running(&self, pod: &RealPod) {
        self.wait(pod, "to run", || self.is_running(pod).then_some(()));
    }

    /// Whether the kubelet says that the pod's container runs.
    #[must_use]
    pub fn is_running(&self, pod: &RealPod) -> bool {
        self.api.get(&pod.path()).is_some_and(|object| {
            !object["status"]["containerStatuses"][0]["state"]["running"].is_null()
        })
    }

    /// Waits until nothing of the pods is left: no object, mount, directory, token.
    #[track_caller]
    pub fn wait_until_gone(&self, pods: &[&RealPod]) {
        for pod in pods {
            self.wait_until_unmounted(pod);
        }
        eventually_within(PATIENCE, "the revocation of deleted pods' tokens", || {
            self.tokens_of(pods).is_empty().then_some(())
        });
        for pod in pods {
            self.wait_until_forgotten(pod);
        }
    }

    /// Waits until the API server has no such pod: the kubelet is through with it.
    #[track_caller]
    pub fn wait_until_forgotten(&self, pod: &RealPod) {
        self.wait(pod, "to be gone", || {
            let object = self.api.get(&pod.path());
            // The mirror of a static pod has a uid of its own, and a life.
            object
                .is_none_or(|object| object["metadata"]["uid"] != *pod.uid)
                .then_some(())
        });
    }

    /// Waits until no mount and no directory of the pod's volumes is left.
    #[track_caller]
    pub fn wait_until_unmounted(&self, pod: &RealPod) {
        self.wait(pod, "to be unmounted", || {
            self.mounts_of(pod).is_empty().then_some(())
        });
        self.wait(pod, "to have no volume's directory", || {
            let volumes = fs::read_dir(self.volumes_of(pod));
            (volumes.map_or(0, Iterator::count) == 0).then_some(())
        });
    }

    /// [`eventually_within`] a pod's patience, with all that is known of the pod where it is in vain.
    #[track_caller]
    pub fn wait<T>(&self, pod: &RealPod, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = std::time::Instant::now();
        let what = format!("pod {} {what}", pod.name);
        eventually_within(PATIENCE, &what, || {
            let found = look();
            if found.is_none() && begun.elapsed() + Duration::from_secs(2) > PATIENCE {
                let status = self
                    .api
                    .get(&pod.path())
                    .map(|mut pod| pod["status"].take());
                panic!(
                    "{what}: in vain. Status: {status:?} events: {:?}",
                    self.events_of(pod)
                );
            }
            found
        })
    }

    /// The messages of the pod's events.
    #[must_use]
    pub fn events_of(&self, pod: &RealPod) -> Vec<String> {
        let events = self.api.events_of(&pod.uid);
        events.iter().map(|event| text(&event["message"])).collect()
    }

    /// Waits for an event of the pod whose message has these words.
    #[track_caller]
    pub fn wait_for_event(&self, pod: &RealPod, words: &str) -> String {
        self.wait(
            pod,
            &format!("to have an event that says {words:?}"),
            || {
                let events = self.events_of(pod);
                events.into_iter().find(|message| message.contains(words))
            },
        )
    }

    /// What the pod's containers have written so far.
    #[must_use]
    pub fn output_of(&self, pod: &RealPod) -> String {
        let directory = format!("/var/log/pods/{NAMESPACE}_{}_{}/main", pod.name, pod.uid);
        let Ok(files) = fs::read_dir(directory) else {
            return String::new();
        };
        let texts = files
            .flatten()
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default());
        // Each line begins with a time, a stream's name and F for "whole".
        let text: String = texts.collect();
        let lines = text
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits until the pod's containers have written a line that begins with this word, and returns
    /// the rest of it.
    #[track_caller]
    pub fn wait_for_output(&self, pod: &RealPod, word: &str) -> String {
        self.wait(pod, &format!("to write {word:?}"), || {
            let output = self.output_of(pod);
            let rest = output.lines().find_map(|line| line.strip_prefix(word));
            rest.map(|rest| rest.trim().to_owned())
        })
    }

    /// The directory of the product's volumes of the pod.
    #[must_use]
    pub fn volumes_of(&self, pod: &RealPod) -> PathBuf {
        let pods = self.lab.node.path("kubelet/pods");
        pods.join(&pod.uid).join("volumes").join(DRIVER_DIRECTORY)
    }

    /// The product's mounts for the pod, stacked ones each.
    #[must_use]
    pub fn mounts_of(&self, pod: &RealPod) -> Vec<Mount> {
        let directory = self.volumes_of(pod);
        let mut mounts = mount_table();
        mounts.retain(|mount| {
            mount.source.starts_with(SOURCE_PREFIX) && mount.point.starts_with(&directory)
        });
        mounts
    }

    /// The accessors of the pods' living tokens.
    #[must_use]
    pub fn tokens_of(&self, pods: &[&RealPod]) -> BTreeSet<String> {
        let mut tokens = self.lab.vault.root().pod_tokens();
        tokens.retain(|token| pods.iter().any(|pod| token["meta"]["poduid"] == *pod.uid));
        tokens
            .iter()
            .map(|token| text(&token["accessor"]))
            .collect()
    }

    /// Fails the test unless each of the pods has just one volume, mounted once; returns the accessors
    /// of the tokens in them.
    #[track_caller]
    pub fn tokens_in(&self, pods: &[&RealPod]) -> BTreeSet<String> {
        let token = |pod: &&RealPod| {
            let mounts = self.mounts_of(pod);
            assert_eq!(mounts.len(), 1, "{}: {mounts:?}", pod.name);
            let json = fs::read_to_string(mounts[0].point.join("vault-token.json"));
            let json: Value = serde_json::from_str(&json.expect("the token's file")).expect("JSON");
            text(&json["wrapped_accessor"])
        };
        let tokens: BTreeSet<String> = pods.iter().map(token).collect();
        assert_eq!(tokens.len(), pods.len(), "one token in two volumes");
        tokens
    }

    /// The same, and waits until these tokens are the pods' only living ones.
    #[track_caller]
    pub fn wait_for_volumes(&self, pods: &[&RealPod]) -> BTreeSet<String> {
        let tokens = self.tokens_in(pods);
        // Of an attempt that came to nothing a revocation may be owed.
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
        eventually_within(
            PATIENCE,
            &format!("one living token for each of {names:?}"),
            || (self.tokens_of(pods) == tokens).then_some(()),
        );
        tokens
    }

    /// How many calls of the driver that mount a volume of the pod are under way.
    #[must_use]
    pub fn driver_calls(&self, pod: &RealPod) -> usize {
        let directory = self.volumes_of(pod);
        let sought = format!("\0mount\0{}/", directory.display());
        let calls = processes().filter(|id| {
            let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&sought)
        });
        calls.count()
    }

    /// The program that is to a pod what `vault` is to a person.
    #[must_use]
    pub fn vault_program() -> PathBuf {
        binaries::openbao()
    }

    /// The volume's directory as the pod's container has it.
    #[must_use]
    pub fn inside(volume: &str) -> String {
        format!("{VOLUMES}/{volume}")
    }

    /// The node loses its power: every process on it ends at once, no mount is left, nothing in
    /// memory; disks, the API server and Vault, which are elsewhere, are as they were. Nothing is
    /// started again.
    pub fn cut_power(&mut self) {
        self.kill_everything();
        let root = self.lab.node.path("");
        for mount in self.lab.node.mounts().iter().rev() {
            assert!(mount.point.starts_with(&root));
            umount2(&mount.point, MntFlags::MNT_DETACH).expect("unmounting");
        }
        self.runtime.forget();
        self.boots += 1;
        let boot = self.lab.node.path(&format!("boot-{}", self.boots));
        fs::write(
            &boot,
            format!("00000000-0000-4000-8000-{:012}\n", self.boots),
        )
        .expect("a file");
        namespaces::show_instead(&boot, "/proc/sys/kernel/random/boot_id");
    }

    /// Starts everything again after [`Self::cut_power`].
    pub fn boot(&mut self) {
        self.runtime.start_again();
        self.lab.agent.start();
        self.kubelet.start();
    }

    /// Every process of these namespaces but the first, the test itself and Vault.
    fn kill_everything(&mut self) {
        let spared = [1, std::process::id(), self.lab.vault.id()];
        self.kubelet.kill();
        self.lab.agent.kill();
        eventually_within(PATIENCE, "the end of every process", || {
            let victims: Vec<u32> = processes().filter(|id| !spared.contains(id)).collect();
            for id in &victims {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
            }
            victims.is_empty().then_some(())
        });
    }
}

/// All processes here that have not ended.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        (!status.contains("\nState:\tZ")).then_some(id)
    })
}

impl RealPod {
    fn path(&self) -> String {
        format!("{}/{}", collection("pods"), self.name)
    }
}

fn collection(resource: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{resource}")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let log = self.kubelet.log();
        if std::thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            println!("the kubelet's log ends so:\n{}", tail.join("\n"));
        } else {
            let secrets = self.lab.vault.secrets();
            secrets.assert_absent("the kubelet's log", &log);
            secrets.assert_absent("the pods' events", &self.api.events());
        }
    }
}
