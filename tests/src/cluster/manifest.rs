//! What a user writes: a pod's manifest.

use super::kubelet::NODE;
use super::runtime::IMAGE;
use serde_json::{Map, Value, json};
use vaulttmpfs_api::DRIVER_DIRECTORY;

/// The namespace of all pods.
pub(super) const NAMESPACE: &str = "shop";

/// Where a container sees its volumes, each below its own name.
pub(super) const VOLUMES: &str = "/volumes";

/// A pod with one container.
#[derive(Clone, Debug)]
pub struct PodManifest(Value);

impl PodManifest {
    /// A pod whose container does nothing until it is told to end.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "nodeName": NODE,
                // There is no network to be in but the node's.
                "hostNetwork": true,
                "serviceAccountName": "web",
                "terminationGracePeriodSeconds": 1,
                // What an API server would fill in, and a kubelet cannot do without.
                "dnsPolicy": "Default",
                "enableServiceLinks": false,
                "restartPolicy": "Always",
                "securityContext": {},
                "volumes": [],
                "containers": [{
                    "name": "main",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "volumeMounts": [],
                }],
            },
        }))
        .script("")
    }

    /// Its container runs this first, in the directory of its volumes.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        let whole = format!(
            "trap 'exit 0' TERM; cd {VOLUMES}\n{script}\nwhile :; do sleep 3600 & wait $!; done"
        );
        self.container()["command"] = json!(["/bin/sh", "-c", whole]);
        self
    }

    /// One of the product's volumes.
    #[must_use]
    pub fn volume(self, name: &str, options: &[(&str, &str)]) -> Self {
        let options: Map<String, Value> = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        let driver = DRIVER_DIRECTORY.replace('~', "/");
        let volume = json!({"driver": driver, "fsType": "tmpfs", "options": options});
        self.any_volume(name, "flexVolume", &volume)
    }

    /// `readOnly: true` for the volume that was added last.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.last_volume()["readOnly"] = true.into();
        self
    }

    /// A Kubernetes secret that the driver is given with the volume that was added last.
    #[must_use]
    pub fn secret(mut self, name: &str) -> Self {
        self.last_volume()["secretRef"] = json!({ "name": name });
        self
    }

    /// An emptyDir.
    #[must_use]
    pub fn empty_dir(self, name: &str) -> Self {
        self.any_volume(name, "emptyDir", &json!({}))
    }

    /// A file of the node, for example a program.
    #[must_use]
    pub fn host_file(self, name: &str, path: &str) -> Self {
        self.any_volume(name, "hostPath", &json!({ "path": path }))
    }

    /// The user of its container, and the group that its volumes are for.
    #[must_use]
    pub fn user(mut self, user: u32, fs_group: Option<u32>) -> Self {
        let mut context = json!({"runAsUser": user, "runAsGroup": user});
        if let Some(group) = fs_group {
            context["fsGroup"] = group.into();
        }
        self.0["spec"]["securityContext"] = context;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        crate::text(&self.0["metadata"]["name"])
    }

    pub(super) fn json(&self) -> Value {
        self.0.clone()
    }

    /// As a static pod, which has no service account.
    pub(super) fn of_static_pod(&self) -> Value {
        let mut manifest = self.json();
        let spec = manifest["spec"].as_object_mut().expect("a pod's spec");
        spec.remove("serviceAccountName");
        spec.remove("nodeName");
        manifest
    }

    fn any_volume(mut self, name: &str, kind: &str, source: &Value) -> Self {
        let mount = json!({"name": name, "mountPath": format!("{VOLUMES}/{name}")});
        push(&mut self.container()["volumeMounts"], mount);
        push(
            &mut self.0["spec"]["volumes"],
            json!({"name": name, kind: source}),
        );
        self
    }

    fn container(&mut self) -> &mut Value {
        &mut self.0["spec"]["containers"][0]
    }

    fn last_volume(&mut self) -> &mut Value {
        let volumes = self.0["spec"]["volumes"].as_array_mut();
        let last = volumes.expect("a list").last_mut().expect("a volume");
        &mut last["flexVolume"]
    }
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().expect("a list").push(item);
}
