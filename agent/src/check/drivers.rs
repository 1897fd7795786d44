//! The driver in the directories where kubelets look for it.

use super::report::{Group, Report};
use crate::driver::{self, DEFAULT_PLACE, List, Look, Problem, RELATIVE};
use crate::kubelet::{self, Kubelet};
use crate::plain_file;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const TITLE: &str = "driver";

/// The largest configuration of a kubelet that is read, in bytes.
const MAX_CONFIGURATION: u64 = 1024 * 1024;

/// The name of the directory in a kubelet's configuration.
const IN_CONFIGURATION: &str = "volumePluginDir";

/// Why a place is looked at.
#[derive(Default)]
struct Wanted {
    /// A kubelet that runs looks for drivers there.
    by_a_kubelet: bool,
    /// `install-driver` keeps it up to date.
    listed: bool,
}

/// Has anybody installed the driver here, or begun to? By what this process may look at.
pub(super) fn is_installed() -> bool {
    let listed = List::read().is_ok_and(|list| !list.places.is_empty());
    let kubelets = kubelet::running().unwrap_or_default();
    let mut places = kubelets
        .iter()
        .filter_map(|kubelet| plugin_directory(*kubelet).ok());
    listed
        || Path::new(DEFAULT_PLACE).join(RELATIVE).exists()
        || places.any(|place| place.join(RELATIVE).exists())
}

pub(super) fn check(report: &mut Report, installed: bool) {
    let mut group = report.group(TITLE);
    let mut places: BTreeMap<PathBuf, Wanted> = BTreeMap::new();
    kubelets_places(&mut group, &mut places);
    match List::read() {
        Ok(list) => {
            for bad in list.bad {
                group.warning(bad);
            }
            for place in list.places {
                places.entry(place).or_default().listed = true;
            }
        }
        Err(problem) => group.failure(text(problem)),
    }
    let usual = Path::new(DEFAULT_PLACE);
    if usual.join(RELATIVE).exists() {
        places.entry(usual.to_owned()).or_default();
    }
    if !installed {
        return group.not_checked("the driver: it is not installed yet");
    }
    if places.is_empty() {
        group.failure(format!(
            "the driver is nowhere: vaulttmpfs install-driver, with --plugin-dir where the kubelet has another directory than {DEFAULT_PLACE}"
        ));
    }
    for (place, wanted) in &places {
        look(&mut group, place, wanted);
    }
}

/// Where the kubelets that run look.
fn kubelets_places(group: &mut Group<'_>, places: &mut BTreeMap<PathBuf, Wanted>) {
    let kubelets = match kubelet::running() {
        Ok(kubelets) => kubelets,
        Err(error) => return group.not_checked(format!("the kubelets: {error}")),
    };
    if kubelets.is_empty() {
        group.not_checked(format!(
            "where the kubelet looks for drivers: {}",
            super::no_kubelet()
        ));
    }
    for kubelet in kubelets {
        match plugin_directory(kubelet) {
            Ok(place) if is_the_same_here(kubelet, &place) => {
                places.entry(place).or_default().by_a_kubelet = true;
            }
            Ok(place) => group.not_checked(format!(
                "{} of the kubelet with the process id {}, which lives in a mount namespace of its own: nsenter --target {} --mount vaulttmpfs check",
                place.display(),
                kubelet.id,
                kubelet.id
            )),
            Err(why) => group.not_checked(format!("where the kubelet looks for drivers: {why}")),
        }
    }
}

/// The option counts before the configuration's file, as for the kubelet.
fn plugin_directory(kubelet: Kubelet) -> Result<PathBuf, String> {
    let option = |name| {
        let told = kubelet.option(name).map_err(|error| error.to_string())?;
        Ok::<_, String>(told.filter(|value| !value.is_empty()))
    };
    if let Some(directory) = option("volume-plugin-dir")? {
        return Ok(PathBuf::from(directory));
    }
    if let Some(file) = option("config")? {
        let path = kubelet.path(Path::new(&file));
        let text = plain_file::read_named(&path, MAX_CONFIGURATION)
            .map_err(|error| format!("its configuration {file}: {error}; look as root"))?;
        if let Some(directory) = configured(&String::from_utf8_lossy(&text)) {
            return Ok(PathBuf::from(directory));
        }
    }
    Ok(PathBuf::from(DEFAULT_PLACE))
}

/// The directory in a kubelet's configuration, which is JSON or YAML. The latter is not parsed: the
/// field stands at the top level, on a line of its own.
fn configured(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(rename = "volumePluginDir")]
        directory: Option<String>,
    }
    if let Ok(configuration) = serde_json::from_str::<Configuration>(text) {
        return configuration.directory.filter(|it| !it.is_empty());
    }
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(IN_CONFIGURATION)?;
        Some(rest.trim_start().strip_prefix(':')?.trim())
    })?;
    let value = match value.split_once(" #") {
        Some((value, _)) => value.trim(),
        None => value,
    };
    let value = value.trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Is a directory of the kubelet's the one of that path here?
fn is_the_same_here(kubelet: Kubelet, place: &Path) -> bool {
    let (Ok(here), Ok(there)) = (
        fs::metadata("/proc/self/ns/mnt"),
        fs::metadata(format!("/proc/{}/ns/mnt", kubelet.id)),
    ) else {
        // Who may not know it takes it for the usual case.
        return true;
    };
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let directory = |path: &Path| fs::metadata(path).ok().map(id);
    here.ino() == there.ino() || directory(place) == directory(&kubelet.path(place))
}

fn look(group: &mut Group<'_>, place: &Path, wanted: &Wanted) {
    let (path, shown) = (place.join(RELATIVE), place.display());
    let path = path.display();
    let again = if place == Path::new(DEFAULT_PLACE) {
        "vaulttmpfs install-driver".to_owned()
    } else {
        format!("vaulttmpfs install-driver --plugin-dir {shown}")
    };
    let of_the_kubelet = if wanted.by_a_kubelet {
        ", where the kubelet looks for drivers"
    } else {
        ""
    };
    match driver::look(place) {
        Err(problem) => group.failure(text(problem)),
        Ok(Look::NoPlace) => group.failure(format!(
            "{shown}{of_the_kubelet}, does not exist: mkdir -p {shown}, then {again}"
        )),
        Ok(Look::Nothing) => group.failure(format!(
            "there is no driver in {shown}{of_the_kubelet}: {again}"
        )),
        Ok(Look::Foreign) => group.failure(format!(
            "{path} is another driver of this name: on a drained node, {again} --force"
        )),
        Ok(Look::Strange(what)) => {
            group.failure(format!("{path} is {what}: move it away, then {again}"));
        }
        Ok(Look::Ours {
            version,
            well_installed,
        }) => {
            let own = env!("CARGO_PKG_VERSION");
            if !well_installed {
                group.failure(format!(
                    "{path} is not root's with mode 0755, so the kubelet may not execute it: {again}"
                ));
            } else if let Err(why) = driver::try_out(place) {
                group.failure(format!("{path}: {why}"));
            } else if version != own {
                group.warning(format!(
                    "{path} is version {version}, this program {own}: vaulttmpfs install-driver --update"
                ));
            } else {
                group.ok(format!("{path} is version {version} and answers"));
            }
            if wanted.by_a_kubelet && !wanted.listed && place != Path::new(DEFAULT_PLACE) {
                group.warning(format!(
                    "upgrades do not bring the driver up to date in {shown}, which is not listed: {again}"
                ));
            }
        }
    }
}

fn text(problem: Problem) -> String {
    match problem {
        Problem::Left(text) | Problem::Failed(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_in_a_configuration() {
        for (text, expected) in [
            (
                "kind: KubeletConfiguration\nvolumePluginDir: /a/b\n",
                Some("/a/b"),
            ),
            ("volumePluginDir: \"/a b\" # here", Some("/a b")),
            ("  volumePluginDir: /nested", None),
            ("volumePluginDirectory: /x", None),
            ("volumePluginDir:\n", None),
            (
                r#"{"kind":"KubeletConfiguration","volumePluginDir":"/j"}"#,
                Some("/j"),
            ),
            (r#"{"kind":"KubeletConfiguration"}"#, None),
            ("", None),
        ] {
            assert_eq!(configured(text).as_deref(), expected, "{text}");
        }
    }
}
