//! On an installed node an administrator types the commands in a bare shell: the settings are in the service's file.

use super::{Site, assert_said};
use std::fs;
use vaulttmpfs_tests::Settings;

#[test]
fn the_services_file_of_settings_counts_where_the_environment_says_nothing() {
    let site = Site::new();
    site.lab.node.own("/etc");
    let settings = site.settings(&[]);
    let lines = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"));
    let file = lines.collect::<Vec<_>>().concat();
    fs::write("/etc/default/vaulttmpfs", file).unwrap();

    let login = Settings::from([("VAULT_TOKEN".to_owned(), site.root_token())]);
    let said = site.lab.command_with(&["bootstrap"], &login);
    assert_said(&said, 0, &["written: "]);
    site.looked_up();
    let said = site.lab.command(&["renew-token"]);
    assert_said(&said, 0, &["renewed: "]);

    // What the environment says counts before it.
    let elsewhere = ("VAULT_ADDR".to_owned(), "https://127.0.0.1:1".to_owned());
    let said = site
        .lab
        .command_with(&["renew-token"], &Settings::from([elsewhere]));
    assert_said(&said, 69, &["https://127.0.0.1:1"]);
    site.assert_nothing_left();
}
