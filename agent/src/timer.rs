//! A timer on `CLOCK_BOOTTIME`: the runtime's own stands still while the machine sleeps.

use crate::{clock, descriptor};
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use std::io;
use std::time::Duration;
use tokio::io::Interest;

/// A kernel's timer does not reach further; whoever waits longer looks again then.
const FURTHEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sleeps until a moment in milliseconds on `CLOCK_BOOTTIME`, time asleep included; a year at most.
pub async fn sleep_until(boottime_ms: u64) {
    let now = clock::boottime_ms();
    let left = Duration::from_millis(boottime_ms.saturating_sub(now)).min(FURTHEST);
    let boottime_ms = now + clock::millis(left);
    if left.is_zero() {
        return;
    }
    if let Err(error) = expired(boottime_ms).await {
        // Late after a machine's sleep, but never lost.
        tracing::debug!("no timer on CLOCK_BOOTTIME: {error}");
        tokio::time::sleep(left).await;
    }
}

async fn expired(boottime_ms: u64) -> io::Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
    let at = TimeSpec::from(Duration::from_millis(boottime_ms));
    timer.set(
        Expiration::OneShot(at),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME,
    )?;
    let timer = descriptor::follow(timer, Interest::READABLE)?;
    timer.readable().await.map(|mut ready| ready.clear_ready())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_sleeps_until_its_moment() {
        let at = clock::boottime_ms() + 30;
        sleep_until(at).await;
        assert!(clock::boottime_ms() >= at);
        sleep_until(0).await;
    }
}
