//! The contract's JSON, as agent, driver and commands read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vaulttmpfs_api::{MountRequest, Refusal, VolumeAnswer};

/// What is taken is written and taken again as the same; an unknown field changes nothing.
macro_rules! survives {
    ($type:ty, $bytes:expr) => {
        if let Ok(read) = serde_json::from_slice::<$type>($bytes) {
            let written = serde_json::to_value(&read).expect("JSON");
            let mut more = written.clone();
            more["a field of later"] = Value::Array(Vec::new());
            let text = more.to_string();
            let again: $type = serde_json::from_str(&text).expect("what was written");
            assert_eq!(serde_json::to_value(&again).expect("JSON"), written);
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    survives!(MountRequest<'_>, bytes);
    survives!(VolumeAnswer<'_>, bytes);
    survives!(Refusal, bytes);
});
