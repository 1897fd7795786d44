//! The verbs, done.

use crate::agent::{Agent, Delivery, Told};
use crate::clock::{Deadline, boottime};
use crate::mount::{self, Place, Shape, Tmpfs, Top};
use crate::{Answer, Call, Options, answer};
use std::env;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;
use vaulttmpfs_api::{DEFAULT_SOCKET, MountDir, MountRequest, SOCKET_VARIABLE};

/// What `--help` says.
const HELP: &str = "\
The FlexVolume driver cloudwatt/vaulttmpfs. The kubelet calls it, a person hardly ever:
  init                        what the driver can do
  mount DIR [DEVICE] JSON     asks the vaulttmpfs agent for a volume and mounts it
  unmount DIR                 unmounts it
Every call answers with one line of JSON and exit code 0. VAULTTMPFS_SOCKET names another socket
than /run/vaulttmpfs/agent.sock. What the agent does: `vaulttmpfs status`, `vaulttmpfs volumes`.";

/// Also the mark by which a file is known to be this driver: see `vaulttmpfs_api::DRIVER_MARK`.
const VERSION: &str = concat!(
    "vaulttmpfs-shim ",
    env!("CARGO_PKG_VERSION"),
    " (FlexVolume driver cloudwatt/vaulttmpfs)"
);

/// The longest path of a Unix socket: `sockaddr_un` has 108 bytes, one of them for the NUL.
const MAX_SOCKET_PATH: usize = 107;

/// How often one call asks for a volume when the agent ends each as soon as it is attached.
const ATTEMPTS: usize = 3;

/// What a call depends on besides its arguments.
pub struct Settings {
    /// The agent's socket, or why there is none.
    pub socket: Result<PathBuf, String>,
    /// How long things may take.
    pub bounds: Bounds,
}

/// How long things may take at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A whole mount. The pod's wait gives up after 2 min 3 s.
    pub mount: Duration,
    /// Asking the agent whether a volume that is mounted already may stay.
    pub confirm: Duration,
    /// Telling the agent that a volume is attached.
    pub attached: Duration,
    /// Waiting for another call that holds the directory, before an unmount.
    pub unmount: Duration,
    /// Telling the agent that a volume is unmounted.
    pub unmounted: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            mount: Duration::from_secs(110),
            confirm: Duration::from_millis(500),
            attached: Duration::from_secs(2),
            unmount: Duration::from_secs(30),
            unmounted: Duration::from_millis(500),
        }
    }
}

impl Settings {
    /// The settings of a call by the kubelet, whose environment it inherits.
    #[must_use]
    pub fn from_environment() -> Self {
        Self {
            socket: socket(env::var_os(SOCKET_VARIABLE).map(PathBuf::from)),
            bounds: Bounds::default(),
        }
    }
}

fn socket(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let path = match named {
        Some(path) if !path.as_os_str().is_empty() => path,
        _ => return Ok(DEFAULT_SOCKET.into()),
    };
    if !path.is_absolute() {
        return Err(format!("{SOCKET_VARIABLE} must be an absolute path"));
    }
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(format!(
            "{SOCKET_VARIABLE} is longer than {MAX_SOCKET_PATH} bytes, the longest path of a Unix socket"
        ));
    }
    Ok(path)
}

impl Call {
    /// Does what is asked for. The settings are read only by calls that need them.
    pub fn answer(self, settings: impl FnOnce() -> Settings) -> Answer {
        match self {
            Self::Init => Answer::Capabilities,
            Self::Mount { dir, options } => done(mount(&dir, &options, settings())),
            Self::Unmount { dir } => done(unmount(&dir, settings())),
            Self::Unknown => Answer::NotSupported,
            Self::Help => Answer::Text(HELP),
            Self::Version => Answer::Text(VERSION),
            Self::Wrong(why) => Answer::Failure(why),
        }
    }
}

/// Why a call failed, in words for the pod's events.
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn done(outcome: Result<(), Failure>) -> Answer {
    match outcome {
        Ok(()) => Answer::Success,
        Err(Failure(message)) => Answer::Failure(message),
    }
}

fn mount(dir: &MountDir, options: &str, settings: Settings) -> Result<(), Failure> {
    let bounds = settings.bounds;
    let until = Deadline::after(bounds.mount);
    let options = Options::parse(options)?;
    options.check_pod(dir)?;
    let mut agent = Agent::new(settings.socket?);
    let place = Place::open(dir.kubelet_root(), dir.tail(), until)?;
    if stands(&place, &mut agent, bounds, until)? {
        return Ok(());
    }
    // The kubelet relabels a volume unless it is read-only: then nobody would.
    let label = options.read_only() && mount::selinux_enabled();
    let mut request = MountRequest {
        mount_dir: dir.as_str().into(),
        options: options.into_map(),
        left_ms: 0,
        mount_namespace: mount::namespace(),
    };
    for _ in 0..ATTEMPTS {
        let reply = agent.volume(&mut request, until)?;
        let delivery = Delivery::parse(reply.body())?;
        let volume = filled(&delivery, label)?;
        if boottime() >= delivery.attach_by() {
            return Err("the volume came too late to be attached (was the machine asleep?); the kubelet will come again".into());
        }
        place.attach(&volume)?;
        answer::volume_stands(true);
        drop(volume);
        match agent.attached(delivery.id(), Deadline::after(bounds.attached).min(until)) {
            Told::Stays => return Ok(()),
            Told::Ended => {
                answer::volume_stands(false);
                place.take_down(until)?;
            }
        }
    }
    Err(format!("the agent ended the volume {ATTEMPTS} times as soon as it was mounted: see `journalctl -u vaulttmpfs-agent`").into())
}

/// Whether a volume is mounted already that may stay: the kubelet was killed during a mount and calls
/// again. One that the agent has ended is taken down.
fn stands(
    place: &Place,
    agent: &mut Agent,
    bounds: Bounds,
    until: Deadline,
) -> Result<bool, Failure> {
    loop {
        match place.top()? {
            Top::Nothing => return Ok(false),
            Top::Foreign(what) => return Err(foreign(&what)),
            Top::Ours(id) => match agent.attached(id, Deadline::after(bounds.confirm).min(until)) {
                Told::Stays => return Ok(true),
                Told::Ended => place.take_down(until)?,
            },
        }
    }
}

/// The volume's tmpfs with its files, attached nowhere yet.
fn filled(delivery: &Delivery<'_>, label: bool) -> Result<Tmpfs, Failure> {
    let directory = delivery.directory();
    let volume = Tmpfs::new(&Shape {
        id: delivery.id(),
        size: directory.size,
        files: delivery.count(),
        mode: directory.mode,
        owner: directory.owner,
        label,
    })?;
    for file in delivery.files() {
        let file = file?;
        volume.write(file.name, file.mode, file.owner, &file.bytes)?;
    }
    Ok(volume)
}

fn unmount(dir: &MountDir, settings: Settings) -> Result<(), Failure> {
    let bounds = settings.bounds;
    let until = Deadline::after(bounds.unmount);
    let place = match Place::open(dir.kubelet_root(), dir.tail(), until) {
        Ok(place) => Some(place),
        // Nothing is mounted where nothing is.
        Err(mount::Error::Missing) => None,
        Err(e) => return Err(e.into()),
    };
    if let Some(place) = &place {
        clear(place)?;
    }
    // Still locked: the agent must not take it for the next volume's end. A socket that cannot be is
    // no reason to keep a pod from ending.
    if let Ok(socket) = settings.socket {
        Agent::new(socket).unmounted(dir, Deadline::after(bounds.unmounted));
    }
    Ok(())
}

/// Unmounts every volume of ours from a directory.
fn clear(place: &Place) -> Result<(), Failure> {
    loop {
        match place.top() {
            Ok(Top::Nothing) | Err(mount::Error::Missing) => return Ok(()),
            Ok(Top::Foreign(what)) => return Err(foreign(&what)),
            Ok(Top::Ours(_)) => place.unmount()?,
            Err(e) => return Err(e.into()),
        }
    }
}

fn foreign(what: &str) -> Failure {
    Failure(format!(
        "the directory is mounted by someone else ({what}): unmount that first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_an_absolute_path_that_fits() {
        let fits = format!("/{}", "s".repeat(106));
        for (named, taken) in [
            (None, Ok(DEFAULT_SOCKET)),
            (Some(""), Ok(DEFAULT_SOCKET)),
            (Some("/x/y"), Ok("/x/y")),
            (Some(fits.as_str()), Ok(fits.as_str())),
            (Some("run/agent.sock"), Err("absolute")),
            (Some(&format!("{fits}s")), Err("longer than 107")),
        ] {
            match (socket(named.map(PathBuf::from)), taken) {
                (Ok(path), Ok(expected)) => assert_eq!(path, PathBuf::from(expected)),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (got, _) => panic!("{named:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn the_version_is_the_drivers_mark() {
        let version = VERSION.strip_prefix(vaulttmpfs_api::DRIVER_MARK).unwrap();
        let version = version.strip_suffix(vaulttmpfs_api::DRIVER_MARK_END);
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_person_gets_help() {
        let settings = || -> Settings { panic!("read without need") };
        assert_eq!(Call::Init.answer(settings), Answer::Capabilities);
        assert_eq!(Call::Help.answer(settings), Answer::Text(HELP));
        assert_eq!(Call::Version.answer(settings), Answer::Text(VERSION));
        assert_eq!(Call::Unknown.answer(settings), Answer::NotSupported);
    }
}
