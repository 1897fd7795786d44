//! The agent by itself, and how all of it grows with the number of volumes.

use crate::mount::mounted_by;
use crate::process::{cpu_of, resident, run, sleeps};
use crate::sides::{Sides, percentile, volume};
use crate::table::{Row, Table, milliseconds};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, Options, Volume, eventually_within};

/// Volumes at which everything is measured.
const SIZES: [usize; 5] = [0, 10, 100, 110, 1000];

/// How long an agent is watched that has nothing to do.
const IDLE: Duration = Duration::from_secs(20);

/// How long renewals are counted, and of how many volumes.
const RENEWING: Duration = Duration::from_secs(20);
const RENEWED: usize = 100;

const PROBES: usize = 60;
const STARTS: usize = 5;

pub(crate) fn measure(directory: &Path, table: &mut Table) {
    {
        let mut lab = crate::lab();
        let sides = Sides::new(&lab, directory);
        let mut volumes = Vec::new();
        for size in SIZES {
            while volumes.len() < size {
                volumes.push(mounted(&lab, &lab.options()).0);
            }
            at(&mut lab, &sides, size, table);
        }
        idle(&lab, table);
        over(&lab);
    }
    renewals(table);
}

/// Everything that may grow, at this number of volumes.
fn at(lab: &mut Lab, sides: &Sides, size: usize, table: &mut Table) {
    let name = |what: &str| format!("{size} volumes: {what}");
    let starts: Vec<Duration> = (0..STARTS).map(|_| restart(lab)).collect();
    let start = starts.into_iter().min().expect("a start");
    let row = Row::time(name("start to ready"), start);
    table.add(if size == 1000 {
        row.at_most(300.0)
    } else {
        row
    });

    let (mut walls, mut floors, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PROBES {
        let cpu = cpu_of(lab.agent.id());
        let (volume, wall) = mounted(lab, &lab.options());
        cpus.push(cpu_of(lab.agent.id()).saturating_sub(cpu));
        walls.push(wall);
        // Told to the agent, so that it knows as many as before.
        run(&mut lab
            .kubelet
            .command(&["unmount", volume.directory.to_str().expect("a path")]));
        floors.push(mounted_by(lab, &sides.floor));
    }
    // The kernel's part of a mount grows, too: this much of it.
    let beside = milliseconds(percentile(&mut floors, 50));
    table.add(
        Row::time(
            name("a mount, exec to exit, median"),
            percentile(&mut walls, 50),
        )
        .beside(beside, "floor"),
    );
    table.add(Row::time(
        name("the agent's CPU for it, median"),
        percentile(&mut cpus, 50),
    ));
    table.add(Row::time(
        name("the agent's CPU a second while others mount"),
        busy_second(lab),
    ));

    let resident = resident(lab.agent.id()) / 1024.0;
    let row = Row::new(name("resident memory"), resident, "MiB");
    table.add(if size == 1000 { row.at_most(12.0) } else { row });
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
fn idle(lab: &Lab, table: &mut Table) {
    // What the last mounts brought about is to be over, and threads that helped with it ended.
    std::thread::sleep(Duration::from_secs(12));
    let agent = lab.agent.id();
    let (cpu, slept) = (cpu_of(agent), sleeps(agent));
    std::thread::sleep(IDLE);
    let share = cpu_of(agent).saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let wakes = sleeps(agent).saturating_sub(slept) as f64 / IDLE.as_secs_f64();
    table.add(Row::new("1000 volumes, idle: CPU", share, "% of a core").at_most(0.1));
    table.add(Row::new("1000 volumes, idle: wake-ups", wakes, "a second"));
}

/// Tokens with a period so short that they are renewed all the time.
fn renewals(table: &mut Table) {
    let lab = crate::lab();
    let options = lab.options().with("vault/role", "short");
    for _ in 0..RENEWED {
        drop(mounted(&lab, &options));
    }
    let count = || lab.vault.count("auth/token/renew-accessor");
    eventually_within(Duration::from_secs(60), "a first renewal", || {
        (count() > 0).then_some(())
    });
    let (before, cpu) = (count(), cpu_of(lab.agent.id()));
    std::thread::sleep(RENEWING);
    let cpu = cpu_of(lab.agent.id()).saturating_sub(cpu);
    let each = milliseconds(cpu) / (count() - before) as f64;
    table.add(Row::new("the agent's CPU a renewal", each, "ms"));
    over(&lab);
}

fn mounted(lab: &Lab, options: &Options) -> (Volume, Duration) {
    let volume = volume(lab);
    let arguments = lab.kubelet.mount_arguments(&volume, options);
    let wall = run(&mut lab.kubelet.command(&arguments));
    (volume, wall)
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
