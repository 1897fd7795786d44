//! A volume's condition in one word.

use super::record::{Origin, Record, State};
use super::registry::Volumes;
use super::report::never_unwrapped;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The one word for a volume: its state, or the worst that is to be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The driver has it; nobody has said yet that it is mounted.
    Delivered,
    /// It is mounted.
    Attached,
    /// It is mounted, and nobody has unwrapped its token in time.
    NotUnwrapped,
    /// It is mounted, and its token cannot be kept alive.
    Unmanaged,
    /// Its token is of a Vault that the settings do not name, or of another cluster than is there now, and
    /// left alone.
    OtherVault,
    /// It is mounted, and Vault does not know its token any more.
    Lost,
    /// It has ended, and its token's revocation is owed.
    Ended,
}

impl Condition {
    /// The condition of a volume, as an agent for this Vault sees it.
    #[must_use]
    pub fn of(record: &Record, here: &Origin) -> Self {
        match record.state {
            _ if !record.origin.same_vault(here) => Self::OtherVault,
            State::Ended => Self::Ended,
            _ if record.lost => Self::Lost,
            State::Delivered => Self::Delivered,
            State::Attached if record.unmanaged.is_some() => Self::Unmanaged,
            State::Attached if never_unwrapped(record) => Self::NotUnwrapped,
            State::Attached => Self::Attached,
        }
    }
}

impl Condition {
    /// The word, as JSON and the commands have it.
    #[must_use]
    pub fn word(self) -> String {
        // None is left out of the values.
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl Volumes {
    /// How many volumes there are in each condition that some are in.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<Condition, usize> {
        let mut conditions = BTreeMap::new();
        let here = self.origin();
        self.for_each(|record| {
            *conditions.entry(Condition::of(record, &here)).or_default() += 1;
        });
        conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::volumes::Wrapping;
    use crate::volumes::record::tests::attached;
    use secrecy::SecretString;

    #[test]
    fn the_worst_is_said() {
        let here = Origin::default();
        let mut record = attached(0);
        let mut becomes = |change: fn(&mut Record), expected| {
            change(&mut record);
            assert_eq!(Condition::of(&record, &here), expected);
        };
        becomes(|_| {}, Condition::Attached);
        becomes(
            |record| {
                record.wrapping = Some(Wrapping {
                    accessor: SecretString::from("wrapping").into(),
                    ends: record.created,
                    unwrapped: Some(false),
                });
            },
            Condition::NotUnwrapped,
        );
        becomes(
            |record| record.unmanaged = Some("batch".into()),
            Condition::Unmanaged,
        );
        becomes(
            |record| record.state = State::Delivered,
            Condition::Delivered,
        );
        becomes(|record| record.lost = true, Condition::Lost);
        becomes(
            |record| record.end(Moment::now(), false, true),
            Condition::Ended,
        );
        becomes(
            |record| record.origin.vault_addr = "https://other".into(),
            Condition::OtherVault,
        );
        record = attached(0);
        record.origin.cluster_id = "another".into();
        assert_eq!(Condition::of(&record, &here), Condition::Attached);
        let here = Origin {
            cluster_id: "one".into(),
            ..here
        };
        assert_eq!(Condition::of(&record, &here), Condition::OtherVault);
    }

    #[test]
    fn its_word_is_the_same_everywhere() {
        for condition in Condition::value_variants() {
            assert_eq!(serde_json::to_value(condition).unwrap(), condition.word());
            assert!(!condition.word().is_empty());
        }
    }
}
