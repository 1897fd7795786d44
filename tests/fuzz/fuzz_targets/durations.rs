//! Durations as pods and settings give them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaulttmpfs::duration::{LONGEST, parse, parse_seconds_too, to_go};

fuzz_target!(|text: &str| {
    for read in [parse, parse_seconds_too] {
        if let Ok(duration) = read(text) {
            assert!(duration <= LONGEST);
            assert_eq!(parse(&to_go(duration)), Ok(duration), "{text:?}");
        }
    }
    if let Ok(duration) = parse(text) {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(!digits || text == "0", "a number without a unit: {text:?}");
        assert_eq!(parse_seconds_too(text), Ok(duration), "{text:?}");
    }
});
