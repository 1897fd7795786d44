//! The policies and token roles that the generator token needs at Vault, from the shipped example: that is
//! their one source, and a shell script for whoever prefers to run it.

use super::Problem;
use crate::commands::say;
use crate::exit::Exit;
use crate::vault::{Direct, VaultError};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

/// The example. README.md has the same commands.
const EXAMPLE: &str = include_str!("../../../../packaging/examples/vault-side.sh");

/// What is to be there, in the order in which it is made.
#[derive(Debug, Default, PartialEq)]
pub(super) struct VaultSide(Vec<Part>);

/// A policy or a token role.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    kind: Kind,
    name: String,
    /// What is written to its path.
    body: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Policy,
    Role,
}

impl VaultSide {
    /// What tokens with these policies need: the policies themselves, the roles that they may create
    /// tokens of, and the pods' policies that these roles allow.
    ///
    /// # Errors
    /// The example has none of them; a line that names those it has.
    pub(super) fn for_policies(policies: &[String]) -> Result<Self, String> {
        let all = parse(EXAMPLE);
        let named = |kind, wanted: &dyn Fn(&Part) -> bool| -> Vec<Part> {
            let parts = all.iter().filter(|part| part.kind == kind && wanted(part));
            parts.cloned().collect()
        };
        let own = named(Kind::Policy, &|part| policies.contains(&part.name));
        if own.is_empty() {
            let known = named(Kind::Policy, &|part| part.text("policy").contains(CREATE));
            let known: Vec<&str> = known.iter().map(|part| part.name.as_str()).collect();
            return Err(format!(
                "--set-up-vault knows the policies {} and no others: make yours by hand",
                known.join(" and ")
            ));
        }
        let roles = named(Kind::Role, &|role| {
            let path = format!("\"{CREATE}{}\"", role.name);
            own.iter()
                .any(|policy| policy.text("policy").contains(&path))
        });
        let for_pods = named(Kind::Policy, &|policy| {
            let allows = |role: &Part| {
                let allowed = role.text("allowed_policies");
                allowed.split(',').any(|name| name == policy.name)
            };
            roles.iter().any(allows)
        });
        Ok(Self([for_pods, roles, own].concat()))
    }

    /// Makes what is missing, and may be dropped meanwhile. What is there stays as it is.
    pub(super) async fn make(&self, vault: &Direct, token: &SecretString) -> Result<(), Problem> {
        for part in &self.0 {
            let path = part.path();
            let refused = |error: VaultError| refused(vault, &path, &error);
            if vault.has(token, &path).await.map_err(refused)? {
                continue;
            }
            vault
                .write(token, &path, &part.body)
                .await
                .map_err(refused)?;
            say(&format!("made at Vault: {path}"));
        }
        Ok(())
    }
}

/// Where tokens of a role are created.
const CREATE: &str = "auth/token/create/";

impl Part {
    fn path(&self) -> String {
        let place = match self.kind {
            Kind::Policy => "sys/policies/acl",
            Kind::Role => "auth/token/roles",
        };
        format!("{place}/{}", self.name)
    }

    fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

fn refused(vault: &Direct, path: &str, error: &VaultError) -> Problem {
    if error.is_denied() {
        let message = format!(
            "Vault at {} does not let this login make {path} ({error}): have an administrator of Vault run /usr/share/doc/vaulttmpfs/examples/vault-side.sh",
            vault.address()
        );
        return Problem::new(Exit::Denied, message);
    }
    vault.trouble(error).into()
}

/// The commands of the example: `vault policy write NAME - <<'HCL'` and the lines up to `HCL`, and `vault
/// write auth/token/roles/NAME key=value...`, also over several lines.
fn parse(script: &str) -> Vec<Part> {
    let script = script.replace("\\\n", " ");
    let mut lines = script.lines();
    let mut parts = Vec::new();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["vault", "policy", "write", name, "-", "<<'HCL'"] => {
                let rules: Vec<&str> = lines.by_ref().take_while(|line| *line != "HCL").collect();
                parts.push(Part {
                    kind: Kind::Policy,
                    name: name.to_owned(),
                    body: json!({ "policy": rules.join("\n") }),
                });
            }
            ["vault", "write", path, ref settings @ ..] => {
                let name = path.strip_prefix("auth/token/roles/").unwrap_or(path);
                let pairs = settings.iter().filter_map(|word| word.split_once('='));
                let body: Map<String, Value> = pairs
                    .map(|(key, value)| (key.to_owned(), Value::from(value)))
                    .collect();
                parts.push(Part {
                    kind: Kind::Role,
                    name: name.to_owned(),
                    body: body.into(),
                });
            }
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(policies: &[&str]) -> Vec<String> {
        let policies: Vec<String> = policies.iter().map(ToString::to_string).collect();
        let side = VaultSide::for_policies(&policies).unwrap();
        side.0.iter().map(Part::path).collect()
    }

    #[test]
    fn every_command_of_the_example_is_understood() {
        let parts = parse(EXAMPLE);
        let commands = EXAMPLE.lines().filter(|line| line.starts_with("vault "));
        assert_eq!(parts.len(), commands.count());
        let role = parts.iter().find(|part| part.name == "applications");
        let expected = json!({"orphan": "true", "renewable": "true", "period": "24h", "allowed_policies": "web"});
        assert_eq!(role.unwrap().body, expected);
        let policy = parts
            .iter()
            .find(|part| part.name == "applications_token_creator");
        let rules = policy.unwrap().text("policy");
        assert!(rules.contains("min_wrapping_ttl = \"1s\""), "{rules}");
        assert!(rules.trim_end().ends_with('}'), "{rules}");
    }

    #[test]
    fn a_token_needs_its_policies_their_roles_and_what_these_allow() {
        assert_eq!(
            paths(&["applications_token_creator"]),
            [
                "sys/policies/acl/web",
                "auth/token/roles/applications",
                "sys/policies/acl/applications_token_creator",
            ]
        );
        let both = paths(&[
            "applications_token_creator",
            "applications_unwrapped_token_creator",
        ]);
        assert_eq!(both.len(), 5, "{both:?}");
        let unknown = VaultSide::for_policies(&["other".to_owned()]).unwrap_err();
        assert!(unknown.contains("applications_token_creator"), "{unknown}");
        assert!(!unknown.contains("web"), "{unknown}");
    }
}
