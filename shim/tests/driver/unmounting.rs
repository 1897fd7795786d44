//! Unmounts.

use crate::bed::{Bed, assert_failure, assert_success, eventually, mount_foreign, sources};
use crate::fake::{self, Fake, Step};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

/// A volume of ours, by hand: what a mount by an earlier driver looks like.
fn mount_ours(dir: &Path, nth: usize) {
    let source = format!("vaulttmpfs:{}", fake::id(nth));
    let none: Option<&str> = None;
    mount(
        Some(source.as_str()),
        dir,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
}

fn told(dir: &Path) -> String {
    format!("DELETE /v1/volumes?mount_dir={}", dir.display())
}

/// The driver does not wait for long until the agent takes its word.
#[track_caller]
fn wait_until_told(fake: &Fake, dir: &Path) {
    eventually("the agent is told of the unmount", || {
        fake.lines().last() == Some(&told(dir))
    });
}

#[test]
fn every_volume_of_ours_goes_and_the_agent_is_told() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    for count in 0..4 {
        let dir = bed.volume(&format!("v{count}"));
        (0..count).for_each(|nth| mount_ours(&dir, nth));
        assert_eq!(sources(&dir).len(), count);
        assert_success(&bed.unmount(&dir));
        assert!(sources(&dir).is_empty());
        fs::remove_dir(&dir).unwrap();
        wait_until_told(&fake, &dir);
    }
    // The directory missing, and all above it: nothing is mounted there.
    let dir = bed.unmade("none");
    assert_success(&bed.unmount(&dir));
    wait_until_told(&fake, &dir);
    let dir = bed.path("other/pods/u/volumes/cloudwatt~vaulttmpfs/v");
    assert_success(&bed.unmount(&dir));
    wait_until_told(&fake, &dir);
    assert_eq!(fake.lines().len(), 6);
}

#[test]
fn someone_elses_mount_stays() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    mount_foreign(&dir);
    assert_failure(&bed.unmount(&dir), "by someone else (tmpfs from someone)");
    mount_ours(&dir, 1);
    assert_failure(&bed.unmount(&dir), "by someone else (tmpfs from someone)");
    assert_eq!(sources(&dir), ["someone"]);
    // Ours beneath someone else's is out of reach.
    let dir = bed.volume("vol2");
    mount_ours(&dir, 1);
    mount_foreign(&dir);
    assert_failure(&bed.unmount(&dir), "by someone else");
    assert_eq!(sources(&dir).len(), 2);
    assert!(fake.seen().is_empty());
}

#[test]
fn a_volume_in_use_stays_until_it_is_not() {
    let Some(bed) = Bed::new() else { return };
    let fake = Fake::good(&bed.socket());
    let dir = bed.volume("vol1");
    assert_success(&bed.mount(&dir));
    let held = File::open(dir.join("token")).unwrap();
    assert_failure(&bed.unmount(&dir), "still in use");
    assert_eq!(sources(&dir).len(), 1);
    assert_eq!(fs::read(dir.join("token")).unwrap(), b"s.secret");
    drop(held);
    bed.unmount_used(&dir);
    wait_until_told(&fake, &dir);
}

#[test]
fn an_agent_that_is_down_slow_or_nowhere_does_not_matter() {
    let Some(bed) = Bed::new() else { return };
    let dir = bed.volume("vol1");
    mount_ours(&dir, 1);
    assert_success(&bed.unmount(&dir));
    assert!(sources(&dir).is_empty());

    mount_ours(&dir, 2);
    let mut command = bed.command(&["unmount", dir.to_str().unwrap()]);
    let output = command
        .env("VAULTTMPFS_SOCKET", "relative")
        .output()
        .unwrap();
    assert_success(&crate::bed::answer(&output));
    assert!(sources(&dir).is_empty());

    mount_ours(&dir, 3);
    let fake = Fake::new(&bed.socket(), |_, _| Step::Hold);
    let start = Instant::now();
    assert_success(&bed.unmount(&dir));
    // Half a second, and much for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(20));
    wait_until_told(&fake, &dir);
    assert_eq!(fake.lines().len(), 1);
    assert!(sources(&dir).is_empty());
}
