//! The kubelet's verbs (`pkg/volume/flexvolume`, `driver-call.go`).

use crate::answer::cut;
use std::ffi::OsString;
use vaulttmpfs_api::{MountDir, MountDirError};

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// `init`: what can you do?
    Init,
    /// `mount DIR JSON`, or in the older form `mount DIR DEVICE JSON`.
    Mount {
        /// Where to mount.
        dir: MountDir,
        /// The options, not parsed yet.
        options: String,
    },
    /// `unmount DIR`.
    Unmount {
        /// Where a volume may be mounted.
        dir: MountDir,
    },
    /// Any other verb.
    Unknown,
    /// `--help`, by a person.
    Help,
    /// `--version`, by a person.
    Version,
    /// No call that can be done, and why.
    Wrong(String),
}

impl Call {
    /// Reads the arguments after the program's name.
    #[must_use]
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut arguments = arguments.into_iter();
        let Some(verb) = arguments.next() else {
            return Self::Wrong(
                "the kubelet calls this driver with init, mount or unmount; see --help".into(),
            );
        };
        let rest: Vec<OsString> = arguments.collect();
        match verb.to_str() {
            Some("init") => Self::Init,
            Some("mount") => mount(rest).unwrap_or_else(Self::Wrong),
            Some("unmount") => unmount(rest).unwrap_or_else(Self::Wrong),
            Some("--help" | "-h" | "help") => Self::Help,
            Some("--version" | "-V") => Self::Version,
            _ => Self::Unknown,
        }
    }
}

fn mount(arguments: Vec<OsString>) -> Result<Call, String> {
    let (dir, options) = match <[OsString; 2]>::try_from(arguments) {
        Ok([dir, options]) => (dir, options),
        Err(arguments) => match <[OsString; 3]>::try_from(arguments) {
            Ok([dir, _device, options]) => (dir, options),
            Err(arguments) => {
                return Err(format!(
                    "mount takes DIR JSON or DIR DEVICE JSON, and was given {} arguments",
                    arguments.len()
                ));
            }
        },
    };
    Ok(Call::Mount {
        dir: directory(dir)?,
        options: options
            .into_string()
            .map_err(|_| "the options, the last argument, are not UTF-8".to_owned())?,
    })
}

fn unmount(arguments: Vec<OsString>) -> Result<Call, String> {
    let [dir] = <[OsString; 1]>::try_from(arguments)
        .map_err(|all| format!("unmount takes DIR, and was given {} arguments", all.len()))?;
    Ok(Call::Unmount {
        dir: directory(dir)?,
    })
}

fn directory(argument: OsString) -> Result<MountDir, String> {
    let text = argument
        .into_string()
        .map_err(|_| "the mount directory is not UTF-8".to_owned())?;
    MountDir::parse(&text).map_err(|why: MountDirError| {
        let shown = cut(&text, 300);
        format!("the mount directory {shown:?} is not one of this driver's: {why}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    const DIR: &str =
        "/var/lib/kubelet/pods/afd196c8a70643bdc8c3b5e59c5eb89b/volumes/cloudwatt~vaulttmpfs/vol1";

    fn parse(arguments: &[&str]) -> Call {
        Call::parse(arguments.iter().map(Into::into))
    }

    fn mount_of(options: &str) -> Call {
        Call::Mount {
            dir: MountDir::parse(DIR).unwrap(),
            options: options.into(),
        }
    }

    #[test]
    fn takes_what_the_kubelet_says() {
        for (arguments, call) in [
            (&["init"][..], Call::Init),
            (&["init", "more"], Call::Init),
            (&["mount", DIR, "{}"], mount_of("{}")),
            (
                &["mount", DIR, "/dev/sda", "{\"a\":1}"],
                mount_of("{\"a\":1}"),
            ),
            (&["mount", DIR, "", ""], mount_of("")),
            (
                &["unmount", DIR],
                Call::Unmount {
                    dir: MountDir::parse(DIR).unwrap(),
                },
            ),
            (&["--help"], Call::Help),
            (&["--version"], Call::Version),
            (&["attach", "{}", "node"], Call::Unknown),
            (&["getvolumename", "{}"], Call::Unknown),
            (&["MOUNT", DIR, "{}"], Call::Unknown),
            (&[""], Call::Unknown),
        ] {
            assert_eq!(parse(arguments), call, "{arguments:?}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let long = "x".repeat(100_000);
        for (arguments, part) in [
            (&[][..], "init, mount or unmount"),
            (&["mount"], "given 0 arguments"),
            (&["mount", DIR], "given 1 arguments"),
            (&["mount", DIR, "", "", ""], "given 4 arguments"),
            (&["mount", "/tmp", "{}"], "does not end in /pods/UID"),
            (&["mount", &long, "{}"], "longer than"),
            (&["unmount"], "given 0 arguments"),
            (&["unmount", DIR, "x"], "given 2 arguments"),
            (&["unmount", "relative"], "does not begin with a slash"),
        ] {
            let Call::Wrong(why) = parse(arguments) else {
                panic!("{arguments:?} was taken");
            };
            assert!(why.contains(part) && why.len() < 1000, "{why}");
        }
        for arguments in [
            vec![b"mount".to_vec(), b"/\xff".to_vec(), b"{}".to_vec()],
            vec![b"mount".to_vec(), DIR.into(), b"\xff".to_vec()],
        ] {
            let call = Call::parse(arguments.into_iter().map(OsString::from_vec));
            assert!(
                matches!(&call, Call::Wrong(why) if why.contains("UTF-8")),
                "{call:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
                        verb in "init|mount|unmount|") {
            let all = std::iter::once(OsString::from(verb)).chain(arguments.into_iter().map(OsString::from_vec));
            let _ = Call::parse(all);
        }
    }
}
