//! `vaulttmpfs install-driver`: puts the driver where kubelets look for it, keeps it up to date there,
//! and takes it out again.

use super::{complain, say};
use crate::driver::{self, DEFAULT_PLACE, List, PACKAGED, Place, Problem, Program, Put};
use crate::exit::Exit;
use clap::Args;
use std::path::{Path, PathBuf};

/// What is to be done, and where.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option by itself")]
pub struct InstallDriver {
    /// The kubelet's volume plugin directory, where it is not the usual one.
    #[arg(long, value_name = "DIR", value_parser = driver::place_name)]
    plugin_dir: Option<PathBuf>,
    /// The driver to install.
    #[arg(long, value_name = "FILE", default_value = PACKAGED)]
    from: PathBuf,
    /// Replace a driver that is not ours, and keep it for --rollback.
    #[arg(long)]
    force: bool,
    /// Put the driver back that --force replaced; while volumes of ours are mounted only with --force.
    #[arg(long, conflicts_with_all = ["update", "remove"])]
    rollback: bool,
    /// Bring the driver up to date in all listed directories.
    #[arg(long, conflicts_with_all = ["force", "remove", "plugin_dir"])]
    update: bool,
    /// Take the driver out, of all listed directories or of DIR, unless a volume is mounted.
    #[arg(long, conflicts_with = "force")]
    remove: bool,
}

/// Runs the command.
#[must_use]
pub fn run(wish: &InstallDriver) -> Exit {
    if !nix::unistd::geteuid().is_root() {
        complain("install-driver is root's: run it as root");
        return Exit::Failed;
    }
    let mut report = Report(Exit::Done);
    if wish.update || wish.remove {
        match places(wish.plugin_dir.as_deref(), &mut report) {
            Ok(places) if wish.remove => places.iter().for_each(|dir| report.take(remove(dir))),
            Ok(places) => update(&places, &wish.from, &mut report),
            Err(problem) => report.take(Err(problem)),
        }
    } else {
        let dir = wish
            .plugin_dir
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_PLACE));
        report.take(if wish.rollback {
            roll_back(dir, wish.force)
        } else {
            install(dir, wish)
        });
    }
    report.0
}

/// The places that are meant: the named one, or those in the list, and the usual one where the driver
/// is in it, should a command have been killed before it was in the list.
fn places(named: Option<&Path>, report: &mut Report) -> Result<Vec<PathBuf>, Problem> {
    if let Some(dir) = named {
        return Ok(vec![dir.to_owned()]);
    }
    let list = List::read()?;
    for bad in list.bad {
        report.take(Err(Problem::Failed(bad)));
    }
    let mut places = list.places;
    let usual = Path::new(DEFAULT_PLACE);
    let unlisted = !places.iter().any(|dir| dir == usual) && usual.exists();
    if unlisted && Place::open(usual).is_ok_and(|place| place.has_ours().unwrap_or(false)) {
        places.push(usual.to_owned());
    }
    Ok(places)
}

fn install(dir: &Path, wish: &InstallDriver) -> Result<String, Problem> {
    let program = Program::ours(&wish.from)?;
    let place = open_or_make(dir)?;
    let others = if wish.force {
        driver::volumes_of_others()
    } else {
        Vec::new()
    };
    let put = place.install(&program, wish.force)?;
    List::add(dir)?;
    for point in others {
        complain(&format!(
            "mounted by the driver that was replaced: {}. When its pod is gone, unmount it by hand: the new driver touches \
             only its own",
            point.display()
        ));
    }
    Ok(line(&put, &place))
}

/// The default place is made where it is missing; any other is the kubelet's to be told of.
fn open_or_make(dir: &Path) -> Result<Place, Problem> {
    if dir == Path::new(DEFAULT_PLACE) {
        driver::make_default()?;
    }
    Place::open(dir)
}

fn update(places: &[PathBuf], from: &Path, report: &mut Report) {
    let program = match Program::ours(from) {
        Ok(program) => program,
        Err(problem) => return report.take(Err(problem)),
    };
    for dir in places {
        report.take(open_or_make(dir).and_then(|place| {
            let put = place.install(&program, false)?;
            List::add(dir)?;
            Ok(line(&put, &place))
        }));
    }
}

fn remove(dir: &Path) -> Result<String, Problem> {
    if dir.try_exists().is_ok_and(|there| !there) {
        // Whoever removed the directory has removed the driver with it.
        List::take_out(dir)?;
        return Ok(format!("nothing there: {}", dir.display()));
    }
    let place = Place::open(dir)?;
    let put = place.remove()?;
    List::take_out(dir)?;
    if dir == Path::new(DEFAULT_PLACE) {
        driver::unmake_default();
    }
    Ok(line(&put, &place))
}

fn roll_back(dir: &Path, force: bool) -> Result<String, Problem> {
    let place = Place::open(dir)?;
    let put = place.roll_back(force)?;
    List::take_out(dir)?;
    Ok(line(&put, &place))
}

fn line(put: &Put, place: &Place) -> String {
    let path = place.named().join(driver::RELATIVE).display().to_string();
    match put {
        Put::Installed(version) => format!("installed: {path} ({version})"),
        Put::Updated(old, new) => format!("updated: {path} ({old} → {new})"),
        Put::Unchanged(version) => format!("unchanged: {path} ({version})"),
        Put::Removed => format!("removed: {path}"),
        Put::Nothing => format!("nothing there: {path}"),
        Put::NotOurs => format!("not ours, left alone: {path}"),
        Put::RolledBack => format!("rolled back: {path}"),
    }
}

/// Says what became of each place; the worst counts.
struct Report(Exit);

impl Report {
    fn take(&mut self, outcome: Result<String, Problem>) {
        match outcome {
            Ok(done) => say(&done),
            Err(Problem::Left(why)) => {
                complain(&why);
                if self.0 == Exit::Done {
                    self.0 = Exit::LeftAlone;
                }
            }
            Err(Problem::Failed(why)) => {
                complain(&why);
                self.0 = Exit::Failed;
            }
        }
    }
}
