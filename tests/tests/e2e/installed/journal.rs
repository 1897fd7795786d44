//! What the agent logs is in the journal, with what an administrator selects by.

use super::{AGENT, Site};
use serde_json::Value;

#[test]
fn a_mount_is_in_the_journal_with_its_fields() {
    let site = Site::installed();
    site.unmount(&site.mount("web-0"));
    let journal = site
        .machine
        .sh("journalctl --sync; journalctl --output json VAULTTMPFS_POD=web-0");
    let entries = journal
        .lines()
        .map(|line| serde_json::from_str(line).expect("an entry"));
    let mount = entries
        .into_iter()
        .find(|entry: &Value| entry["VAULTTMPFS_DURATION_MS"].is_string())
        .unwrap_or_else(|| panic!("no entry of the mount:\n{journal}"));
    for (field, value) in [
        ("SYSLOG_IDENTIFIER", "vaulttmpfs"),
        ("_SYSTEMD_UNIT", AGENT),
        ("PRIORITY", "6"),
        ("VAULTTMPFS_NAMESPACE", "shop"),
        ("VAULTTMPFS_ROLE", "applications"),
    ] {
        assert_eq!(mount[field], value, "{field} in {mount}");
    }
    assert!(mount["VAULTTMPFS_VOLUME"].is_string(), "{mount}");
    let duration = mount["VAULTTMPFS_DURATION_MS"].as_str().expect("a text");
    assert!(duration.parse::<f64>().is_ok(), "{mount}");
}
