//! What a call to Vault can come to, judged in one place.

use crate::line::harmless;
use std::fmt;
use std::time::Duration;

/// The longest of Vault's texts that is passed on, in characters.
const MAX_TEXT: usize = 400;

/// A call to Vault that did not succeed.
///
/// Its text never holds a token or an accessor: Vault's own texts are passed on bounded and without
/// control characters, everything else is said by the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultError {
    /// There was no connection, so nothing was sent. Holds the chain of causes.
    NoConnection(String),
    /// The request was sent, perhaps in part, and no whole answer came. Holds the chain of causes.
    NoAnswer(String),
    /// The request was sent and no answer came within this time.
    TimedOut(Duration),
    /// The answer was larger than [`super::transport::MAX_ANSWER`] bytes.
    TooLarge,
    /// A success that is not what Vault answers to this call. Holds what is wrong with it.
    NotUnderstood(&'static str),
    /// A redirect that is not followed. Holds where to.
    Redirected(String),
    /// An answer with an error status.
    Answered(Answered),
}

/// An answer of Vault, or of something in front of it, with an error status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// Vault's texts; nothing where the answer was not in Vault's own JSON form.
    pub errors: Option<Vec<String>>,
    /// How long Vault asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Answered {
    /// Reads an error answer's body: `{"errors": ["…"]}` is Vault's own form.
    #[must_use]
    pub fn parse(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        #[derive(serde::Deserialize)]
        struct Body {
            errors: Vec<String>,
        }
        let errors = serde_json::from_slice::<Body>(body)
            .ok()
            .map(|body| body.errors.iter().map(|text| clean(text)).collect());
        Self {
            status,
            errors,
            retry_after,
        }
    }

    fn says(&self, text: &str) -> bool {
        self.errors
            .iter()
            .flatten()
            .any(|error| error.contains(text))
    }
}

impl VaultError {
    /// May a create that ended so be sent once more without the danger of a second token? Only
    /// where Vault surely did not carry it out: nothing was sent, or it was turned away at the door
    /// (412 not yet consistent, 429 quota, 472/473 standby kinds, 503 in Vault's own form: sealed).
    /// 500, 502, 504 and a cut answer may hide a token that was made.
    #[must_use]
    pub fn create_may_be_repeated(&self) -> bool {
        match self {
            Self::NoConnection(_) => true,
            Self::Answered(answer) => match answer.status {
                412 | 429 | 472 | 473 => true,
                503 => answer.errors.is_some(),
                _ => false,
            },
            _ => false,
        }
    }

    /// May a call that changes nothing, or can be done twice, be sent once more?
    #[must_use]
    pub fn read_may_be_repeated(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::NoAnswer(_) | Self::TimedOut(_) => true,
            Self::Answered(answer) => matches!(answer.status, 412 | 429 | 472 | 473 | 500..),
            Self::TooLarge | Self::NotUnderstood(_) | Self::Redirected(_) => false,
        }
    }

    /// The HTTP status, or a word for what came instead: few and constant, for the metrics.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::NoConnection(_) => "no-connection",
            Self::NoAnswer(_) => "no-answer",
            Self::TimedOut(_) => "timed-out",
            Self::TooLarge => "too-large",
            Self::NotUnderstood(_) => "not-understood",
            Self::Redirected(_) => "redirected",
            Self::Answered(answer) => match answer.status {
                400 => "400",
                403 => "403",
                404 => "404",
                412 => "412",
                429 => "429",
                472 => "472",
                473 => "473",
                500 => "500",
                502 => "502",
                503 => "503",
                504 => "504",
                other if (400..500).contains(&other) => "4xx",
                other if (500..600).contains(&other) => "5xx",
                _ => "other",
            },
        }
    }

    /// Vault turned the token away: it is bad or expired, or lacks a right.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.status == 403)
    }

    /// Would any other call fail so, too? Then it is the session's trouble, not one volume's.
    #[must_use]
    pub fn concerns_all_calls(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::NoAnswer(_) | Self::TimedOut(_) => true,
            Self::Answered(answer) => matches!(answer.status, 472 | 473 | 502..=504),
            Self::TooLarge | Self::NotUnderstood(_) | Self::Redirected(_) => false,
        }
    }

    /// Did Vault itself refuse the call, for a reason that is the caller's? Then it was not carried out.
    #[must_use]
    pub fn is_answered_for_the_caller(&self) -> bool {
        matches!(self, Self::Answered(answer)
            if answer.errors.is_some() && matches!(answer.status, 400 | 401 | 403 | 404))
    }

    /// Vault has nothing under that path.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.status == 404)
    }

    /// Vault is sealed, in maintenance, or not initialised.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.status == 503 && answer.errors.is_some())
    }

    /// Vault, or something in front of it, asks us to come later.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.status == 429)
    }

    /// The token role does not exist (`400 unknown role`, tried on `OpenBao`).
    #[must_use]
    pub fn is_unknown_role(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.says("unknown role"))
    }

    /// The role does not allow a policy that was asked for.
    #[must_use]
    pub fn is_policy_not_allowed(&self) -> bool {
        matches!(self, Self::Answered(answer)
            if answer.says("must be subset of") || answer.says("disallowed policies"))
    }

    /// What a failed call by accessor means for the volume, by Vault's text first: final errors hide
    /// behind 500 (each text was tried on `OpenBao`).
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Self::Answered(answer) = self else {
            return Verdict::Later;
        };
        let says = |texts: &[&str]| texts.iter().any(|text| answer.says(text));
        if says(&["invalid accessor"]) {
            Verdict::Gone
        } else if says(&FINAL_TEXTS) {
            Verdict::Final
        } else if answer.status == 403 {
            Verdict::Denied
        } else {
            Verdict::Later
        }
    }

    /// How long Vault asked us to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered(answer) => answer.retry_after,
            _ => None,
        }
    }
}

/// What a failed call by accessor means for the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Vault does not know the accessor: the token is gone.
    Gone,
    /// The generator token is bad or lacks the right: says nothing of the volume.
    Denied,
    /// It will never work.
    Final,
    /// It may work later.
    Later,
}

/// Texts of errors that no retry mends, whatever their status.
const FINAL_TEXTS: [&str; 5] = [
    "invalid request",
    "past the max TTL, cannot renew",
    "original token role",
    "cannot lookup token in different namespace",
    "not renewable",
];

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(cause) => write!(f, "no connection: {cause}"),
            Self::NoAnswer(cause) => write!(f, "no whole answer: {cause}"),
            Self::TimedOut(after) => {
                write!(f, "no answer within {}", crate::duration::to_go(*after))
            }
            Self::TooLarge => f.write_str("an answer larger than 1 MiB"),
            Self::NotUnderstood(what) => write!(f, "an answer that is not Vault's: {what}"),
            Self::Redirected(to) => write!(f, "a redirect to {to}, which is not followed"),
            Self::Answered(answer) => match answer.errors.as_deref() {
                Some([]) => write!(f, "status {}", answer.status),
                Some(texts) => write!(f, "status {}: {}", answer.status, texts.join("; ")),
                None => write!(f, "status {}, not in Vault's form", answer.status),
            },
        }
    }
}

impl std::error::Error for VaultError {}

/// Vault's text as one line of bounded length.
fn clean(text: &str) -> String {
    let line: Vec<&str> = text
        .split(|c: char| c.is_control() || c == ' ')
        .filter(|word| !word.is_empty())
        .collect();
    let line = line.join(" ");
    // Vault's multierror form says nothing in its head line.
    let line = line.strip_prefix("1 error occurred: * ").unwrap_or(&line);
    harmless(line).chars().take(MAX_TEXT).collect()
}

/// An error with its causes, as one line: what libraries say last is what helps.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = clean(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = clean(&error.to_string());
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.chars().take(2 * MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> VaultError {
        VaultError::Answered(Answered::parse(status, body.as_bytes(), None))
    }

    #[test]
    fn a_create_is_repeated_only_where_nothing_was_made() {
        let json = r#"{"errors":["Vault is sealed"]}"#;
        for (error, repeat) in [
            (VaultError::NoConnection(String::new()), true),
            (VaultError::NoAnswer(String::new()), false),
            (VaultError::TimedOut(Duration::from_secs(1)), false),
            (VaultError::TooLarge, false),
            (VaultError::NotUnderstood("x"), false),
            (VaultError::Redirected(String::new()), false),
            (answered(400, json), false),
            (answered(403, json), false),
            (answered(404, json), false),
            (answered(412, json), true),
            (answered(429, "<html>"), true),
            (answered(472, ""), true),
            (answered(473, ""), true),
            (answered(500, json), false),
            (answered(502, json), false),
            (answered(503, json), true),
            (answered(503, r#"{"errors":[]}"#), true),
            (answered(503, "<html>no server is available</html>"), false),
            (answered(504, json), false),
        ] {
            assert_eq!(error.create_may_be_repeated(), repeat, "{error}");
        }
    }

    #[test]
    fn calls_by_accessor_are_judged_by_text_then_status() {
        for (status, text, verdict) in [
            (400, "invalid accessor", Verdict::Gone),
            (403, "invalid accessor", Verdict::Gone),
            (403, "permission denied", Verdict::Denied),
            (400, "invalid request", Verdict::Final),
            (400, "missing client token", Verdict::Later),
            (500, "past the max TTL, cannot renew", Verdict::Final),
            (
                500,
                "original token role \\\"x\\\" could not be found, not renewing",
                Verdict::Final,
            ),
            (
                500,
                "cannot lookup token in different namespace",
                Verdict::Final,
            ),
            (500, "internal error", Verdict::Later),
            (503, "Vault is sealed", Verdict::Later),
            (429, "quota", Verdict::Later),
        ] {
            let body = format!(r#"{{"errors":["{text}"]}}"#);
            assert_eq!(
                answered(status, &body).verdict(),
                verdict,
                "{status} {text}"
            );
        }
        assert_eq!(answered(400, "<html>").verdict(), Verdict::Later);
        assert_eq!(VaultError::TooLarge.verdict(), Verdict::Later);
    }

    #[test]
    fn texts_are_one_bounded_line() {
        let error = answered(
            403,
            r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#,
        );
        assert_eq!(error.to_string(), "status 403: permission denied");
        assert!(error.is_denied());
        let long = format!(r#"{{"errors":["{}"]}}"#, "x".repeat(5000));
        assert!(answered(400, &long).to_string().len() < 500);
        assert_eq!(
            answered(503, "busy").to_string(),
            "status 503, not in Vault's form"
        );
        assert!(answered(400, r#"{"errors":["unknown role x"]}"#).is_unknown_role());
    }
}
