//! The real driver, executed as the kubelet does it, on real mounts in a mount namespace of each
//! test's own. They need root, and say so where they are skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests are tests"
)]

mod answers;
mod bed;
mod fake;
mod faults;
mod mounting;
mod unmounting;
