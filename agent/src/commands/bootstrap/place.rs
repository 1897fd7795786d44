//! Where the generator token goes: a file for root, or one that systemd-creds has encrypted.

use super::Problem;
use crate::atomic_file;
use crate::config::variables::GENERATOR_TOKEN_CREDENTIAL;
use crate::exit::Exit;
use crate::line::one_line;
use crate::root_own;
use crate::vault::read_token_file;
use nix::unistd::{AccessFlags, access, geteuid};
use secrecy::{ExposeSecret, SecretString};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Where the shipped drop-in of the service has the encrypted token.
pub(super) const CREDENTIAL: &str = "/etc/credstore.encrypted/generator-token";

/// The file's rights. systemd reads it as root and hands the agent a copy.
const MODE: u32 = 0o600;

/// A TPM may take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most of what systemd-creds complains that is passed on, in bytes.
const LONGEST_COMPLAINT: usize = 400;

/// Where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) enum Place {
    /// As it is.
    File(PathBuf),
    /// Encrypted for this node.
    Encrypted {
        /// The file with what is encrypted.
        path: PathBuf,
        /// The key, as `systemd-creds --with-key=` takes it.
        key: String,
    },
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Encrypted { path, .. } => path,
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.path().display().to_string()
    }

    /// Makes its directory where that is missing, and sees that a file can be put there: what can go wrong
    /// is to go wrong before a token is made.
    pub(super) async fn prepare(&self) -> Result<(), Problem> {
        let failed = |error: &dyn std::fmt::Display| {
            Problem::new(Exit::Failed, format!("{}: {error}", self.name()))
        };
        if let Self::Encrypted { .. } = self {
            systemd_creds(&["--version"], b"")
                .await
                .map_err(|error| failed(&error))?;
        }
        self.directory().map_err(|error| failed(&error))
    }

    fn directory(&self) -> io::Result<()> {
        let path = self.path();
        atomic_file::forerunner(path)?;
        let directory = path.parent().unwrap_or(path);
        let mode = match self {
            Self::File(_) => 0o755,
            Self::Encrypted { .. } => 0o700,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(directory)?;
        // Whoever else may write there could have the agent take another token.
        root_own::directory_for(directory, geteuid())
            .map_err(|why| io::Error::new(ErrorKind::PermissionDenied, why))?;
        access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
        Ok(())
    }

    /// The token that is there, or nothing.
    ///
    /// # Errors
    /// There is something else; a line that says what is wrong with it.
    pub(super) async fn present(&self) -> Result<Option<SecretString>, String> {
        if !self.path().exists() {
            return Ok(None);
        }
        match self {
            Self::File(path) => read_token_file(path)
                .map(Some)
                .map_err(|error| error.to_string()),
            Self::Encrypted { path, .. } => {
                let name = format!("--name={GENERATOR_TOKEN_CREDENTIAL}");
                let path = path.to_string_lossy();
                let token = systemd_creds(&["decrypt", &name, &path, "-"], b"").await?;
                let token = str::from_utf8(&token).map_err(|_| "it holds no token")?;
                Ok(Some(SecretString::from(token.trim())))
            }
        }
    }

    /// Puts a token there, whole or not at all.
    pub(super) async fn put(&self, token: &SecretString) -> Result<(), Problem> {
        let token = token.expose_secret().as_bytes();
        let written = match self {
            Self::File(path) => atomic_file::replace(path, token, MODE),
            Self::Encrypted { path, key } => {
                let name = format!("--name={GENERATOR_TOKEN_CREDENTIAL}");
                let key = format!("--with-key={key}");
                // The token goes by standard input: arguments are everyone's to read.
                let encrypted = systemd_creds(&["encrypt", &name, &key, "-", "-"], token)
                    .await
                    .map_err(|problem| Problem::new(Exit::Failed, problem))?;
                atomic_file::replace(path, &encrypted, MODE)
            }
        };
        written.map_err(|error| {
            Problem::new(
                Exit::Failed,
                format!("{} cannot be written: {error}", self.name()),
            )
        })
    }

    /// How the agent comes to use what was put there.
    pub(super) fn what_next(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "the agent takes it by itself, where this is the file that it looks at"
            }
            Self::Encrypted { .. } => {
                "the service takes it when it is restarted, with encrypted-token.conf from /usr/share/doc/vaulttmpfs/examples as its drop-in"
            }
        }
    }
}

/// What systemd-creds answers, or what it complains. It gets nothing of this process's environment.
async fn systemd_creds(arguments: &[&str], input: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let said = async {
        let mut process = Command::new("systemd-creds")
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = process.stdin.take() {
            // One that does not read it says why when it ends.
            let _ = stdin.write_all(input).await;
        }
        process.wait_with_output().await
    };
    let said = timeout(PATIENCE, said)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let said = said.map_err(|error| {
        format!("systemd-creds does not run ({error}): it comes with systemd 250 or later")
    })?;
    if said.status.success() {
        return Ok(Zeroizing::new(said.stdout));
    }
    let complaint = String::from_utf8_lossy(&said.stderr);
    let complaint = one_line(complaint.trim(), LONGEST_COMPLAINT);
    Err(format!("systemd-creds: {complaint} ({})", said.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[tokio::test]
    async fn a_token_is_put_whole_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("deep/er/token"));
        place.prepare().await.unwrap();
        assert!(place.present().await.unwrap().is_none());
        for token in ["s.one", "s.two"] {
            place.put(&SecretString::from(token)).await.unwrap();
            let present = place.present().await.unwrap().unwrap();
            assert_eq!(present.expose_secret(), token);
            let mode = fs::metadata(place.path()).unwrap().mode();
            assert_eq!(mode & 0o7777, MODE);
        }
        fs::write(place.path(), "no token").unwrap();
        assert!(place.present().await.is_err());
    }

    #[tokio::test]
    async fn a_place_that_is_no_good_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        for (name, mode) in [("shared", 0o777), ("sticky", 0o1777), ("group", 0o775)] {
            fs::create_dir(path(name)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for bad in [
            "file/token",
            "shared",
            "shared/token",
            "sticky/token",
            "group/token",
        ] {
            let problem = Place::File(path(bad)).prepare().await.unwrap_err();
            assert!(problem.message.contains(bad), "{problem:?}");
        }
        let device = Place::File("/dev/null".into()).prepare().await.unwrap_err();
        assert!(device.message.contains("no regular file"), "{device:?}");
    }
}
