//! A stub of an API server, for one kubelet: it keeps objects in memory, lists them, and tells of
//! changes. Plain HTTP on loopback; no validation, no admission, no other controller.
//!
//! It knows just what a kubelet 1.20 asks for with `--kube-api-content-type=application/json`.

use crate::http::{Request, read_request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a watcher waits for a change before it looks again whether its time is over.
const TICK: Duration = Duration::from_secs(1);

/// How long a watch lasts that does not say.
const WATCH: Duration = Duration::from_secs(300);

/// The annotation by which a kubelet shows a static pod, with that pod's real uid.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// A running stub. Clones are the same one. It ends with the process.
#[derive(Clone)]
pub(super) struct ApiServer {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By path, as in `/api/v1/namespaces/shop/pods/web`.
    objects: BTreeMap<String, Value>,
    /// Everything that ever happened; its length is the newest resource version.
    changes: Vec<Change>,
    /// The kubelet's events, as it posted them.
    events: Vec<Value>,
}

struct Change {
    kind: &'static str,
    path: String,
    object: Value,
}

/// A path of the API, taken apart.
struct Place {
    /// `/api/v1/namespaces/shop/pods` in a namespace, `/api/v1/nodes` else.
    collection: String,
    /// `v1` or `GROUP/VERSION`.
    version: String,
    resource: String,
    name: Option<String>,
    /// As in `status`.
    part: Option<String>,
    query: Vec<(String, String)>,
}

impl ApiServer {
    /// Starts one on a free port.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the API server");
        let port = listener.local_addr().expect("its port").port();
        let server = Self {
            address: format!("http://127.0.0.1:{port}"),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&server.shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A kubelet that is killed closes in the middle: nobody's failure.
                std::thread::spawn(move || shared.serve(connection));
            }
        });
        server
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Makes an object, as `kubectl create` does, and returns its uid.
    pub(super) fn create(&self, collection: &str, object: Value) -> String {
        let object = self.shared.create(collection, object);
        crate::text(&object["metadata"]["uid"])
    }

    /// The object at this path, while there is one.
    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.shared.lock().objects.get(path).cloned()
    }

    /// Asks for a pod's deletion, as `kubectl delete` does: the kubelet does it.
    pub(super) fn delete_pod(&self, path: &str) {
        let mut state = self.shared.lock();
        mark_deleted(&mut state, path).expect("a pod to delete");
        self.shared.changed.notify_all();
    }

    /// All events so far whose object has this uid.
    pub(super) fn events_of(&self, uid: &str) -> Vec<Value> {
        let mut events = self.shared.lock().events.clone();
        events.retain(|event| event["involvedObject"]["uid"] == uid);
        events
    }

    /// All events so far, as text.
    pub(super) fn events(&self) -> String {
        Value::from(self.shared.lock().events.clone()).to_string()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the stub panics")
    }

    fn serve(&self, connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let mut stream = BufReader::new(connection);
        while let Some(request) = read_request(&mut stream)? {
            let to = stream.get_mut();
            let Some(place) = Place::parse(&request.path) else {
                answer(to, 404, &status("NotFound"))?;
                continue;
            };
            if request.method == "GET" && place.name.is_none() && place.asks("watch") {
                return self.watch(to, &place);
            }
            let (code, body) = self.handle(&request, &place);
            answer(to, code, &body)?;
        }
        Ok(())
    }

    fn handle(&self, request: &Request, place: &Place) -> (u16, Value) {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        match (request.method.as_str(), &place.name) {
            ("GET", None) => (200, self.list(place)),
            ("POST", _) if place.part.is_some() => (201, body),
            ("POST" | "PATCH", _) if place.resource == "events" => {
                self.lock().events.push(body.clone());
                (201, body)
            }
            ("POST", _) => (201, self.create(&place.collection, body)),
            (_, Some(name)) => {
                let path = format!("{}/{name}", place.collection);
                let object = match request.method.as_str() {
                    "GET" => self.lock().objects.get(&path).cloned(),
                    "PUT" => self.change(&path, |object| {
                        let uid = object["metadata"]["uid"].take();
                        *object = body;
                        object["metadata"]["uid"] = uid;
                    }),
                    "PATCH" => self.change(&path, |object| merge(object, body)),
                    "DELETE" => self.delete(&path, &body),
                    _ => None,
                };
                object.map_or((404, status("NotFound")), |object| (200, object))
            }
            _ => (405, status("MethodNotAllowed")),
        }
    }

    fn list(&self, place: &Place) -> Value {
        let state = self.lock();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(path, _)| place.covers(path))
            .map(|(_, object)| object)
            .collect();
        json!({
            "kind": place.kind_of_list(),
            "apiVersion": place.version,
            "metadata": {"resourceVersion": state.changes.len().to_string()},
            "items": items,
        })
    }

    /// Tells of each change since the version that the watcher knows, until its time is over.
    fn watch(&self, to: &mut TcpStream, place: &Place) -> io::Result<()> {
        to.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
        )?;
        let asked = |name: &str| place.ask(name).and_then(|value| value.parse().ok());
        let until =
            std::time::Instant::now() + asked("timeoutSeconds").map_or(WATCH, Duration::from_secs);
        let mut state = self.lock();
        let mut known = asked("resourceVersion").map_or(state.changes.len(), |version: u64| {
            usize::try_from(version).expect("a resource version")
        });
        while std::time::Instant::now() < until {
            let news: String = state
                .changes
                .iter()
                .skip(known)
                .filter(|change| place.covers(&change.path))
                .map(|change| {
                    json!({"type": change.kind, "object": change.object}).to_string() + "\n"
                })
                .collect();
            known = state.changes.len();
            if news.is_empty() {
                let waited = self.changed.wait_timeout(state, TICK);
                state = waited.expect("no thread of the stub panics").0;
            } else {
                drop(state);
                to.write_all(news.as_bytes())?;
                state = self.lock();
            }
        }
        Ok(())
    }

    fn create(&self, collection: &str, mut object: Value) -> Value {
        let mut state = self.lock();
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random uuid");
        let metadata = &mut object["metadata"];
        metadata["uid"] = uuid.trim_end().into();
        metadata["creationTimestamp"] = timestamp(0).into();
        let path = format!("{collection}/{}", crate::text(&metadata["name"]));
        state.put("ADDED", &path, object.clone());
        self.changed.notify_all();
        state.objects[&path].clone()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Value)) -> Option<Value> {
        let mut state = self.lock();
        let mut object = state.objects.get(path)?.clone();
        change(&mut object);
        state.put("MODIFIED", path, object);
        self.changed.notify_all();
        state.objects.get(path).cloned()
    }

    /// What the kubelet deletes is gone when it gives no time, or is but the image of a static pod.
    fn delete(&self, path: &str, options: &Value) -> Option<Value> {
        let mut state = self.lock();
        let object = state.objects.get(path)?.clone();
        let mirror = !object["metadata"]["annotations"][MIRROR].is_null();
        if options["gracePeriodSeconds"] == 0 || mirror || !path.contains("/pods/") {
            state.objects.remove(path);
            state.record("DELETED", path, object.clone());
        } else {
            mark_deleted(&mut state, path)?;
        }
        self.changed.notify_all();
        Some(object)
    }
}

impl State {
    fn put(&mut self, kind: &'static str, path: &str, mut object: Value) {
        object["metadata"]["resourceVersion"] = (self.changes.len() + 1).to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        self.record(kind, path, object);
    }

    fn record(&mut self, kind: &'static str, path: &str, object: Value) {
        let path = path.to_owned();
        self.changes.push(Change { kind, path, object });
    }
}

fn mark_deleted(state: &mut State, path: &str) -> Option<()> {
    let mut object = state.objects.get(path)?.clone();
    object["metadata"]["deletionTimestamp"] = timestamp(1).into();
    object["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    state.put("MODIFIED", path, object);
    Some(())
}

impl Place {
    fn parse(path: &str) -> Option<Self> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let before = parts.len() - rest.len();
        let (collection, rest) = match rest {
            ["namespaces", _, _, rest @ ..] => (before + 3, rest),
            [_, rest @ ..] => (before + 1, rest),
            [] => return None,
        };
        let text = |part: &&str| (*part).to_owned();
        Some(Self {
            version,
            collection: format!("/{}", parts[..collection].join("/")),
            resource: parts[collection - 1].to_owned(),
            name: rest.first().map(text),
            part: rest.get(1).map(text),
            query: query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// For all that a kubelet lists.
    fn kind_of_list(&self) -> String {
        let kind = match self.resource.as_str() {
            "pods" => "Pod",
            "nodes" => "Node",
            "services" => "Service",
            "secrets" => "Secret",
            "configmaps" => "ConfigMap",
            "csidrivers" => "CSIDriver",
            "runtimeclasses" => "RuntimeClass",
            _ => "",
        };
        format!("{kind}List")
    }

    fn ask(&self, name: &str) -> Option<&str> {
        let pair = self.query.iter().find(|(key, _)| key == name)?;
        Some(&pair.1)
    }

    fn asks(&self, name: &str) -> bool {
        matches!(self.ask(name), Some("1" | "true"))
    }

    /// Whether an object is in this collection. One without a namespace in its path has those of
    /// all namespaces.
    fn covers(&self, path: &str) -> bool {
        let (parent, _) = path.rsplit_once('/').expect("an object's path");
        let (root, resource) = self
            .collection
            .rsplit_once('/')
            .expect("a collection's path");
        parent == self.collection
            || parent
                .strip_prefix(root)
                .and_then(|rest| rest.strip_prefix("/namespaces/"))
                .is_some_and(|rest| {
                    rest.split_once('/')
                        .is_some_and(|(_, last)| last == resource)
                })
    }
}

/// As JSON merge patch has it, without the instructions of a strategic one: lists are replaced whole.
fn merge(object: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !object.is_object() {
                *object = json!({});
            }
            for (name, value) in patch.into_iter().filter(|(name, _)| !name.starts_with('$')) {
                if value.is_null() {
                    object.as_object_mut().expect("an object").remove(&name);
                } else {
                    merge(&mut object[name], value);
                }
            }
        }
        other => *object = other,
    }
}

fn status(reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason})
}

fn answer(to: &mut TcpStream, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    to.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())
}

/// A moment as Kubernetes writes it, so many seconds from now.
fn timestamp(from_now: u64) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.expect("a clock after 1970").as_secs() + from_now;
    let date = std::process::Command::new("date")
        .args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date"])
        .arg(format!("@{seconds}"))
        .output()
        .expect("date");
    String::from_utf8_lossy(&date.stdout).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_covers_its_objects_and_those_of_all_namespaces() {
        let all = Place::parse("/api/v1/pods?watch=true&x=1").unwrap();
        assert!(all.asks("watch") && all.asks("x") && !all.asks("y"));
        assert_eq!(
            (all.version.as_str(), all.kind_of_list().as_str()),
            ("v1", "PodList")
        );
        assert!(all.covers("/api/v1/namespaces/shop/pods/web"));
        assert!(!all.covers("/api/v1/namespaces/shop/secrets/web"));
        let one = Place::parse("/api/v1/namespaces/shop/pods/web/status").unwrap();
        assert_eq!(one.collection, "/api/v1/namespaces/shop/pods");
        assert_eq!(
            (one.name.as_deref(), one.part.as_deref()),
            (Some("web"), Some("status"))
        );
        assert!(!one.covers("/api/v1/namespaces/other/pods/web"));
        let lease =
            Place::parse("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases").unwrap();
        assert_eq!((lease.resource.as_str(), lease.name), ("leases", None));
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(
            &mut object,
            json!({"a": {"b": null, "d": 3, "$x": 4}, "l": [3]}),
        );
        assert_eq!(object, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
    }
}
