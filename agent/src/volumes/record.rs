//! What is known of one volume: the content of its journal file.

use crate::clock::Moment;
use crate::options::{LifecycleOptions, Pod};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fmt;
use vaulttmpfs_api::VolumeId;

/// The format of the journal's files that this agent writes and reads.
pub const FORMAT: u32 = 1;

/// One volume with its credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// What kind of credential it is.
    pub kind: Kind,
    /// The volume's id.
    pub id: VolumeId,
    /// How far the volume has come.
    pub state: State,
    /// The mount directory as the kubelet names it.
    pub mount_dir: String,
    /// Whom the volume is for.
    pub pod: Pod,
    /// The token role.
    pub role: String,
    /// The token's policies as asked for.
    pub policies: Vec<String>,
    /// What the pod wants of the token's life.
    pub wishes: LifecycleOptions,
    /// The token's accessor; a batch token has none.
    pub accessor: Option<Accessor>,
    /// When the token was made.
    pub created: Moment,
    /// How long the token lives from one renewal to the next, in milliseconds, as far as known.
    pub ttl_ms: Option<u64>,
    /// When the token expires unless renewed, as far as known.
    pub expires: Option<Moment>,
    /// When it expires renewed or not, where it has an explicit max TTL.
    pub ends: Option<Moment>,
    /// The end that the pod asked for. Vault forgets it at the first renewal, taking the role's
    /// instead (tried on `OpenBao`): so no renewal may carry the token beyond.
    pub keep_within: Option<Moment>,
    /// When it was renewed last.
    pub renewed: Option<Moment>,
    /// The wrapping token, where there is one.
    pub wrapping: Option<Wrapping>,
    /// Why the token is not kept alive, if so.
    pub unmanaged: Option<String>,
    /// Vault does not know the token any more, though the volume lives.
    pub lost: bool,
    /// The volume was seen in the mount table in the boot of its origin: then its absence means
    /// something.
    pub seen: bool,
    /// The peer group of mounts from which it spread to the agent that saw it: another agent would see
    /// it, too, where mounts spread from the same.
    #[serde(default)]
    pub seen_from: Option<u64>,
    /// The mount namespace that the shim attaches in. Once the table has shown that mounts come from
    /// there, the absence of others means something, too.
    #[serde(default)]
    pub mount_namespace: Option<u64>,
    /// Until when the shim may attach the volume: milliseconds on `CLOCK_BOOTTIME`.
    pub attach_by: u64,
    /// How and when the volume ended.
    pub ended: Option<Ended>,
    /// What is still to be done at Vault, in this order.
    pub owed: Vec<Debt>,
    /// Where the record belongs.
    pub origin: Origin,
}

/// The wrapping token of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapping {
    /// Its accessor.
    pub accessor: Accessor,
    /// When it expires.
    pub ends: Moment,
    /// What a look shortly before its end has shown; nothing before that look.
    pub unwrapped: Option<bool>,
}

/// The end of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Moment,
    /// By its absence from the mount table alone: it may yet show itself again.
    pub by_absence: bool,
}

/// The kind of a volume's credential. A later kind is one more word here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A token made through a token role.
    Token,
}

/// How far a volume has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The shim has the token, or will have it: nobody has said yet that it is mounted.
    Delivered,
    /// The shim has said, or the mount table has shown, that it is mounted.
    Attached,
    /// The pod has no use for the token any more.
    Ended,
}

/// Something to be done at Vault for a volume that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Debt {
    /// End the wrapping token by its accessor: first, and only while it lives.
    RevokeWrapping,
    /// End the token by its accessor.
    Revoke,
}

/// The machine, boot and Vault that a record belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The host name: a disk that was copied has another node's, if nothing else.
    #[serde(default)]
    pub node: String,
    /// Vault's address.
    pub vault_addr: String,
    /// Vault's namespace.
    pub namespace: Option<String>,
    /// Vault's cluster id; empty where Vault gives none, or was not asked yet.
    pub cluster_id: String,
}

/// An accessor: who has it can end the token. Never printed.
#[derive(Clone)]
pub struct Accessor(SecretString);

impl Accessor {
    /// The accessor's text, for a call to Vault.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The accessor as a secret.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl From<SecretString> for Accessor {
    fn from(accessor: SecretString) -> Self {
        Self(accessor)
    }
}

impl PartialEq for Accessor {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Accessor {}

impl fmt::Debug for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accessor({} characters)", self.expose().len())
    }
}

impl Serialize for Accessor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Accessor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}

impl Record {
    /// The mount table shows it, spread from this peer group.
    pub fn show(&mut self, group: Option<u64>) {
        (self.seen, self.seen_from) = (true, group);
    }

    /// Was it shown so before?
    #[must_use]
    pub fn was_shown(&self, group: Option<u64>) -> bool {
        self.seen && self.seen_from == group
    }

    /// The volume has ended: from here on only what is owed counts. A token without an accessor
    /// owes nothing, it expires by itself; neither does one that is to be left to expire.
    pub fn end(&mut self, now: Moment, by_absence: bool, revoke: bool) {
        self.state = State::Ended;
        self.ended = Some(Ended {
            at: now,
            by_absence,
        });
        self.owed.clear();
        if !(revoke && self.wishes.revoke) {
            return;
        }
        if self.wrapping.is_some() {
            self.owed.push(Debt::RevokeWrapping);
        }
        if self.accessor.is_some() {
            self.owed.push(Debt::Revoke);
        }
    }

    /// The volume shows itself again before anything was done about its end.
    pub fn revive(&mut self) {
        self.state = State::Attached;
        self.ended = None;
        self.owed.clear();
    }

    /// How a person knows the volume: its pod and its name.
    #[must_use]
    pub fn name(&self) -> String {
        let volume = self.mount_dir.rsplit('/').next().unwrap_or_default();
        let pod = if self.pod.name.is_empty() {
            &self.pod.uid
        } else {
            &self.pod.name
        };
        format!("{}/{pod} volume {volume}", self.pod.namespace)
    }

    /// Takes the record over from an earlier boot: its moments count as this boot does.
    pub fn carry_over(&mut self, here: &Origin, now: Moment) {
        let carry = |moment: &mut Moment| *moment = moment.carried_over(now);
        // The clock may have been set back: what has been was before now all the same.
        let carry_past = |moment: &mut Moment| *moment = moment.carried_over(now).min(now);
        carry_past(&mut self.created);
        self.renewed.iter_mut().for_each(carry_past);
        for moment in [&mut self.expires, &mut self.ends, &mut self.keep_within] {
            moment.iter_mut().for_each(carry);
        }
        if let Some(wrapping) = &mut self.wrapping {
            carry(&mut wrapping.ends);
        }
        if let Some(ended) = &mut self.ended {
            carry_past(&mut ended.at);
        }
        (self.seen, self.seen_from) = (false, None);
        self.attach_by = 0;
        self.origin.boot_id.clone_from(&here.boot_id);
    }
}

/// Are these ids the same, as far as both are known?
fn any(one: &str, two: &str) -> bool {
    one == two || one.is_empty() || two.is_empty()
}

impl Origin {
    /// This machine and boot, and the Vault of the settings.
    #[must_use]
    pub fn here(vault_addr: String, namespace: Option<String>) -> Self {
        let first_line = |path: &str| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            machine_id: first_line("/etc/machine-id"),
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            node: first_line("/proc/sys/kernel/hostname"),
            vault_addr,
            namespace,
            cluster_id: String::new(),
        }
    }

    /// Is it this machine's? A machine without an id is any. The id may have been copied with the
    /// disk, and then the other machine's pods live on: so after a boot the host must have the same
    /// name, too. Within a boot it may change.
    #[must_use]
    pub fn same_machine(&self, other: &Self) -> bool {
        any(&self.machine_id, &other.machine_id)
            && (self.boot_id == other.boot_id || any(&self.node, &other.node))
    }

    /// Is it this boot's? Where the boots have no ids (`/proc` may hide them), nothing says that it is
    /// not: then no volume ends by a reboot.
    #[must_use]
    pub fn same_boot(&self, other: &Self) -> bool {
        any(&self.boot_id, &other.boot_id)
    }

    /// Is it the same Vault's? One whose cluster id is not known may be any at its address.
    #[must_use]
    pub fn same_vault(&self, other: &Self) -> bool {
        self.vault_addr == other.vault_addr
            && self.namespace == other.namespace
            && any(&self.cluster_id, &other.cluster_id)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_delays_nothing_that_is_owed() {
        let mut record = attached(1);
        record.end(record.created, false, true);
        let now = Moment {
            boottime: 9000,
            wall: record.created.wall - 86_400_000,
        };
        record.carry_over(&Origin::default(), now);
        assert_eq!(record.ended.map(|ended| ended.at), Some(now));
        assert!(record.expires.is_some_and(|expires| expires > now));
    }

    #[test]
    fn another_vault_is_told_by_its_address_its_namespace_and_its_cluster() {
        let origin = |address: &str, namespace: Option<&str>, cluster: &str| Origin {
            vault_addr: address.into(),
            namespace: namespace.map(str::to_owned),
            cluster_id: cluster.into(),
            ..Origin::default()
        };
        let here = origin("https://vault", Some("team"), "one");
        for (other, same) in [
            (origin("https://vault", Some("team"), "one"), true),
            (origin("https://other", Some("team"), "one"), false),
            (origin("https://vault", Some("other"), "one"), false),
            (origin("https://vault", None, "one"), false),
            (origin("https://vault", Some("team"), "two"), false),
            (origin("https://vault", Some("team"), ""), true),
        ] {
            assert_eq!(other.same_vault(&here), same, "{other:?}");
        }
    }

    /// A volume with a token of an hour, made an hour after boot.
    pub(crate) fn attached(byte: u8) -> Record {
        let created = Moment {
            boottime: 3_600_000,
            wall: 1_800_000_000_000,
        };
        Record {
            format: FORMAT,
            kind: Kind::Token,
            id: VolumeId::from_bytes([byte; 16]),
            state: State::Attached,
            mount_dir: "/k/pods/u/volumes/cloudwatt~vaulttmpfs/v".into(),
            pod: Pod {
                uid: "u".into(),
                name: "p".into(),
                namespace: "n".into(),
                service_account: String::new(),
            },
            role: "applications".into(),
            policies: vec!["app".into()],
            wishes: LifecycleOptions {
                renew: true,
                revoke: true,
            },
            accessor: Some(SecretString::from("inner-accessor").into()),
            created,
            ttl_ms: Some(3_600_000),
            expires: Some(created.after(std::time::Duration::from_secs(3600))),
            ends: None,
            keep_within: None,
            renewed: None,
            wrapping: None,
            unmanaged: None,
            lost: false,
            seen: true,
            seen_from: Some(1),
            mount_namespace: Some(1),
            attach_by: 3_700_000,
            ended: None,
            owed: Vec::new(),
            origin: Origin::default(),
        }
    }
}
