//! The programs that are compared, as one kubelet's drivers, and times sorted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use vaulttmpfs_tests::{Kubelet, Lab, Options, Pod, Volume, answer_at_once};

/// Whoever can be called as a driver.
pub(crate) struct Sides {
    /// The driver, beside an agent that answers at once.
    pub(crate) driver_alone: Kubelet,
    /// The floor, beside the same.
    pub(crate) floor: Kubelet,
    /// The plugin without an agent in Go.
    pub(crate) go: Kubelet,
    /// The same in Rust: this program.
    pub(crate) rust: Kubelet,
    /// The driver's and the floor's files.
    pub(crate) files: [PathBuf; 2],
    environment: Vec<(&'static str, String)>,
}

impl Sides {
    pub(crate) fn new(lab: &Lab, directory: &Path) -> Self {
        let instant = lab.node.path("instant.sock");
        answer_at_once(&instant);
        let driver = lab.node.path("plugins/cloudwatt~vaulttmpfs/vaulttmpfs");
        let here = std::env::current_exe().expect("this program's own path");
        // Copies side by side: how a file lies in the page cache is worth more than many differences.
        let [floor, go, rust] = [
            (directory.join("floor"), "floor"),
            (directory.join("oneshot"), "go"),
            (here, "rust"),
        ]
        .map(|(from, name)| {
            let to = lab.node.path(name);
            std::fs::copy(&from, &to).unwrap_or_else(|error| {
                panic!("{}: {error}: tests/bench builds it", from.display())
            });
            to
        });
        let kubelet = |program: &Path| Kubelet::new(program, &lab.node.path("kubelet"), &instant);
        let path = |relative| lab.node.path(relative).display().to_string();
        Self {
            driver_alone: kubelet(&driver),
            floor: kubelet(&floor),
            go: kubelet(&go),
            rust: kubelet(&rust),
            files: [driver, floor],
            environment: vec![
                ("VAULT_ADDR", lab.vault.address().to_owned()),
                ("VAULT_CACERT", path("etc/ca.crt")),
                ("VAULT_TOKEN", lab.vault.root().make_generator_token()),
            ],
        }
    }

    /// A mount by a plugin without an agent, which asks Vault itself.
    pub(crate) fn one_shot(&self, side: &Kubelet, volume: &Volume, options: &Options) -> Command {
        let mut command = side.command(&side.mount_arguments(volume, options));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A new pod's volume, its directory made.
pub(crate) fn volume(lab: &Lab) -> Volume {
    let volume = lab.kubelet.volume(&Pod::new("measured"), "vault");
    std::fs::create_dir_all(&volume.directory).expect("the mount directory");
    volume
}

/// Takes away what is mounted on a volume's directory.
pub(crate) fn clear(volume: &Volume) {
    nix::mount::umount(&volume.directory).expect("what was mounted is unmounted");
}

/// The time below which such a part of all times is.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * percent / 100]
}
