//! Metrics at a TCP address, out of the service's sandbox.

use super::{SETTINGS, SOON, Site};
use serde_json::json;
use vaulttmpfs_tests::eventually_within;

#[test]
fn the_sandboxed_agent_serves_metrics_with_a_certificate_of_vaults() {
    let site = Site::installed();
    let root = site.vault.root();
    let ca = root.make_pki("pki", &json!({"ttl": "1h"}));
    root.allow_generator(r#"path "pki/issue/node" { capabilities = ["update"] }"#);
    site.machine.write("/root/pki.crt", &ca);
    // On every address of the node. The watch over the settings has the agent take them up.
    site.write_settings(
        SETTINGS,
        &[
            "VAULTTMPFS_METRICS_ADDR=[::]:9743",
            "VAULTTMPFS_METRICS_PKI_ROLE=node",
            "VAULTTMPFS_METRICS_NAMES=localhost,127.0.0.1",
        ],
    );
    let scrape = "curl --silent --cacert /root/pki.crt https://127.0.0.1:9743/metrics || true";
    let metrics = eventually_within(SOON, "metrics over TLS", || {
        let said = site.machine.sh(scrape);
        said.contains("vaulttmpfs_ready 1").then_some(said)
    });
    assert!(
        metrics.contains("process_resident_memory_bytes"),
        "{metrics}"
    );
    let _ = site.mount("web-0");
}
