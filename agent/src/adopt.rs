//! Taking up a volume that is mounted and that the journal has lost.

use crate::clock::{self, Moment};
use crate::duration;
use crate::failure::{Failure, Reason};
use crate::options::{LifecycleOptions, Pod};
use crate::vault::{Looked, Session};
use crate::volumes::{Accessor, FORMAT, Kind, Origin, Record, State, Volumes};
use secrecy::SecretString;
use std::collections::HashMap;
use std::time::Duration;
use vaulttmpfs_api::{MountDir, VolumeId};

/// The path that a token of a role was created by begins so.
const CREATED_BY_ROLE: &str = "auth/token/create/";

/// Takes a volume up by the accessor that its own files name. Vault must know the token, and know
/// it as this pod's: whoever can write into a volume must not be able to have another's revoked.
///
/// # Errors
/// Nothing is taken up.
pub async fn adopt(
    session: &Session,
    volumes: &Volumes,
    id: VolumeId,
    mount_dir: &str,
    accessor: SecretString,
) -> Result<(), Failure> {
    let refused = |why: String| Failure::new(Reason::BadRequest, why);
    let dir = MountDir::parse(mount_dir).map_err(|error| refused(format!("mount_dir: {error}")))?;
    let Some(turn) = session.turn().await else {
        let why = "Vault cannot be asked now; `vaulttmpfs status` says why";
        return Err(Failure::new(Reason::VaultUnreachable, why));
    };
    let looked = turn.lookup(&accessor).await.map_err(|error| {
        refused(format!(
            "Vault does not confirm the volume's token: {error}"
        ))
    })?;
    if looked.meta.get("poduid").map(String::as_str) != Some(dir.pod_uid()) {
        return Err(refused(
            "Vault knows the volume's token as another pod's".into(),
        ));
    }
    let cluster_id = session.cluster_id().unwrap_or_default();
    let record = record(id, &dir, accessor.into(), looked, volumes, cluster_id);
    volumes.adopt(record).map_err(|error| {
        Failure::new(
            Reason::Journal,
            format!("the volume cannot be taken up: {error}"),
        )
    })
}

fn record(
    id: VolumeId,
    dir: &MountDir,
    accessor: Accessor,
    looked: Looked,
    volumes: &Volumes,
    cluster_id: String,
) -> Record {
    let now = Moment::now();
    let left = Duration::from_secs(looked.ttl).min(duration::LONGEST);
    let whole = Duration::from_secs(looked.period.max(looked.ttl)).min(duration::LONGEST);
    Record {
        format: FORMAT,
        kind: Kind::Token,
        id,
        state: State::Attached,
        mount_dir: dir.as_str().to_owned(),
        pod: pod(dir, &looked.meta),
        role: looked
            .path
            .strip_prefix(CREATED_BY_ROLE)
            .unwrap_or_default()
            .to_owned(),
        policies: looked.policies,
        wishes: LifecycleOptions::default(),
        accessor: Some(accessor),
        created: now,
        ttl_ms: Some(clock::millis(whole)),
        expires: Some(now.after(left)),
        ends: None,
        keep_within: None,
        renewed: Some(now.before(whole.saturating_sub(left))),
        wrapping: None,
        unmanaged: (!looked.renewable).then(|| "the token cannot be renewed".to_owned()),
        lost: false,
        seen: true,
        seen_from: None,
        mount_namespace: None,
        attach_by: 0,
        ended: None,
        owed: Vec::new(),
        origin: Origin {
            cluster_id,
            ..volumes.origin()
        },
    }
}

fn pod(dir: &MountDir, meta: &HashMap<String, String>) -> Pod {
    let of = |key: &str| meta.get(key).cloned().unwrap_or_default();
    Pod {
        uid: dir.pod_uid().to_owned(),
        name: of("pod"),
        namespace: of("namespace"),
        service_account: of("service_account"),
    }
}
