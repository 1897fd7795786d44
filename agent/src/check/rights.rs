//! What the generator token may do: each right that the agent needs, and how it may wrap.

use super::report::Report;
use crate::duration::to_go;
use crate::vault::{Findings, Needs, Probe, renew_itself};

pub(super) const TITLE: &str = "rights";
pub(super) const WRAPPING: &str = "wrapping";

pub(super) async fn check(report: &mut Report, needs: &Needs, probe: &Probe) {
    let mut group = report.group(TITLE);
    let mut rights = Vec::from(needs.rights());
    rights.push(renew_itself());
    let paths: Vec<String> = rights.iter().map(|right| right.path.clone()).collect();
    match probe.capabilities(&paths).await {
        Ok(capabilities) => {
            for right in rights {
                if right.is_in(&capabilities) {
                    group.ok(format!("{} on {}", right.capability, right.path));
                } else if right.needed {
                    group.failure(right.lacking());
                } else {
                    group.warning(right.lacking());
                }
            }
        }
        Err(error) if error.is_denied() => {
            let mut findings = Findings::default();
            findings.may_not_ask(&error);
            for warning in findings.warnings {
                group.warning(warning);
            }
        }
        Err(error) => group.not_checked(probe.explained(&error)),
    }
}

pub(super) async fn wrapping(report: &mut Report, needs: &Needs, probe: &Probe) {
    let mut group = report.group(WRAPPING);
    let bounds = match probe.wrapping_bounds(&needs.create()).await {
        Ok(bounds) => bounds,
        Err(error) => {
            return group.not_checked(format!("Vault does not tell the policy's bounds ({error})"));
        }
    };
    let mut findings = Findings::default();
    findings.about_wrapping(needs, bounds);
    for concern in &findings.concerns {
        group.failure(concern);
    }
    if bounds.least.is_none() {
        group.warning(format!(
            "the generator token may make plain tokens at {}: whoever steals it gets them in one step; set min_wrapping_ttl = \"1s\" in its policy",
            needs.create()
        ));
    }
    if findings.concerns.is_empty()
        && let Some(least) = bounds.least
    {
        let most = bounds.most.map_or("any".to_owned(), to_go);
        group.ok(format!(
            "tokens may be wrapped for {} to {most}, by default they are for {}",
            to_go(least),
            to_go(needs.wrap_ttl())
        ));
    }
}
