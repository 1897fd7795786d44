//! What is wrong on the way to Vault.

use super::{Bed, Expected, FAILURE, WARNING, by_name, not_checked};
use crate::lifecycle::clock::{Clock, WALL};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use vaulttmpfs_tests::{Authority, Proxy, in_own_namespaces};

const DAY: u64 = 24 * 3600;

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

#[test]
fn a_vault_that_cannot_be_reached_is_found_in_bounded_time() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let address = |address: &str| [("VAULT_ADDR".to_owned(), address.to_owned())];
        let with = |changed: &str| {
            let mut settings = bed.settings.clone();
            settings.extend(address(changed));
            settings
        };
        bed.finds_with(
            &[("VAULT_ADDR", "https://vault.invalid:8200")],
            &[(
                FAILURE,
                &["the name vault.invalid does not resolve", "getent hosts"],
            )],
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = format!("https://vault.test:{}", port.local_addr().unwrap().port());
        drop(port);
        bed.finds_with(
            &[("VAULT_ADDR", &closed)],
            &[(FAILURE, &["takes no connection", "nothing listens there"])],
        );
        let (_, findings) = bed.run(&with(&closed), &[]);
        for group in [
            "TLS",
            "Vault",
            "clock",
            "generator token",
            "rights",
            "wrapping",
            "roles",
        ] {
            let said = not_checked(&findings);
            let why = (group, "Vault cannot be reached");
            assert!(said.contains(&why), "{group}: {said:?}");
        }

        // Addresses that nobody has: packets vanish.
        let route = ["route", "add", "10.99.0.0/16", "dev", "lo"];
        assert!(Command::new("ip").args(route).status().unwrap().success());
        let _ = bed.finds_by(
            &with("https://10.99.0.1:8200"),
            &[],
            &[(FAILURE, &["10.99.0.1:8200 takes no connection"])],
        );

        // So does what asks for names there.
        fs::write("/etc/resolv.conf", "nameserver 10.99.0.53\n").unwrap();
        bed.finds_with(
            &[("VAULT_ADDR", "https://vault.example:8200")],
            &[(
                FAILURE,
                &[
                    "vault.example does not resolve within 8 s",
                    "/etc/resolv.conf",
                ],
            )],
        );

        // Someone takes connections and says nothing; so does a Vault that hangs.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mute = format!("https://vault.test:{}", silent.local_addr().unwrap().port());
        bed.finds_with(
            &[("VAULT_ADDR", &mute)],
            &[(FAILURE, &["there was no handshake within 5 s"])],
        );
    });
}

#[test]
fn a_certificate_that_is_not_trusted_is_named() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let trusted = |authority: &Authority, name: &str| {
            let path = bed.lab.node.path(name);
            fs::write(&path, authority.certificate()).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let namesake = trusted(&Authority::new(), "etc/namesake.crt");
        bed.finds_with(
            &[("VAULT_CACERT", &namesake)],
            &[(
                FAILURE,
                &[
                    "not trusted by VAULT_CACERT (",
                    "\"CN=vault\", signed by \"CN=vaulttmpfs test authority\"",
                    "by another key",
                ],
            )],
        );
        let other = trusted(&Authority::named("another authority"), "etc/other.crt");
        bed.finds_with(
            &[("VAULT_CACERT", &other)],
            &[(FAILURE, &["CN=vault", "which is not there"])],
        );
        bed.finds_with(
            &[("VAULT_CACERT", &other), ("VAULT_SKIP_VERIFY", "true")],
            &[
                (WARNING, &["Vault's certificate is not checked"]),
                (
                    WARNING,
                    &["which is not there", "VAULT_SKIP_VERIFY lets it pass"],
                ),
            ],
        );
        bed.finds_with(
            &[("VAULT_TLS_SERVER_NAME", "other.test")],
            &[(
                FAILURE,
                &["is for 127.0.0.1, localhost, vault.test, not for other.test"],
            )],
        );
        let plain = bed.settings["VAULT_ADDR"].replace("https", "http");
        bed.finds_with(
            &[("VAULT_ADDR", &plain)],
            &[
                (WARNING, &["tokens cross the network in the clear"]),
                (FAILURE, &["failed", "is something else listening there"]),
            ],
        );
    });
}

#[test]
fn dates_and_clocks_are_judged() {
    in_own_namespaces(|| {
        let bed = Bed::new();
        let authority = bed.lab.vault.authority();
        let behind = |from, until| {
            Proxy::start_with(&bed.lab.vault, &authority.identity_within(from, until))
        };
        let expired = behind(now() - 100 * DAY, now() - 2 * DAY);
        bed.finds_behind(
            &expired,
            &[(FAILURE, &["\"CN=vault\" has expired on 2", "renew it"])],
        );
        let unborn = behind(now() + 2 * DAY, now() + 100 * DAY);
        bed.finds_behind(
            &unborn,
            &[(FAILURE, &["\"CN=vault\" is not valid before 2"])],
        );
        let soon = behind(now() - 80 * DAY, now() + 9 * DAY + DAY / 2);
        bed.finds_behind(
            &soon,
            &[(WARNING, &["expires on 2", "in 9 days: renew it"])],
        );
        // One that lives a day is not old after six hours.
        let short = behind(now() - DAY / 4, now() + DAY * 3 / 4);
        bed.finds_behind(&short, &[]);

        // The clock as the check sees it; no other is touched.
        let finds_with_clock = |seconds: i64, proxy: &Proxy, expected: &[Expected<'_>]| {
            let mut settings = bed.settings.clone();
            settings.insert("VAULT_ADDR".into(), by_name(proxy));
            Clock::of(WALL, &bed.lab.node, &mut settings).step_to(seconds);
            let _ = bed.finds_by(&settings, &[], expected);
        };
        finds_with_clock(-60, &short, &[(WARNING, &["clock is", "behind Vault's"])]);
        // Vault's time is in whole seconds, and its answer takes time: so much more.
        let more = 30;
        finds_with_clock(
            7200 + more,
            &short,
            &[(FAILURE, &["clock is 2h", "ahead of Vault's"])],
        );
        // Then a good certificate seems to have expired, and the clock is said to be why.
        finds_with_clock(
            i64::try_from(20 * DAY).unwrap() + more,
            &soon,
            &[
                (FAILURE, &["has expired on 2", "is this node's clock wrong"]),
                (FAILURE, &["clock is 480h", "ahead of Vault's"]),
            ],
        );
    });
}
