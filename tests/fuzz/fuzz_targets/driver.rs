//! The driver's arguments and the kubelet's JSON among them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use vaulttmpfs_api::SECRET_OPTION_PREFIX;
use vaulttmpfs_shim::{Answer, Call, Options, Settings};

// Arguments are separated by a NUL, the one byte that none can hold.
fuzz_target!(|bytes: &[u8]| {
    let arguments = bytes
        .split(|&byte| byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()));
    let call = Call::parse(arguments);
    match &call {
        Call::Mount { dir, options } => {
            assert!(dir.as_str().starts_with('/'));
            assert_eq!(
                format!("{}/{}", dir.kubelet_root(), dir.tail()),
                dir.as_str()
            );
            assert!(
                !dir.as_str()
                    .split('/')
                    .any(|part| part == ".." || part == ".")
            );
            parse(options, dir);
        }
        Call::Unmount { .. } => {}
        // Nothing that these do touches the machine.
        _ => {
            let no_settings = || -> Settings { panic!("read without need") };
            let person = matches!(call, Call::Help | Call::Version);
            assert_one_line(&call.answer(no_settings), person);
        }
    }
});

fn parse(text: &str, dir: &vaulttmpfs_api::MountDir) {
    match Options::parse(text) {
        Ok(options) => {
            if let Err(error) = options.check_pod(dir) {
                assert_one_line(&Answer::Failure(error.to_string()), false);
            }
            let map = options.into_map();
            assert!(!map.keys().any(|key| key.starts_with(SECRET_OPTION_PREFIX)));
        }
        Err(error) => assert_one_line(&Answer::Failure(error.to_string()), false),
    }
}

fn assert_one_line(answer: &Answer, person: bool) {
    let line = answer.line();
    if person {
        return;
    }
    assert_eq!(
        line.iter().position(|&byte| byte == b'\n'),
        Some(line.len() - 1)
    );
    assert!(line.len() < 64 * 1024);
    let value: serde_json::Value = serde_json::from_slice(&line).expect("one JSON object");
    assert!(value["status"].is_string());
}
