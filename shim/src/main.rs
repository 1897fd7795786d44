//! The `FlexVolume` driver `cloudwatt/vaulttmpfs`, executed by the kubelet once a call.

use std::env;
use vaulttmpfs_shim::{Call, Settings, run, sys};

#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

fn main() {
    run(|| Call::parse(env::args_os().skip(1)).answer(Settings::from_environment))
}
