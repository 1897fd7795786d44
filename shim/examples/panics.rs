//! For `tests/driver.rs`: a program that is the driver but for the call, which panics. The driver
//! itself knows no way to be made to panic.

#![no_main]

use vaulttmpfs_shim::{Answer, entry, sys};

#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

entry!(call);

fn call() -> Answer {
    panic!("a fault of the driver's own, with hunter2 in its text")
}
