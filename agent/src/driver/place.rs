//! One place: a kubelet's volume plugin directory.

use super::hold::hold;
use super::program::{Found, MODE, Program};
use super::{Kept, Problem, use_of_it};
use crate::atomic_file::{sync_directory, write_new};
use crate::root_own;
use nix::fcntl::Flock;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vaulttmpfs_api::DRIVER_DIRECTORY;

/// The program's name in the driver's directory: what follows the `~` of that.
pub(super) const FILE: &str = "vaulttmpfs";

/// What is made here is not seen by a kubelet, because of the dot.
const NEW: &str = ".vaulttmpfs-new-";

/// What is about to be removed.
const REMOVED: &str = ".vaulttmpfs-removed";

/// A driver that answers answers at once.
const INIT_PATIENCE: Duration = Duration::from_secs(5);

/// A place, held against other commands.
#[derive(Debug)]
pub struct Place {
    /// As it was named.
    named: PathBuf,
    /// Without symbolic links; root's alone.
    directory: PathBuf,
    _held: Flock<File>,
}

/// What became of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The driver is there now, of this version.
    Installed(String),
    /// It was there in the first version, and is in the second.
    Updated(String, String),
    /// It was there, byte for byte, in this version: nothing was touched.
    Unchanged(String),
    /// It was there and is no more.
    Removed,
    /// There was nothing.
    Nothing,
    /// There is another's driver, which is none of ours to remove.
    NotOurs,
    /// The driver that had been replaced is there again.
    RolledBack,
}

impl Place {
    /// Takes hold of a place, and mends what a command that was killed left there.
    ///
    /// # Errors
    /// It is not there, is not root's alone, or another command holds it.
    pub fn open(named: &Path) -> Result<Self, Problem> {
        let directory = root_own::directory(named).map_err(|error| match error {
            root_own::Error::Missing(missing) => Problem::Failed(format!(
                "{} does not exist: is {} what the kubelet's --volume-plugin-dir names? Then make it: mkdir -p {}",
                missing.display(),
                named.display(),
                named.display(),
            )),
            root_own::Error::Unsafe(why) => Problem::Failed(why),
            root_own::Error::Io(path, error) => Problem::from_error("cannot look at", &path, &error),
        })?;
        let held = hold(&directory)?;
        let place = Self {
            named: named.to_owned(),
            directory,
            _held: held,
        };
        place
            .mend()
            .map_err(|error| Problem::from_error("cannot clean up in", named, &error))?;
        Ok(place)
    }

    /// As it was named.
    #[must_use]
    pub fn named(&self) -> &Path {
        &self.named
    }

    /// Without symbolic links.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn driver_directory(&self) -> PathBuf {
        self.directory.join(DRIVER_DIRECTORY)
    }

    /// Where the driver's program belongs.
    #[must_use]
    pub fn driver(&self) -> PathBuf {
        self.driver_directory().join(FILE)
    }

    fn removed(&self) -> PathBuf {
        self.directory.join(REMOVED)
    }

    /// A removal that was not finished is undone, for who knows what is mounted by now; what was being
    /// made is thrown away.
    fn mend(&self) -> io::Result<()> {
        if self.removed().join(FILE).exists() && !self.driver_directory().exists() {
            fs::rename(self.removed(), self.driver_directory())?;
        }
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(NEW.as_bytes()) || name == REMOVED {
                throw_away(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What is there now.
    pub(super) fn found(&self) -> Result<Found, Problem> {
        found_in(&self.directory)
    }

    /// Whether a driver of ours is there.
    ///
    /// # Errors
    /// That cannot be told.
    pub fn has_ours(&self) -> Result<bool, Problem> {
        Ok(matches!(self.found()?, Found::Ours(..)))
    }

    /// Puts the driver there. One that is not ours is replaced only by force, and then kept.
    ///
    /// # Errors
    /// It is not there in this version now; what was there stands.
    pub fn install(&self, program: &Program, force: bool) -> Result<Put, Problem> {
        let version = program.version().unwrap_or_default();
        let put = match self.found()? {
            Found::Ours(there, _) if there.is(program) => return Ok(Put::Unchanged(version)),
            Found::Ours(_, old) => Put::Updated(old, version),
            Found::Nothing => Put::Installed(version),
            Found::Foreign(there) if force => {
                Kept::of(self)?.keep(&there)?;
                Put::Installed(version)
            }
            Found::Foreign(_) => return Err(self.foreign()),
            Found::Strange(what) => {
                return Err(Problem::Left(format!(
                    "{} is {what}: move it away and run this again",
                    self.driver().display()
                )));
            }
        };
        self.put(program, true)?;
        Ok(put)
    }

    /// How a command names this place.
    fn option(&self) -> String {
        if self.named == Path::new(super::DEFAULT_PLACE) {
            String::new()
        } else {
            format!(" --plugin-dir {}", shell_word(&self.named))
        }
    }

    fn foreign(&self) -> Problem {
        let again = self.option();
        Problem::Left(format!(
            "{} is another driver of this name, left as it is. When no pod of this node has a volume of it any more, \
             replace it: vaulttmpfs install-driver --force{again}; take it back: vaulttmpfs install-driver --rollback{again}",
            self.driver().display()
        ))
    }

    /// Puts back the driver that was replaced by force: while volumes of ours are mounted only by force, for
    /// it is that driver then that is called to unmount them.
    ///
    /// # Errors
    /// None was kept, ours is needed, or it cannot be put back; then what was there stands.
    pub fn roll_back(&self, force: bool) -> Result<Put, Problem> {
        let kept = Kept::of(self)?;
        let Some(old) = kept.program()? else {
            return Err(Problem::Failed(format!(
                "no driver was replaced at {}: there is nothing to put back",
                self.driver().display()
            )));
        };
        match self.found()? {
            // Done by a command that was killed then.
            Found::Foreign(there) if there.is(&old) => {}
            // Any driver is better than none.
            Found::Nothing => self.put(&old, false)?,
            Found::Ours(..) => {
                if !force {
                    use_of_it::none(&self.driver()).map_err(|why| self.not_rolled_back(&why))?;
                }
                self.put(&old, false)?;
            }
            Found::Foreign(_) | Found::Strange(_) => {
                return Err(Problem::Left(format!(
                    "{} is neither ours nor the one that was replaced: move it away, and run this again",
                    self.driver().display()
                )));
            }
        }
        kept.forget()?;
        Ok(Put::RolledBack)
    }

    fn not_rolled_back(&self, why: &str) -> Problem {
        Problem::Left(format!(
            "{} stays, for the other driver would be called to unmount what is this one's: {why}. When these are gone, run \
             this again; or, where that driver unmounts any tmpfs, at once: vaulttmpfs install-driver --rollback --force{}",
            self.driver().display(),
            self.option()
        ))
    }

    /// Takes the driver out, where no volume needs it: without it the kubelet can unmount none.
    ///
    /// # Errors
    /// It is needed, or cannot be removed; then it is still there.
    pub fn remove(&self) -> Result<Put, Problem> {
        match self.found()? {
            Found::Ours(..) => {}
            Found::Nothing => return Ok(Put::Nothing),
            Found::Foreign(_) | Found::Strange(_) => return Ok(Put::NotOurs),
        }
        use_of_it::none(&self.driver()).map_err(|why| self.needed(&why))?;
        let failed = |error| Problem::from_error("cannot remove", &self.driver_directory(), &error);
        let others = others(&self.driver_directory()).map_err(failed)?;
        if let Some(other) = others {
            return Err(Problem::Left(format!(
                "{} is not ours: move it away, and run this again",
                other.display()
            )));
        }
        fs::rename(self.driver_directory(), self.removed()).map_err(failed)?;
        // From here on no call begins; one that had begun may have mounted a volume.
        if let Err(why) = use_of_it::none(&self.removed().join(FILE)) {
            fs::rename(self.removed(), self.driver_directory()).map_err(failed)?;
            return Err(self.needed(&why));
        }
        throw_away(&self.removed()).map_err(failed)?;
        sync_directory(&self.directory).map_err(failed)?;
        Ok(Put::Removed)
    }

    /// Commands that need no package: it may be gone when they are run.
    fn needed(&self, why: &str) -> Problem {
        let place = shell_word(&self.directory);
        Problem::Left(format!(
            "{} stays, for the kubelet cannot unmount without it: {why}. When these are gone, finish with: \
             cd {place} && mv {DRIVER_DIRECTORY} {REMOVED} && rm -r {REMOVED}",
            self.driver().display()
        ))
    }

    /// Puts a program in place by one rename.
    fn put(&self, program: &Program, try_it: bool) -> Result<(), Problem> {
        let random = getrandom::u64().map_err(|error| Problem::Failed(error.to_string()))?;
        let new = self.directory.join(format!("{NEW}{random:016x}"));
        let put = Self::make(&new, program)
            .and_then(|()| {
                if try_it {
                    answers(&new.join(FILE))
                } else {
                    Ok(())
                }
            })
            .and_then(|()| self.switch(&new));
        if put.is_err() {
            // What failed is what is said.
            let _ = throw_away(&new);
        }
        put.map_err(|error| Problem::from_place("cannot put the driver into", &self.named, &error))
    }

    fn make(new: &Path, program: &Program) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(new)?;
        write_new(&new.join(FILE), &program.bytes, program.mode)?;
        // Whatever the umask is.
        fs::set_permissions(new, Permissions::from_mode(MODE))?;
        sync_directory(new)
    }

    /// A directory takes the place of none, or of an empty one; else the file goes into the one that is
    /// there. A file that is executed meanwhile lives on until that call ends.
    fn switch(&self, new: &Path) -> io::Result<()> {
        let directory = self.driver_directory();
        match fs::rename(new, &directory) {
            Err(error) if is_full(&error) => {
                fs::rename(new.join(FILE), self.driver())?;
                sync_directory(&directory)?;
                fs::remove_dir(new)?;
            }
            renamed => renamed?,
        }
        sync_directory(&self.directory)
    }
}

/// What is in a place now.
pub(super) fn found_in(place: &Path) -> Result<Found, Problem> {
    let directory = place.join(DRIVER_DIRECTORY);
    match fs::symlink_metadata(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(Problem::from_error("cannot look at", &directory, &error)),
        Ok(metadata) if !metadata.is_dir() => {
            let shown = directory.display();
            return Err(Problem::Left(format!(
                "{shown} is not a directory, so the kubelet passes it over: move it away and run this again"
            )));
        }
        Ok(_) => {}
    }
    root_own::directory(&directory).map_err(|error| match error {
        root_own::Error::Unsafe(why) => Problem::Failed(why),
        root_own::Error::Missing(path) => {
            Problem::Failed(format!("{} has just gone: run this again", path.display()))
        }
        root_own::Error::Io(path, error) => Problem::from_error("cannot look at", &path, &error),
    })?;
    Program::find(&directory.join(FILE))
}

/// A directory that is not empty; POSIX lets a file system say either.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
    )
}

/// Whether it runs here: a file system may be mounted noexec, a machine be of another kind. All the
/// kubelet's pods with such volumes would wait for nothing else.
pub(super) fn answers(program: &Path) -> io::Result<()> {
    let mut running = Command::new(program)
        .arg("init")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            let text = format!(
                "it does not run there ({error}): mounted noexec, or built for another machine?"
            );
            io::Error::other(text)
        })?;
    let begun = Instant::now();
    while running.try_wait()?.is_none() {
        if begun.elapsed() > INIT_PATIENCE {
            running.kill()?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // What it said waits in the pipe.
    if running
        .wait_with_output()?
        .stdout
        .starts_with(br#"{"status":"Success""#)
    {
        Ok(())
    } else {
        Err(io::Error::other("it does not answer `init` there"))
    }
}

/// Removes a directory of ours; nothing is as deep as to need more.
fn throw_away(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}

/// A file beside the driver's program, which is none of ours.
fn others(directory: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != FILE {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The directories from the default place up that are the kubelet's own.
const KUBELETS_OWN: usize = 4;

/// Makes the default place, which a kubelet makes itself when it is started first.
///
/// # Errors
/// It cannot be made.
pub fn make_default() -> Result<(), Problem> {
    let place = Path::new(super::DEFAULT_PLACE);
    let parent = place.ancestors().nth(KUBELETS_OWN).unwrap_or(place);
    let checked = match root_own::directory(parent) {
        Err(root_own::Error::Unsafe(why)) => Err(Problem::Failed(why)),
        _ => Ok(()),
    };
    checked.and_then(|()| {
        DirBuilder::new()
            .recursive(true)
            .mode(MODE)
            .create(place)
            .map_err(|error| Problem::from_place("cannot make", place, &error))
    })
}

/// Takes the default place away again, as far as it is empty. A kubelet that runs watches it, and would not
/// see another of that name.
pub fn unmake_default() {
    let place = Path::new(super::DEFAULT_PLACE);
    if use_of_it::watched(place).is_ok_and(|watched| !watched) {
        for directory in place.ancestors().take(KUBELETS_OWN) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }
}

/// Whether two paths lead to one file.
pub(super) fn same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
