//! The agent by itself, and how all of it grows with the number of volumes.

use crate::bare::Bare;
use crate::mount::{self, mounted_by};
use crate::process::{cpu_of, resident, run, sleeps};
use crate::sides::{Sides, percentile, volume};
use crate::table::{Row, Table, milliseconds};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, Options, Volume, eventually_within};

/// Volumes at which it is measured.
const SIZES: [usize; 5] = [0, 10, 100, FULL_NODE, 1000];

/// A node's usual limit of pods: too near to another size to show growth.
const FULL_NODE: usize = 110;

/// Resident memory that is too much for any number of volumes, in MiB.
const MOST_MEMORY: f64 = 12.0;

/// A start that is too slow for any number of volumes, in milliseconds.
const SLOWEST_START: f64 = 300.0;

/// What the last mounts or a start brought about is over by then: helping threads, too, have ended.
const SETTLED: Duration = Duration::from_secs(12);

/// How long an agent is watched that has nothing to do.
const IDLE: Duration = Duration::from_secs(8);

/// How long renewals are counted, and of how many volumes.
const RENEWING: Duration = Duration::from_secs(10);
const RENEWED: usize = 10;

const PROBES: usize = 100;
const WARM_UP: usize = 10;
const STARTS: usize = 5;

pub(crate) fn measure(directory: &Path, table: &mut Table) {
    {
        let mut lab = crate::lab();
        let sides = Sides::new(&lab, directory);
        let mut cpu = Fewest::default();
        let mut volumes = Vec::new();
        for size in SIZES {
            while volumes.len() < size {
                volumes.push(mounted(&lab, &lab.options()).0);
            }
            table.add(memory(&lab, size, "before a restart"));
            started(&mut lab, size, table);
            if size != FULL_NODE {
                idle(&lab, size, table);
                mounts(&lab, &sides, size, &mut cpu, table);
            }
            table.add(memory(&lab, size, "since a restart"));
        }
        over(&lab);
    }
    renewals(table);
}

/// A figure's row at a number of volumes.
fn at(size: usize, what: &str, figure: f64, unit: &'static str) -> Row {
    Row::new(format!("{size} volumes: {what}"), figure, unit)
}

/// What a figure was with the fewest volumes: with more it may not be larger.
#[derive(Default)]
struct Fewest(Option<f64>);

impl Fewest {
    /// So much is noise: the sides of this comparison are minutes apart.
    const NOISE: f64 = 1.5;

    fn bounds(&mut self, size: usize, what: &str, figure: f64) -> Row {
        let row = at(size, what, figure, "ms");
        if let Some(fewest) = self.0 {
            return row
                .beside(fewest, "with the fewest")
                .at_most_times(Self::NOISE);
        }
        self.0 = Some(figure);
        row
    }
}

/// Resident memory of the agent as it is now. Before a restart it has made all mounts since the size
/// before itself.
fn memory(lab: &Lab, size: usize, when: &str) -> Row {
    let resident = resident(lab.agent.id()) / 1024.0;
    at(size, &format!("resident memory {when}"), resident, "MiB").at_most(MOST_MEMORY)
}

fn started(lab: &mut Lab, size: usize, table: &mut Table) {
    let starts = (0..STARTS).map(|_| restart(lab));
    let quickest = milliseconds(starts.min().expect("a start"));
    let what = format!("start to ready, best of {STARTS}");
    table.add(at(size, &what, quickest, "ms").at_most(SLOWEST_START));
}

/// The times of one mount, of the agent's CPU for it, of a bare call to Vault, and of the floor. There are as
/// many volumes as before then.
fn probe(lab: &Lab, sides: &Sides, bare: &Bare) -> [Duration; 4] {
    let cpu = cpu_of(lab.agent.id());
    let (volume, wall) = mounted(lab, &lab.options());
    let cpu = cpu_of(lab.agent.id()).saturating_sub(cpu);
    unmounted(lab, &volume);
    [wall, cpu, bare.time(), mounted_by(lab, &sides.floor)]
}

/// Mounts while there are so many, beside what a mount cannot do without: Vault and the kernel take
/// longer with more of them, too.
fn mounts(lab: &Lab, sides: &Sides, size: usize, fewest: &mut Fewest, table: &mut Table) {
    let bare = Bare::new(lab);
    for _ in 0..WARM_UP {
        probe(lab, sides, &bare);
    }
    let probes: Vec<_> = (0..PROBES).map(|_| probe(lab, sides, &bare)).collect();
    let [wall, cpu, bare, floor] = [0, 1, 2, 3].map(|what| {
        let mut times: Vec<Duration> = probes.iter().map(|times| times[what]).collect();
        milliseconds(percentile(&mut times, 50))
    });
    table.add(
        at(size, "a mount, exec to exit, median", wall, "ms")
            .beside(bare + floor, "bare call + floor")
            .at_most_times(mount::MOST_TIMES),
    );
    table.add(at(size, "the floor of it, median", floor, "ms"));
    table.add(fewest.bounds(size, "the agent's CPU for it, median", cpu));
    let busy = milliseconds(busy_second(lab));
    table.add(at(
        size,
        "the agent's CPU a second while others mount",
        busy,
        "ms",
    ));
}

/// The agent's CPU in a second in which other mounts come and go all the time.
fn busy_second(lab: &Lab) -> Duration {
    const SECONDS: u32 = 3;
    let place = lab.node.path("others");
    std::fs::create_dir_all(&place).expect("a directory");
    let (cpu, begun) = (cpu_of(lab.agent.id()), Instant::now());
    while begun.elapsed() < Duration::from_secs(SECONDS.into()) {
        let none = None::<&str>;
        nix::mount::mount(
            Some("other"),
            &place,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            none,
        )
        .expect("a mount");
        nix::mount::umount(&place).expect("its end");
        std::thread::sleep(Duration::from_millis(5));
    }
    cpu_of(lab.agent.id()).saturating_sub(cpu) / SECONDS
}

/// Nothing happens but what the agent does by itself.
fn idle(lab: &Lab, size: usize, table: &mut Table) {
    std::thread::sleep(SETTLED);
    let agent = lab.agent.id();
    let (cpu, slept) = (cpu_of(agent), sleeps(agent));
    std::thread::sleep(IDLE);
    let share = cpu_of(agent).saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let wakes = sleeps(agent).saturating_sub(slept) as f64 / IDLE.as_secs_f64();
    table.add(at(size, "idle: CPU", share, "% of a core").at_most(0.1));
    table.add(at(size, "idle: wake-ups", wakes, "a second"));
}

/// What a renewal takes with so many volumes. A few tokens have a period so short that they are renewed all
/// the time; all others are left alone.
fn renewals(table: &mut Table) {
    let lab = crate::lab();
    let mut cpu = Fewest::default();
    let mut others = 0;
    for size in SIZES {
        if size < RENEWED || size == FULL_NODE {
            continue;
        }
        while others + RENEWED < size {
            drop(mounted(&lab, &lab.options()));
            others += 1;
        }
        let each = renewal(&lab);
        table.add(cpu.bounds(size, "the agent's CPU a renewal", each));
    }
    over(&lab);
}

/// The agent's CPU for each of the renewals that go on for a while, in milliseconds.
fn renewal(lab: &Lab) -> f64 {
    let options = lab.options().with("vault/role", "short");
    let volumes: Vec<Volume> = (0..RENEWED).map(|_| mounted(lab, &options).0).collect();
    let count = || lab.vault.count("auth/token/renew-accessor");
    let first = count();
    // Each has been renewed, and their mounts are over.
    eventually_within(Duration::from_secs(60), "first renewals", || {
        (count() >= first + 2 * RENEWED).then_some(())
    });
    let (before, cpu) = (count(), cpu_of(lab.agent.id()));
    std::thread::sleep(RENEWING);
    let cpu = cpu_of(lab.agent.id()).saturating_sub(cpu);
    let each = milliseconds(cpu) / (count() - before) as f64;
    for volume in &volumes {
        unmounted(lab, volume);
    }
    each
}

fn mounted(lab: &Lab, options: &Options) -> (Volume, Duration) {
    let volume = volume(lab);
    let arguments = lab.kubelet.mount_arguments(&volume, options);
    let wall = run(&mut lab.kubelet.command(&arguments));
    (volume, wall)
}

/// By the driver, so that the agent knows of it.
fn unmounted(lab: &Lab, volume: &Volume) {
    let directory = volume.directory.to_str().expect("a path");
    run(&mut lab.kubelet.command(&["unmount", directory]));
}

/// From the new agent's exec to its readiness.
fn restart(lab: &mut Lab) -> Duration {
    assert!(lab.agent.stop().success());
    let begun = Instant::now();
    lab.agent.start();
    while !is_ready(lab.agent.socket()) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the agent does not get ready"
        );
        std::thread::sleep(Duration::from_micros(500));
    }
    begun.elapsed()
}

fn is_ready(socket: &Path) -> bool {
    let Ok(mut agent) = UnixStream::connect(socket) else {
        return false;
    };
    let mut answer = [0; 12];
    agent
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: agent\r\n\r\n")
        .is_ok()
        && agent.read_exact(&mut answer).is_ok()
        && &answer == b"HTTP/1.1 200"
}

/// The lab is about to look for every secret that there was in every line of the log, which would take
/// longer than what is measured here. Tests look there.
pub(crate) fn over(lab: &Lab) {
    std::fs::write(lab.node.path("agent.log"), "").expect("the agent's log");
}
