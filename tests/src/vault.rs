//! Vault's HTTP API as far as the tests look into it, and Vault's side of the product: the roles,
//! the policies and the generator token that an administrator makes.

use crate::https;
use serde_json::{Value, json};
use ureq::http::{Method, Request};

/// The metadata by which the product's tokens are told from all others.
const CREATOR: &str = "kubernetes-flexvolume-vault-plugin";

/// The generator token's policy.
pub const GENERATOR_POLICY: &str = "applications_token_creator";

/// Vault as one token's holder sees it.
#[derive(Clone)]
pub struct Vault {
    http: ureq::Agent,
    address: String,
    token: String,
    namespace: Option<String>,
}

/// What Vault said.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, null where there is none.
    pub body: Value,
}

/// A token role to make.
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// As `auth/token/roles/NAME` takes it.
    pub settings: Value,
    /// Whether the generator may make only wrapped tokens with it.
    pub wrapped_only: bool,
}

impl Role {
    /// What the README recommends: orphan, periodic, wrapped only.
    #[must_use]
    pub fn applications() -> Self {
        Self::new("applications", &json!({}))
    }

    /// The recommended role with some settings changed, and no wrapping floor.
    #[must_use]
    pub fn new(name: &'static str, changes: &Value) -> Self {
        let mut settings = json!({
            "orphan": true,
            "renewable": true,
            "period": "1h",
            "allowed_policies": ["app", "other"],
        });
        for (key, value) in changes.as_object().expect("a role's settings") {
            settings[key] = value.clone();
        }
        Self {
            name,
            settings,
            wrapped_only: name == "applications",
        }
    }
}

impl Vault {
    pub(crate) fn new(address: &str, authority: &str, token: &str) -> Self {
        Self {
            http: https::client(authority),
            address: address.to_owned(),
            token: token.to_owned(),
            namespace: None,
        }
    }

    /// The same Vault as another token's holder sees it.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same Vault behind another address.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// The same Vault in a namespace.
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self.clone()
        }
    }

    /// One call; an error is only that of the transport.
    pub fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, ureq::Error> {
        let request = self.request(method, path);
        let answer = match body {
            Some(body) => self
                .http
                .run(request.body(body.to_string()).expect("a request")),
            None => self.http.run(request.body(()).expect("a request")),
        };
        let mut answer = answer?;
        let text = answer.body_mut().read_to_string()?;
        Ok(Reply {
            status: answer.status().as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        })
    }

    /// Writes, and has the answer wrapped for so long.
    pub fn wrapped(&self, path: &str, body: &Value, ttl: &str) -> Value {
        let request = self.request(Method::POST, path);
        let request = request.header("X-Vault-Wrap-TTL", ttl);
        let answer = self
            .http
            .run(request.body(body.to_string()).expect("a request"));
        let mut answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = answer.body_mut().read_to_string().expect("an answer");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    fn request(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address));
        if !self.token.is_empty() {
            request = request.header("X-Vault-Token", &self.token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        request
    }

    fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let reply = self
            .call(method, path, body)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(reply.status < 300, "{path}: {reply:?}");
        reply.body
    }

    /// Writes, which must go well.
    pub fn write(&self, path: &str, body: &Value) -> Value {
        self.must(Method::POST, path, Some(body))
    }

    /// Deletes, which must go well.
    pub fn delete(&self, path: &str) {
        self.must(Method::DELETE, path, None);
    }

    /// Reads, whatever comes of it.
    pub fn read(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Makes the secrets `secret/app` and `secret/other`, each with a policy of its name.
    pub fn make_secrets(&self) {
        self.write("sys/mounts/secret", &json!({"type": "kv"}));
        for name in ["app", "other"] {
            let value = json!({"password": format!("the secret of {name}")});
            self.write(&format!("secret/{name}"), &value);
            let rule = format!("path \"secret/{name}\" {{ capabilities = [\"read\"] }}");
            self.make_policy(name, &rule);
        }
    }

    /// Makes or changes a policy.
    pub fn make_policy(&self, name: &str, rules: &str) {
        self.write(
            &format!("sys/policies/acl/{name}"),
            &json!({ "policy": rules }),
        );
    }

    /// Makes token roles, and the policy that lets a generator token use just these.
    pub fn make_roles(&self, roles: &[Role]) {
        for role in roles {
            self.write(&format!("auth/token/roles/{}", role.name), &role.settings);
        }
        self.make_policy(GENERATOR_POLICY, &generator_rules(roles));
    }

    /// A generator token as the README tells to make one.
    #[must_use]
    pub fn make_generator_token(&self) -> String {
        let body = json!({
            "policies": [GENERATOR_POLICY],
            "no_parent": true,
            "period": "24h",
            "renewable": true,
        });
        let answer = self.write("auth/token/create", &body);
        text(&answer["auth"]["client_token"])
    }

    /// What a token's holder learns of itself.
    #[must_use]
    pub fn lookup_self(&self) -> Reply {
        self.read("auth/token/lookup-self")
    }

    /// What Vault knows of the token with this accessor, or nothing when it is dead.
    #[must_use]
    pub fn lookup_accessor(&self, accessor: &str) -> Option<Value> {
        let reply = self
            .call(
                Method::POST,
                "auth/token/lookup-accessor",
                Some(&json!({ "accessor": accessor })),
            )
            .expect("a look-up by accessor");
        (reply.status == 200).then(|| reply.body["data"].clone())
    }

    /// All living tokens with an accessor.
    #[must_use]
    pub fn tokens(&self) -> Vec<Value> {
        let list = self.read("auth/token/accessors?list=true");
        let keys = list.body["data"]["keys"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        keys.iter()
            .filter_map(|accessor| self.lookup_accessor(accessor.as_str().expect("an accessor")))
            .collect()
    }

    /// The living tokens that the product made for pods, still wrapped or not.
    #[must_use]
    pub fn pod_tokens(&self) -> Vec<Value> {
        let mut tokens = self.tokens();
        tokens.retain(|token| token["meta"]["creator"] == CREATOR);
        tokens
    }

    /// The accessors of the living tokens made for this pod.
    #[must_use]
    pub fn accessors_of_pod(&self, uid: &str) -> Vec<String> {
        self.pod_tokens()
            .iter()
            .filter(|token| token["meta"]["poduid"] == uid)
            .map(|token| text(&token["accessor"]))
            .collect()
    }

    /// Unwraps as a pod does: with nothing but the wrapping token.
    #[must_use]
    pub fn unwrap(&self, wrapping_token: &str) -> Reply {
        self.with_token(wrapping_token)
            .call(Method::POST, "sys/wrapping/unwrap", Some(&json!({})))
            .expect("unwrapping")
    }
}

/// The text in a JSON value that must be one.
pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
        .to_owned()
}

fn generator_rules(roles: &[Role]) -> String {
    let for_roles = roles.iter().map(|role| {
        let name = role.name;
        let floor = if role.wrapped_only {
            r#"min_wrapping_ttl = "1s" max_wrapping_ttl = "10m""#
        } else {
            ""
        };
        format!(
            r#"
path "auth/token/create/{name}" {{ capabilities = ["update"] {floor} }}
path "auth/token/roles/{name}"  {{ capabilities = ["read"] }}"#
        )
    });
    let for_accessors = ["renew", "revoke", "lookup"].map(|action| {
        format!("\npath \"auth/token/{action}-accessor\" {{ capabilities = [\"update\"] }}")
    });
    for_roles.chain(for_accessors).collect()
}
