//! The `FlexVolume` driver `cloudwatt/vaulttmpfs`, executed by the kubelet once a call.
#![no_main]

use std::env;
use vaulttmpfs_shim::{Answer, Call, Settings, entry, sys};

#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

entry!(call);

fn call() -> Answer {
    Call::parse(env::args_os().skip(1)).answer(Settings::from_environment)
}
