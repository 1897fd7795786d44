//! Vault's PKI secrets engines, as an administrator makes them.

use crate::{GENERATOR_POLICY, Identity, Vault, text};
use serde_json::{Value, json};

impl Vault {
    /// Makes a secrets engine with a CA of its own, and in it the role `node`, which allows any name. Answers
    /// with the CA's certificate as PEM.
    pub fn make_pki(&self, path: &str, role: &Value) -> String {
        self.write(&format!("sys/mounts/{path}"), &json!({"type": "pki"}));
        let root = json!({"common_name": path, "ttl": "24h", "key_type": "ec", "key_bits": 256});
        let root = self.write(&format!("{path}/root/generate/internal"), &root);
        let mut settings = json!({
            "allow_any_name": true,
            "enforce_hostnames": false,
            "key_type": "ec",
            "key_bits": 256,
        });
        for (key, value) in role.as_object().expect("a role's settings") {
            settings[key] = value.clone();
        }
        self.write(&format!("{path}/roles/node"), &settings);
        text(&root["data"]["certificate"])
    }

    /// A certificate by that role.
    #[must_use]
    pub fn issue(&self, path: &str, name: &str) -> Identity {
        let issued = self.write(&format!("{path}/issue/node"), &json!({"common_name": name}));
        Identity {
            certificate: text(&issued["data"]["certificate"]),
            key: text(&issued["data"]["private_key"]),
        }
    }

    /// Adds rules to the generator token's policy.
    pub fn allow_generator(&self, rules: &str) {
        let policy = self.read(&format!("sys/policies/acl/{GENERATOR_POLICY}"));
        let before = text(&policy.body["data"]["policy"]);
        self.make_policy(GENERATOR_POLICY, &format!("{before}\n{rules}\n"));
    }
}
