//! For `tests/driver.rs`: a program that is the driver but for the call, which panics. The driver
//! itself knows no way to be made to panic.

use vaulttmpfs_shim::{run, sys};

#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

fn main() {
    run(|| panic!("a fault of the driver's own, with hunter2 in its text"))
}
