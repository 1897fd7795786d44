//! A stand-in for a plugin without an agent, in Rust: as `tests/bench.d/oneshot.go`, with a client that
//! needs no runtime. It is this whole program, so that more is loaded than it needs.

use crate::bare::Bare;
use nix::mount::{MsFlags, mount as mount_call};
use std::path::Path;
use std::{env, fs};
use vaulttmpfs_tests::text;

pub(crate) fn mount(directory: &str, options: &str) {
    let setting = |name| env::var(name).expect("a setting");
    let options: serde_json::Value = serde_json::from_str(options).expect("the options");
    let authority = fs::read_to_string(setting("VAULT_CACERT")).expect("the authority");
    let vault = Bare::at(&setting("VAULT_ADDR"), &authority, setting("VAULT_TOKEN"));
    vault.post("auth/token/renew-self", "{}");
    let created = vault.create(&serde_json::json!({"poduid": options["kubernetes.io/pod.uid"]}));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let data = Some("size=64k,mode=0755");
    mount_call(Some("tmpfs"), directory, Some("tmpfs"), flags, data).expect("a tmpfs");
    let file = |name: &str, content: &str| {
        fs::write(Path::new(directory).join(name), content).expect("a file");
    };
    file("vault-token", &text(&created["wrap_info"]["token"]));
    file("vault-token.json", &created["wrap_info"].to_string());
    println!(r#"{{"status":"Success"}}"#);
}
