//! Installed on a node: from the packages, run by a real systemd, with Vault beside it.

mod bootstrap;
mod calls;
mod check;
mod first_pod;
mod journal;
mod machine;
mod metrics;
mod migrate;
mod reboot;
mod removal;
mod rpm;
mod settings;
mod supervision;
mod support_bundle;
mod token;

use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use vaulttmpfs_tests::{
    JOURNAL, Kubelet, Machine, OpenBao, Options, Outcome, Pod, Role, Volume, eventually_within,
    package,
};

const AGENT: &str = "vaulttmpfs-agent.service";
const AGENTS_SOCKET: &str = "vaulttmpfs-agent.socket";
/// Hands a changed token or settings to the agent.
const RELOAD: &str = "vaulttmpfs-reload.service";
const SETTINGS: &str = "/etc/default/vaulttmpfs";
const TOKEN: &str = "/etc/kubernetes/vaulttoken";
/// Where a test has an administrator's own token, which is nothing of the product's.
const LOGIN: &str = "/root/login";
const CA: &str = "/etc/kubernetes/vault-ca.crt";
const STATE: &str = "/var/lib/vaulttmpfs";
/// Where the product, its services and its administrator write.
const WRITTEN: [&str; 6] = ["/etc", "/root", "/run", "/tmp", "/var/log", STATE];
/// The driver in the package.
const DRIVER: &str = "/usr/libexec/vaulttmpfs/vaulttmpfs-shim";
/// The driver where the kubelet looks for it.
const PLACE: &str =
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/cloudwatt~vaulttmpfs/vaulttmpfs";
/// Where a package is on the machine.
const PACKAGE: &str = "/root/vaulttmpfs.deb";

/// What systemd and the agent do at once may take so long on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A volume that vanished without a call is left alone for a minute.
const AFTER_GRACE: Duration = Duration::from_secs(60 + 60);

/// How many pods come and go at once under load.
const CLIENTS: usize = 4;

/// A machine with Vault beside it.
struct Site {
    machine: Machine,
    kubelet: Kubelet,
    vault: OpenBao,
}

impl Site {
    /// One with nothing of the product's on it.
    fn bare() -> Self {
        let machine = Machine::boot();
        let vault = OpenBao::start();
        vault.root().make_secrets();
        vault.root().make_roles(&[Role::applications()]);
        let authority = vault.authority().certificate();
        machine.write(CA, &authority);
        Self {
            kubelet: machine.kubelet(),
            machine,
            vault,
        }
    }

    /// One where an administrator has installed the Debian package, and done what the README says.
    fn installed() -> Self {
        Self::installed_with(&[])
    }

    /// The same with more settings.
    fn installed_with(settings: &[&str]) -> Self {
        let site = Self::bare();
        site.install();
        site.write_settings(SETTINGS, settings);
        site.write_token(&site.vault.root().make_generator_token());
        site.machine.sh(&format!("systemctl start {AGENT}"));
        site.wait_until_ready();
        site
    }

    /// Installs the package as built, or again.
    fn install(&self) -> String {
        self.machine.copy_in(&package("deb"), PACKAGE);
        self.apt(PACKAGE)
    }

    /// `apt-get install` of a file, with what the package's scripts say.
    #[track_caller]
    fn apt(&self, file: &str) -> String {
        let options = "--yes --no-install-recommends --reinstall --allow-downgrades";
        let keep = "-o Dpkg::Options::=--force-confold";
        self.machine
            .sh(&format!("apt-get install {options} {keep} {file} 2>&1"))
    }

    /// Waits until what was changed before is handed to the agent: nothing is watched meanwhile.
    #[track_caller]
    fn wait_until_watched(&self) {
        eventually_within(SOON, "an earlier change to be handed on", || {
            let state = self.machine.property(RELOAD, "ActiveState");
            (state == "inactive").then_some(())
        });
    }

    /// Writes the settings with these beside the ones that each node needs.
    fn write_settings(&self, file: &str, more: &[&str]) {
        self.wait_until_watched();
        let address = format!("VAULT_ADDR={}", self.vault.address());
        let authority = format!("VAULT_CACERT={CA}");
        let lines = [&[address.as_str(), &authority], more].concat();
        self.machine.write(file, &(lines.join("\n") + "\n"));
    }

    /// Writes the generator token as the README says: by rename, for root alone.
    fn write_token(&self, token: &str) {
        self.wait_until_watched();
        let new = format!("{TOKEN}.new");
        self.machine.write(&new, token);
        self.machine
            .sh(&format!("chmod 0400 {new} && mv {new} {TOKEN}"));
    }

    /// Waits until the agent could serve a mount. That alone starts no agent.
    #[track_caller]
    fn wait_until_ready(&self) {
        self.wait_for_status("ready");
    }

    /// Waits until the agent tells systemd something that begins so.
    #[track_caller]
    fn wait_for_status(&self, begin: &str) {
        eventually_within(SOON, &format!("the unit's status {begin:?}"), || {
            self.says().starts_with(begin).then_some(())
        });
    }

    #[track_caller]
    fn wait_for_journal(&self, words: &str) {
        eventually_within(SOON, &format!("{words:?} in the journal"), || {
            self.machine.journal().contains(words).then_some(())
        });
    }

    /// Waits until tokens are made by this one. The agent renews a token, or looks at it, before it takes it.
    #[track_caller]
    fn wait_until_used(&self, token: &str) {
        eventually_within(SOON, "the agent to have the new token", || {
            let volume = self.mount("probe");
            self.unmount(&volume);
            let log = self.vault.audit_log();
            let makes = |entry: &Value| {
                let path = entry["request"]["path"].as_str().unwrap_or_default();
                path.starts_with("auth/token/create/")
                    && entry["request"]["client_token"].as_str() == Some(token)
            };
            log.iter().any(makes).then_some(())
        });
    }

    /// What the agent tells systemd.
    fn says(&self) -> String {
        self.machine.property(AGENT, "StatusText")
    }

    fn main_pid(&self) -> u32 {
        let pid = self.machine.property(AGENT, "MainPID");
        pid.parse().expect("a process id")
    }

    #[track_caller]
    fn assert_active(&self, unit: &str, wanted: bool) {
        let state = self.machine.property(unit, "ActiveState");
        assert_eq!(state == "active", wanted, "{unit} is {state}");
    }

    /// When the socket was made. One that was made anew has lost who waited in it.
    fn socket_since(&self) -> String {
        self.machine
            .property(AGENTS_SOCKET, "ActiveEnterTimestampMonotonic")
    }

    /// Tries to mount a new pod's volume.
    fn try_mount(&self, pod: &str) -> (Volume, Outcome) {
        self.machine.inside(|| {
            let volume = self.kubelet.volume(&Pod::new(pod), "vault");
            let outcome = self.kubelet.mount(&volume, &options());
            (volume, outcome)
        })
    }

    /// Mounts a new pod's volume, which must go well.
    #[track_caller]
    fn mount(&self, pod: &str) -> Volume {
        let (volume, outcome) = self.try_mount(pod);
        outcome.assert_success();
        volume
    }

    /// Tries to mount a new pod's volume, which must fail with a message that has these words.
    #[track_caller]
    fn assert_no_mount(&self, words: &[&str]) {
        let (_, outcome) = self.try_mount("web-0");
        outcome.assert_failure(words);
    }

    #[track_caller]
    fn unmount(&self, volume: &Volume) {
        let outcome = self.machine.inside(|| self.kubelet.unmount(volume));
        outcome.assert_success();
    }

    /// Reads from the agent.
    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = self.machine.call("GET", path, "");
        let answer = answer.unwrap_or_else(|| panic!("no answer to {path}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// What the agent says of a volume, while it knows it.
    fn shown(&self, volume: &Volume) -> Option<Value> {
        let list = self.get("/v1/volumes");
        let volumes = list["volumes"].as_array().cloned().unwrap_or_default();
        let directory = volume.directory.to_str();
        volumes
            .into_iter()
            .find(|one| one["mount_dir"].as_str() == directory)
    }

    /// Waits until this many pods' tokens live.
    #[track_caller]
    fn wait_for_living(&self, number: usize) {
        eventually_within(
            AFTER_GRACE,
            &format!("{number} living tokens of pods"),
            || (self.vault.root().pod_tokens().len() == number).then_some(()),
        );
    }

    /// Does something while [`CLIENTS`] pods after another are mounted and unmounted by each of as
    /// many kubelets' workers. No call may fail. Returns how many there were.
    #[track_caller]
    fn under_load(&self, work: impl FnOnce()) -> usize {
        let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        let client = || {
            self.machine.inside(|| {
                while !over.load(Ordering::Relaxed) {
                    let volume = self.kubelet.volume(&Pod::new("busy"), "vault");
                    self.kubelet.mount(&volume, &options()).assert_success();
                    // Looked at only: a file open here is open in another thread's child, too, until that
                    // executes its program, and keeps the volume in use.
                    let token = std::fs::metadata(volume.directory.join("vault-token"));
                    assert!(token.expect("the token's file").len() > 0);
                    self.kubelet.unmount(&volume).assert_success();
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            });
        };
        std::thread::scope(|scope| {
            let clients = [(); CLIENTS].map(|()| scope.spawn(client));
            // Whatever becomes of the work, the clients are told that it is over.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                wait_for_calls(&calls, 2 * CLIENTS);
                work();
                // What was done last is seen by a call from begin to end.
                wait_for_calls(&calls, calls.load(Ordering::Relaxed) + 4 * CLIENTS);
            }));
            over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().expect("no call of a client fails");
            }
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        calls.into_inner()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let secrets = self.vault.secrets();
            assert!(!secrets.is_empty(), "no secret is known to look for");
            secrets.assert_absent("the journal", &self.machine.journal());
            secrets.assert_absent("the driver's output", &self.kubelet.transcript());
            let mut aside = vec![self.machine.path(LOGIN)];
            aside.extend(JOURNAL.map(|part| self.machine.path(STATE).join(part)));
            let kept = [self.machine.path(TOKEN)];
            for directory in WRITTEN {
                secrets.assert_in_no_file(&self.machine.path(directory), &aside, &kept);
            }
        }
    }
}

fn wait_for_calls(calls: &AtomicUsize, number: usize) {
    eventually_within(SOON, &format!("{number} calls"), || {
        (calls.load(Ordering::Relaxed) >= number).then_some(())
    });
}

fn options() -> Options {
    Options::new(&[("vault/policies", "app")])
}

/// Whether a file of the machine is another's copy.
#[track_caller]
fn assert_same(machine: &Machine, one: &str, other: &str) {
    let read = |path: &str| std::fs::read(machine.path(path)).expect(path);
    assert!(read(one) == read(other), "{one} and {other} differ");
}

/// Makes a package of the same files with another version, whose driver is another too, and returns
/// its path on the machine.
fn repacked(machine: &Machine, version: &str) -> String {
    let path = format!("/root/vaulttmpfs-{version}.deb");
    machine.sh(&format!(
        "files=$(mktemp -d) && dpkg-deb --raw-extract {PACKAGE} $files/root && cd $files/root &&
         sed -i 's/^Version: .*/Version: {version}/' DEBIAN/control &&
         printf '%s' {version} >>.{DRIVER} && rm -f DEBIAN/md5sums &&
         dpkg-deb --root-owner-group -Znone --build . {path} && rm -rf $files"
    ));
    path
}
