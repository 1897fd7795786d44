//! The last net: tokens are known by their form. None should come so far.

/// How tokens begin: those of Vault since 1.10, and those before, which are `OpenBao`'s, too.
const BEGINNINGS: [&str; 6] = ["hvs.", "hvb.", "hvr.", "s.", "b.", "r."];

/// No token is shorter, its beginning aside.
const SHORTEST: usize = 20;

/// What stands where one was.
const INSTEAD: &str = "(a token was here)";

/// The text without what has the form of a token.
pub(super) fn without_tokens(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_of_word) {
        let (before, word) = rest.split_at(at);
        let end = word.find(|one| !is_of_word(one)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        clean.push_str(before);
        match token_in(word) {
            Some(at) => {
                clean.push_str(&word[..at]);
                clean.push_str(INSTEAD);
            }
            None => clean.push_str(word),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// Where in a word a token begins: at its begin, or behind something that is no letter or digit.
fn token_in(word: &str) -> Option<usize> {
    let starts = word.char_indices().filter(|(at, _)| {
        let before = word[..*at].chars().next_back();
        before.is_none_or(|one| !one.is_ascii_alphanumeric())
    });
    starts.map(|(at, _)| at).find(|at| is_token(&word[*at..]))
}

fn is_token(text: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| {
        text.strip_prefix(beginning).is_some_and(|rest| {
            let end = rest.find('.').unwrap_or(rest.len());
            end >= SHORTEST
        })
    })
}

/// What tokens are made of.
fn is_of_word(one: char) -> bool {
    one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_out_wherever_they_are() {
        let old = "s.aaaaaaaaaaaaaaaaaaaaaaaa";
        let new = format!("hvs.{}", "Aa0-_".repeat(19));
        for (text, clean) in [
            (old.to_owned(), INSTEAD.to_owned()),
            (format!("token={new}\n"), format!("token={INSTEAD}\n")),
            (
                format!("\"{new}\", {old}"),
                format!("\"{INSTEAD}\", {INSTEAD}"),
            ),
            (format!("/etc/x-{old}"), format!("/etc/x-{INSTEAD}")),
            (format!("{old}.namespace"), INSTEAD.to_owned()),
            (format!("äö {old} ü"), format!("äö {INSTEAD} ü")),
        ] {
            assert_eq!(without_tokens(&text), clean);
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "systemd.exec(5), vaults.example.com and s.txt",
            "0123456789abcdef0123456789abcdef",
            "pods.kubelet-0123456789abcdef0123456789abcdef",
            "b.example.com s.short ….",
        ] {
            assert_eq!(without_tokens(text), text);
        }
    }
}
