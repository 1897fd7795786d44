//! The token roles: the default one, and those of the volumes that the node has.

use super::report::{Group, Report};
use crate::duration::to_go;
use crate::options::RoleName;
use crate::vault::{Findings, Generator, Probe, Role};
use crate::volumes::plan;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

pub(super) const TITLE: &str = "roles";

/// A pod's token of a shorter period does not survive a night's outage.
const SHORT_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// More roles of volumes are not looked at.
const MOST: usize = 8;

/// Who asks for roles, and from where.
pub(super) struct Asking<'a> {
    pub(super) probe: &'a Probe,
    pub(super) generator: &'a Generator,
    /// This node's address on the way to Vault.
    pub(super) node: Option<IpAddr>,
}

/// The default role, where it could be read.
pub(super) async fn check(
    report: &mut Report,
    default: &RoleName,
    in_use: &BTreeSet<String>,
    asking: &Asking<'_>,
) -> Option<Role> {
    let mut group = report.group(TITLE);
    let role = one(&mut group, default, true, asking).await;
    let others = in_use
        .iter()
        .filter(|name| *name != default.as_str())
        .filter_map(|name| name.parse().ok());
    for name in others.take(MOST) {
        one(&mut group, &name, false, asking).await;
    }
    role
}

async fn one(
    group: &mut Group<'_>,
    name: &RoleName,
    is_default: bool,
    asking: &Asking<'_>,
) -> Option<Role> {
    let mut findings = Findings::default();
    let role = match asking.probe.role(name).await {
        Ok(role) => role,
        Err(error) if error.is_not_found() => {
            if is_default {
                findings.no_role(name);
            } else {
                findings.concerns.push(format!(
                    "Vault has no token role `{name}`, by which mounted volumes got their tokens: these cannot be renewed; create it again"
                ));
            }
            for concern in findings.concerns {
                group.failure(concern);
            }
            return None;
        }
        Err(error) if error.is_denied() => {
            group.not_checked(format!(
                "the token role `{name}`: the generator token may not read it"
            ));
            return None;
        }
        Err(error) => {
            group.not_checked(asking.probe.explained(&error));
            return None;
        }
    };
    findings.about_role(name, &role);
    policies(&mut findings, name, &role, asking.generator);
    life(&mut findings, name, &role);
    networks(&mut findings, name, &role, asking.node);
    for concern in &findings.concerns {
        group.failure(concern);
    }
    for warning in &findings.warnings {
        group.warning(warning);
    }
    if findings == Findings::default() {
        let period = role.period().unwrap_or_default();
        group.ok(format!(
            "`{name}` makes orphans with a period of {}, which survive an outage of {}; allowed policies: {}",
            to_go(period),
            to_go(plan::survives(period)),
            role.allowed_policies().join(", ")
        ));
    }
    Some(role)
}

fn policies(findings: &mut Findings, name: &RoleName, role: &Role, generator: &Generator) {
    let own: Vec<&str> = role
        .allowed_policies()
        .iter()
        .filter(|policy| generator.is_own_policy(policy) || *policy == "root")
        .map(String::as_str)
        .collect();
    if !own.is_empty() {
        findings.concerns.push(format!(
            "the token role `{name}` allows {}, the generator token's own or root, which no pod is given: take them out of its allowed_policies",
            own.join(", ")
        ));
    }
}

fn life(findings: &mut Findings, name: &RoleName, role: &Role) {
    match role.period() {
        Some(period) if period < SHORT_PERIOD => findings.warnings.push(format!(
            "the token role `{name}` has a period of {}: its tokens survive an outage of Vault, or of this node, of {} and no longer; 24h to 72h is recommended",
            to_go(period),
            to_go(plan::survives(period))
        )),
        Some(_) => {}
        None => findings.warnings.push(format!(
            "the token role `{name}` has no period: its tokens end with their max TTL, however often they are renewed; vault write auth/token/roles/{name} period=24h"
        )),
    }
    if let Some(most) = role.max_ttl() {
        findings.warnings.push(format!(
            "the token role `{name}` has an explicit max TTL of {}: no pod's token lives longer",
            to_go(most)
        ));
    }
    if let Some(uses) = role.num_uses() {
        findings.warnings.push(format!(
            "the token role `{name}` gives tokens that end after {uses} calls of the pod's (num_uses): a pod that calls more often loses its token"
        ));
    }
}

fn networks(findings: &mut Findings, name: &RoleName, role: &Role, node: Option<IpAddr>) {
    let bound = role.bound_cidrs();
    if bound.is_empty() {
        return;
    }
    let all = bound.join(", ");
    match node {
        Some(node) if !bound.iter().any(|cidr| contains(cidr, node)) => {
            findings.warnings.push(format!(
                "the token role `{name}` binds its tokens to {all}, and this node comes to Vault from {node}: pods whose calls come from there cannot use them"
            ));
        }
        _ => findings.warnings.push(format!(
            "the token role `{name}` binds its tokens to {all}: pods that come to Vault from elsewhere cannot use them"
        )),
    }
}

/// Is an address in a network, written as `10.0.0.0/8` or as one address?
fn contains(cidr: &str, address: IpAddr) -> bool {
    let (network, length) = match cidr.split_once('/') {
        Some((network, length)) => (network, length.parse().ok()),
        None => (cidr, Some(128)),
    };
    let (Ok(network), Some(length)) = (network.parse::<IpAddr>(), length) else {
        return false;
    };
    let same_start = |one: &[u8], other: &[u8], length: usize| {
        let length = length.min(one.len() * 8);
        let (whole, rest) = (length / 8, length % 8);
        one[..whole] == other[..whole]
            && (rest == 0 || (one[whole] ^ other[whole]) >> (8 - rest) == 0)
    };
    match (network, address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same_start(&one.octets(), &other.octets(), length),
        (IpAddr::V6(one), IpAddr::V6(other)) => same_start(&one.octets(), &other.octets(), length),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_addresses() {
        for (cidr, address, expected) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.168.4.0/22", "192.168.7.255", true),
            ("192.168.4.0/22", "192.168.8.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("10.0.0.0/8", "::1", false),
            ("10.0.0.0/99", "10.0.0.0", true),
            ("10.0.0.0/x", "10.0.0.1", false),
            ("nonsense", "10.0.0.1", false),
        ] {
            assert_eq!(contains(cidr, address.parse().unwrap()), expected, "{cidr}");
        }
    }
}
