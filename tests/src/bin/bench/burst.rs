//! Many pods at once: a node that was just booted.

use crate::bare::Bare;
use crate::process::{cpu_of, cpu_of_children, run};
use crate::sides::{Sides, clear, volume};
use crate::table::{Row, Table, milliseconds};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{Lab, Volume};

const MOUNTS: usize = 250;
const AT_A_TIME: usize = 32;
const ROUNDS: usize = 3;

/// What one burst took.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    /// User and system, of the node's side alone.
    cpu: Duration,
}

pub(crate) fn measure(lab: &Lab, sides: &Sides, table: &mut Table) {
    let options = lab.options();
    let bare: Vec<Bare> = (0..AT_A_TIME).map(|_| Bare::new(lab)).collect();
    let connections = lab.vault.connections_of("create/applications");
    let mut agent_opened = None;
    let mut took: [Vec<Took>; 4] = Default::default();
    for _ in 0..ROUNDS {
        took[0].push(burst(lab, Some(lab.agent.id()), |_, volume| {
            run(&mut lab
                .kubelet
                .command(&lab.kubelet.mount_arguments(volume, &options)));
        }));
        agent_opened
            .get_or_insert_with(|| lab.vault.connections_of("create/applications") - connections);
        for (took, side) in took[1..3].iter_mut().zip([&sides.go, &sides.rust]) {
            took.push(burst(lab, None, |_, volume| {
                let mut command: Command = sides.one_shot(side, volume, &options);
                run(&mut command);
            }));
        }
        took[3].push(burst(lab, None, |worker, volume| {
            bare[worker].time();
            run(&mut sides
                .floor
                .command(&sides.floor.mount_arguments(volume, &options)));
        }));
    }
    // The best of each: noise only adds.
    let best = |took: &[Took], of: fn(&Took) -> Duration| {
        milliseconds(took.iter().map(of).min().expect("a round"))
    };
    let [wall, cpu] = [|took: &Took| took.wall, |took: &Took| took.cpu]
        .map(|of: fn(&Took) -> Duration| [0, 1, 2, 3].map(|side| best(&took[side], of)));
    let row = |what: &str, figure| {
        Row::new(
            format!("{MOUNTS} mounts, {AT_A_TIME} at a time: {what}"),
            figure,
            "ms",
        )
    };
    table.add(
        row("CPU on the node", cpu[0])
            .beside(cpu[1], "one-shot in Go")
            .at_most_times(0.1),
    );
    table.add(row("CPU on the node", cpu[0]).beside(cpu[2], "one-shot in Rust"));
    // The least that there is: without a call to Vault, and with nobody to make it.
    table.add(row("CPU of the floors alone", cpu[3]).beside(cpu[1], "one-shot in Go"));
    table.add(
        row("wall time", wall[0])
            .beside(wall[1], "one-shot in Go")
            .at_most_times(0.25),
    );
    table.add(row("wall time", wall[0]).beside(wall[2], "one-shot in Rust"));
    table.add(row("wall time of bare calls + floors", wall[3]).beside(wall[1], "one-shot in Go"));
    table.add(
        row("wall time", wall[0])
            .beside(wall[3], "bare calls + floors")
            .at_most_times(1.2),
    );
    let opened = agent_opened.expect("a round") as f64;
    table.add(Row::new("connections to Vault opened in the first burst", opened, "").at_most(16.0));
}

/// Makes all mounts, by workers that each do one after the other, and takes them away again.
fn burst(lab: &Lab, agent: Option<u32>, mount: impl Fn(usize, &Volume) + Sync) -> Took {
    let volumes: Vec<Volume> = (0..MOUNTS).map(|_| volume(lab)).collect();
    let agents = || agent.map_or(Duration::ZERO, cpu_of);
    let (cpu, begun) = (cpu_of_children() + agents(), Instant::now());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (next, mount, volumes) = (&next, &mount, &volumes);
        for worker in 0..AT_A_TIME {
            scope.spawn(move || {
                while let Some(volume) = volumes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    mount(worker, volume);
                }
            });
        }
    });
    let wall = begun.elapsed();
    let cpu = (cpu_of_children() + agents()).saturating_sub(cpu);
    volumes.iter().for_each(clear);
    Took { wall, cpu }
}
