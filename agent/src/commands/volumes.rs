//! `vaulttmpfs volumes`: the node's volumes, one a line.

use super::{client, complain, show, unseen};
use crate::duration::{self, to_glance};
use crate::exit::Exit;
use crate::screen::{Cell, Column, Mood, Screen, table};
use crate::volumes::Condition;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::Duration;
use vaulttmpfs_api::VOLUMES_PATH;

/// Which volumes are listed, and how.
#[derive(Args, Debug, Default)]
pub struct Volumes {
    /// Print all that the agent says of each, as JSON.
    #[arg(long)]
    json: bool,
    /// Only volumes in this state; may be given several times.
    #[arg(long, value_name = "STATE")]
    state: Vec<Condition>,
    /// Only volumes older than this, as in 30d or 1h30m.
    #[arg(long, value_name = "AGE", value_parser = duration::parse_seconds_too)]
    older: Option<Duration>,
    /// Only volumes of this namespace.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only volumes of pods of this name.
    #[arg(long)]
    pod: Option<String>,
}

/// What the agent lists. An older one may leave out what is not needed to know a volume.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    volumes: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    pod: Pod<'a>,
    #[serde(borrow)]
    volume: Cow<'a, str>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    policies: Vec<String>,
    condition: Condition,
    age_s: u64,
    renewed_s: Option<u64>,
    expires_s: Option<u64>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
}

const COLUMNS: [Column; 8] = [
    column("NAMESPACE/POD", Some(13)),
    column("VOLUME", Some(6)),
    column("ROLE", Some(6)),
    column("POLICIES", Some(8)),
    column("AGE", None),
    column("EXPIRES", None),
    column("RENEWED", None),
    column("STATE", None),
];

const fn column(head: &'static str, least: Option<usize>) -> Column {
    Column { head, least }
}

/// Runs the command.
#[must_use]
pub fn run(wish: &Volumes) -> Exit {
    let body = match client::look_now(VOLUMES_PATH) {
        Ok(body) => body,
        Err(reason) => return unseen(reason),
    };
    let Some(text) = wish.list(&body, &Screen::of_output()) else {
        complain("what answers there is not a vaulttmpfs agent of this version");
        return Exit::Failed;
    };
    show(&text);
    Exit::Done
}

impl Volumes {
    /// The list as it is printed; nothing where the agent's is none.
    fn list(&self, body: &[u8], screen: &Screen) -> Option<String> {
        let list: List = serde_json::from_slice(body).ok()?;
        let volumes = list.volumes.into_iter().map(|raw| {
            let volume: Listed = serde_json::from_str(raw.get()).ok()?;
            Some((volume, raw))
        });
        let mut volumes: Vec<(Listed, &RawValue)> = volumes.collect::<Option<_>>()?;
        volumes.retain(|(volume, _)| self.wants(volume));
        if self.json {
            let raw: Vec<&RawValue> = volumes.iter().map(|(_, raw)| *raw).collect();
            let list = serde_json::to_string(&serde_json::json!({ "volumes": raw })).ok()?;
            return Some(list + "\n");
        }
        volumes.sort_by(|(one, _), (other, _)| one.place().cmp(&other.place()));
        let rows: Vec<_> = volumes.iter().map(|(volume, _)| volume.row()).collect();
        Some(table(screen, &COLUMNS, &rows))
    }

    fn wants(&self, volume: &Listed<'_>) -> bool {
        let is = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|one| one == it);
        (self.state.is_empty() || self.state.contains(&volume.condition))
            && self.older.is_none_or(|age| volume.age_s > age.as_secs())
            && is(&self.namespace, &volume.pod.namespace)
            && is(&self.pod, &volume.pod.name)
    }
}

impl Listed<'_> {
    /// Volumes are listed in this order; of one place the older first.
    fn place(&self) -> (&str, &str, &str, u64) {
        let newest_last = u64::MAX - self.age_s;
        (&self.pod.namespace, self.pod(), &self.volume, newest_last)
    }

    /// A static pod's older kubelet may not say its name.
    fn pod(&self) -> &str {
        let Pod { uid, name, .. } = &self.pod;
        if name.is_empty() { uid } else { name }
    }

    fn row(&self) -> [Cell<'_>; 8] {
        let (state, mood) = words(self.condition);
        let glance = |seconds| to_glance(Duration::from_secs(seconds));
        let expires = match self.expires_s {
            None => Cell::new("-"),
            Some(0) => Cell::new("expired").feels(Mood::Bad),
            Some(seconds) => Cell::new(glance(seconds)),
        };
        let renewed = match self.renewed_s {
            None => Cell::new("-"),
            Some(seconds) => Cell::new(format!("{} ago", glance(seconds))),
        };
        [
            Cell::new(format!("{}/{}", self.pod.namespace, self.pod())),
            Cell::new(self.volume.as_ref()),
            Cell::new(self.role.as_ref()),
            Cell::new(self.policies.join(",")),
            Cell::new(glance(self.age_s)),
            expires,
            renewed,
            Cell::new(state).feels(mood),
        ]
    }
}

/// The condition's word as it is asked for, and how it is to be felt.
fn words(condition: Condition) -> (String, Mood) {
    let mood = match condition {
        Condition::Attached => Mood::Good,
        Condition::Delivered | Condition::Ended => Mood::Plain,
        Condition::NotUnwrapped | Condition::Unmanaged | Condition::OtherVault => Mood::Doubt,
        Condition::Lost => Mood::Bad,
    };
    (condition.word(), mood)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"volumes":[
        {"id":"1","pod":{"uid":"u","name":"web-1","namespace":"shop"},"volume":"vault","role":"applications",
         "policies":["app","other"],"condition":"lost","age_s":2592001,"renewed_s":90,"expires_s":0,"later":{}},
        {"id":"2","pod":{"uid":"u","name":"web-0","namespace":"shop"},"volume":"vault","role":"applications",
         "policies":["app"],"condition":"attached","age_s":60,"renewed_s":null,"expires_s":3540},
        {"id":"3","pod":{"uid":"0123","name":"","namespace":""},"volume":"a\u001b[2J","role":"r",
         "policies":[],"condition":"ended","age_s":0,"renewed_s":null,"expires_s":null}]}"#;

    fn listed(wish: &Volumes) -> String {
        wish.list(LIST.as_bytes(), &Screen::default()).unwrap()
    }

    #[test]
    fn a_volume_is_a_line() {
        assert_eq!(
            listed(&Volumes::default()),
            "NAMESPACE/POD  VOLUME      ROLE          POLICIES   AGE  EXPIRES  RENEWED    STATE\n\
             /0123          a\\u{1b}[2J  r                        0s   -        -          ended\n\
             shop/web-0     vault       applications  app        1m   59m      -          attached\n\
             shop/web-1     vault       applications  app,other  30d  expired  1m30s ago  lost\n"
        );
    }

    #[test]
    fn filters_choose() {
        let ids = |wish: Volumes| {
            let wish = Volumes { json: true, ..wish };
            let list: serde_json::Value = serde_json::from_str(&listed(&wish)).unwrap();
            let volumes = list["volumes"].as_array().unwrap();
            let ids: Vec<&str> = volumes
                .iter()
                .map(|one| one["id"].as_str().unwrap())
                .collect();
            ids.concat()
        };
        let all = Volumes::default;
        let namespace = |name: &str| Some(name.to_owned());
        for (wish, expected) in [
            (all(), "123"),
            (
                Volumes {
                    state: vec![Condition::Lost],
                    ..all()
                },
                "1",
            ),
            (
                Volumes {
                    state: vec![Condition::Lost, Condition::Ended],
                    ..all()
                },
                "13",
            ),
            (
                Volumes {
                    older: Some(Duration::from_secs(2_592_000)),
                    ..all()
                },
                "1",
            ),
            (
                Volumes {
                    older: Some(Duration::from_secs(2_592_001)),
                    ..all()
                },
                "",
            ),
            (
                Volumes {
                    namespace: namespace("shop"),
                    ..all()
                },
                "12",
            ),
            (
                Volumes {
                    namespace: namespace(""),
                    ..all()
                },
                "3",
            ),
            (
                Volumes {
                    namespace: namespace("shop"),
                    pod: namespace("web-0"),
                    ..all()
                },
                "2",
            ),
            (
                Volumes {
                    pod: namespace("web"),
                    ..all()
                },
                "",
            ),
        ] {
            assert_eq!(ids(wish), expected);
        }
        let lost = Volumes {
            json: true,
            state: vec![Condition::Lost],
            ..all()
        };
        assert!(
            listed(&lost).contains(r#""later":{}"#),
            "all that the agent says"
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"volumes":[{}]}"#,
            r#"{"volumes":[1]}"#,
            "\u{ff}",
        ] {
            let list = Volumes::default().list(bad.as_bytes(), &Screen::default());
            assert_eq!(list, None, "{bad}");
        }
    }
}
