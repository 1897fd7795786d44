//! The contract between agent, shim and commands: HTTP/1.1 and JSON under `/v1/` on the agent's
//! Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/volumes` [`MountRequest`] | 200 [`VolumeAnswer`] |
//! | `POST /v1/volumes/ID/attached` | 204; 404 the agent does not know the volume; 410 it has ended |
//! | `POST /v1/volumes/ID/adopt` `{mount_dir, accessor}` | 204 taken up; else why not |
//! | `DELETE /v1/volumes?mount_dir=DIR` | 204, known or not |
//! | `GET /v1/volumes`, `GET /v1/status` | 200, without accessors |
//! | `POST /v1/reload` | 204 the generator token in its file is in use; 503 it is not, and why |
//! | `POST /v1/renew-token` | 200 `{ttl_s, period_s}`: the generator token is renewed; else why not |
//! | `POST /v1/revocations/hold`, `POST /v1/revocations/release` | 204 |
//! | `GET /metrics` | 200, in Prometheus' text format |
//! | `GET /healthz`, `GET /readyz` | 200; 503 and why not |
//!
//! Every other answer carries a [`Refusal`]. Unknown fields are ignored on both sides and none
//! changes its meaning within `/v1`: shims in several plugin directories may be older or newer than
//! the agent. All times are milliseconds.
#![forbid(unsafe_code)]

mod mount_dir;
mod volume;

pub use mount_dir::{DRIVER_DIRECTORY, MountDir, MountDirError};
pub use volume::{
    Directory, File, MountRequest, Owner, Refusal, VolumeAnswer, VolumeId, VolumeIdError,
};

/// The variable that names another socket than [`DEFAULT_SOCKET`], for agent, shim and commands alike.
pub const SOCKET_VARIABLE: &str = "VAULTTMPFS_SOCKET";

/// Where the agent listens.
pub const DEFAULT_SOCKET: &str = "/run/vaulttmpfs/agent.sock";

/// The largest request body that the agent reads, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024;

/// The largest answer to a mount that the agent gives and the shim reads, in bytes. Lists of volumes
/// may be longer.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// A volume's tmpfs has this and the volume's id as its source, which `/proc/self/mountinfo` shows:
/// the one sign by which agent and shim know a mount of ours.
pub const SOURCE_PREFIX: &str = "vaulttmpfs:";

/// A driver's program is one of ours when it holds this, its version and [`DRIVER_MARK_END`]: what it
/// says to `--version`.
pub const DRIVER_MARK: &str = "vaulttmpfs-shim ";

/// What follows the version.
pub const DRIVER_MARK_END: &str = " (FlexVolume driver cloudwatt/vaulttmpfs)";

/// The path of the agent's status: `GET`. With the query [`LOOK`] it looks at Vault first.
pub const STATUS_PATH: &str = "/v1/status";

/// The query by which a status is not what was seen last, but what is seen now.
pub const LOOK: &str = "look";

/// The path of the agent's settings, nothing secret among them: `GET`.
pub const SETTINGS_PATH: &str = "/v1/settings";

/// The path of the volumes: `POST`, `DELETE` and `GET`.
pub const VOLUMES_PATH: &str = "/v1/volumes";

/// How a driver's `User-Agent` begins; its version follows. An older one says nothing.
pub const DRIVER_AGENT: &str = "vaulttmpfs-shim/";

/// What the shim may leave behind of a mount's options: keys under this prefix carry Kubernetes
/// secrets, which the agent has no use for.
pub const SECRET_OPTION_PREFIX: &str = "kubernetes.io/secret/";

/// The option by which the kubelet says `ro` or `rw`.
pub const READ_WRITE_OPTION: &str = "kubernetes.io/readwrite";

/// The option that carries the pod's uid, which must be the one in the mount directory.
pub const POD_UID_OPTION: &str = "kubernetes.io/pod.uid";
