//! The agent's answer, as the driver reads it: HTTP's head, then the volume.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use vaulttmpfs_api::MAX_ANSWER;
use vaulttmpfs_shim::agent::{Delivery, parse_head};

fuzz_target!(|bytes: &[u8]| {
    // Whole, and as if it were a body by itself: a head is seldom met by chance.
    if let Ok(Some(head)) = parse_head(bytes) {
        assert!(head.status >= 200 && head.body <= bytes.len() && head.length <= MAX_ANSWER);
        for cut in 0..head.body {
            // Less of the same is never taken for a whole head, nor for another's.
            assert_eq!(parse_head(&bytes[..cut]), Ok(None), "{cut} bytes");
        }
        let body = head.body;
        assert_eq!(parse_head(&bytes[..body]), Ok(Some(head)));
        deliver(&bytes[body..]);
    }
    deliver(bytes);
});

fn deliver(body: &[u8]) {
    let delivery = match Delivery::parse(body) {
        Ok(delivery) => delivery,
        Err(error) => {
            assert!(error.to_string().len() < 4096);
            return;
        }
    };
    assert!(delivery.directory().size > 0 && delivery.directory().mode <= 0o777);
    let mut names = BTreeSet::new();
    for file in delivery.files().flatten() {
        assert!(file.mode <= 0o777);
        assert!(!file.name.contains(['/', '\0']) && !matches!(file.name, "" | "." | ".."));
        assert!(names.insert(file.name.to_owned()), "two files of one name");
    }
    assert!(names.len() <= delivery.count());
}
