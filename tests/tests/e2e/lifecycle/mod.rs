//! A token lives exactly as long as its pod's volume: renewed, revoked, and nothing lost in a crash.

pub(crate) mod clock;
mod day;
mod journal;
mod living;
mod lost;
mod renewal;
mod restart;
mod revocation;
mod rights;
mod settings;
mod storm;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::time::Duration;
use vaulttmpfs_tests::{AFTER_UNMOUNT, Lab, Options, Pod, Role, Volume, eventually_within, text};

const RENEW: &str = "POST /v1/auth/token/renew-accessor";
const REVOKE: &str = "POST /v1/auth/token/revoke-accessor";
const LOOK_UP: &str = "POST /v1/auth/token/lookup-accessor";

/// What the agent does at once may take so long on a busy machine, its pauses between two tries to
/// reach Vault included, and hearing too late of an unmount.
const SOON: Duration = AFTER_UNMOUNT;

/// A volume that vanished without a call is left alone for a minute.
const AFTER_GRACE: Duration = Duration::from_secs(60 + 60);

/// Both accessors of a volume's token, as the journal has them: the token's and its wrapping's.
#[derive(Clone, Debug)]
struct Accessors(Vec<String>);

impl Accessors {
    #[track_caller]
    fn of(lab: &Lab, volume: &Volume) -> Self {
        let record = lab.node.record_of(&volume.directory).expect("its record");
        let both = [&record["accessor"], &record["wrapping"]["accessor"]];
        Self(
            both.iter()
                .filter_map(|one| one.as_str())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn living(&self, lab: &Lab) -> usize {
        let root = lab.vault.root();
        self.0
            .iter()
            .filter(|one| root.lookup_accessor(one).is_some())
            .count()
    }

    #[track_caller]
    fn assert_alive(&self, lab: &Lab) {
        assert_eq!(self.living(lab), self.0.len(), "tokens of a living volume");
    }

    #[track_caller]
    fn wait_until_revoked(&self, lab: &Lab, within: Duration) {
        eventually_within(within, "the revocation of all its accessors", || {
            (self.living(lab) == 0).then_some(())
        });
    }
}

/// Mounts a new pod's volume, which must go well.
#[track_caller]
fn mounted(lab: &Lab, pod: &str, options: &Options) -> Volume {
    let volume = lab.kubelet.volume(&Pod::new(pod), "vault");
    lab.kubelet.mount(&volume, options).assert_success();
    volume
}

/// What the agent says of a volume, while it knows it.
fn shown(lab: &Lab, volume: &Volume) -> Option<Value> {
    let directory = volume.directory.to_str();
    lab.agent
        .volumes()
        .into_iter()
        .find(|one| one["mount_dir"].as_str() == directory)
}

#[track_caller]
fn wait_for_state(lab: &Lab, volume: &Volume, state: &str) {
    eventually_within(SOON, &format!("a volume to be {state}"), || {
        (shown(lab, volume)?["state"] == state).then_some(())
    });
}

#[track_caller]
fn wait_until_seen(lab: &Lab, volume: &Volume) {
    eventually_within(SOON, "a volume to be seen in the mount table", || {
        (shown(lab, volume)?["seen"] == true).then_some(())
    });
}

#[track_caller]
fn wait_for_log(lab: &Lab, words: &str) {
    eventually_within(SOON, &format!("{words:?} in the log"), || {
        lab.agent.log().contains(words).then_some(())
    });
}

/// `umount` by an administrator's hand.
#[track_caller]
fn unmount_by_hand(volume: &Volume) {
    umount2(&volume.directory, MntFlags::empty()).expect("an umount by hand");
}

/// Mounts something that looks like the volume with this source, as when it shows itself again.
#[track_caller]
fn mount_by_hand(volume: &Volume, source: &str) {
    let (kind, none) = (Some("tmpfs"), None::<&str>);
    mount(
        Some(source),
        &volume.directory,
        kind,
        MsFlags::empty(),
        none,
    )
    .expect("a mount by hand");
}

#[track_caller]
fn source_of(lab: &Lab, volume: &Volume) -> String {
    let id = &shown(lab, volume).expect("a volume that the agent knows")["id"];
    format!("vaulttmpfs:{}", text(id))
}

/// The agent has time to do something that it must not do. The one place where time itself is
/// waited for: no condition tells that something does not happen.
fn give_time(duration: Duration) {
    std::thread::sleep(duration);
}

/// A role for pods that want their token unwrapped.
fn plain_role(period: &str) -> Role {
    Role::new("plain", &json!({ "period": period }))
}

/// The options of a pod that wants its token unwrapped.
fn plain(lab: &Lab) -> Options {
    lab.options()
        .with("vault/role", "plain")
        .with("vault/unwrap", "true")
}

/// How long a token has lived, as Vault has it: its age in seconds.
fn age(lab: &Lab, accessor: &str) -> Option<u64> {
    let made = lab.vault.root().lookup_accessor(accessor)?["creation_time"].as_u64()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Some(
        now.expect("a clock after 1970")
            .as_secs()
            .saturating_sub(made),
    )
}

/// What is wrong though the agent serves, as one text.
fn concerns(lab: &Lab) -> String {
    lab.agent.get("/v1/status")["concerns"].to_string()
}

fn owed(lab: &Lab) -> u64 {
    lab.agent.get("/v1/status")["volumes"]["owed"]
        .as_u64()
        .expect("a number")
}
