//! Who comes to Vault to make the token.

use super::questions::{Question, Questions};
use super::{Bootstrap, Problem, given, values};
use crate::exit::Exit;
use crate::vault::read_token_file;
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// The variables of a token, as Vault's own clients have them.
const TOKEN_VARIABLES: [&str; 2] = ["BAO_TOKEN", "VAULT_TOKEN"];

/// A way to a token that may make another.
pub(super) enum Login {
    /// The caller's own token, which stays theirs.
    Own(SecretString),
    /// A name and its password.
    Password {
        /// Where the auth method is mounted.
        mount: String,
        /// The user.
        username: String,
        /// Their password.
        password: SecretString,
    },
    /// Something that is unwrapped once.
    Wrapped {
        /// The wrapping token.
        token: SecretString,
        /// Where it was.
        file: PathBuf,
    },
}

impl Login {
    /// What was given counts before `VAULT_TOKEN`, and that before questions.
    pub(super) async fn of(wish: &Bootstrap, questions: &Questions) -> Result<Self, Problem> {
        if let Some(file) = given(wish.wrapped_token_file.as_ref()) {
            let file = Path::new(file).to_owned();
            let token = read_token_file(&file).map_err(|error| {
                let message = format!("no wrapped token in {}: {error}", file.display());
                Problem::new(Exit::BadData, message)
            })?;
            return Ok(Self::Wrapped { token, file });
        }
        let by_password = [&wish.method, &wish.username, &wish.password_file];
        if by_password.iter().all(|it| given(it.as_ref()).is_none()) {
            if let Some(token) = own_token()? {
                return Ok(Self::Own(token));
            }
            if !questions.reach_a_person() {
                return Err(Problem::new(
                    Exit::Usage,
                    "no login: set VAULT_TOKEN, or give --username and --password-file, or --wrapped-token-file; standard input is no terminal to ask at",
                ));
            }
        }
        Self::by_password(wish, questions).await
    }

    async fn by_password(wish: &Bootstrap, questions: &Questions) -> Result<Self, Problem> {
        let question = Question {
            option: "--method",
            text: "Log in by ldap or userpass",
            default: Some("ldap"),
        };
        let method = questions
            .answer(given(wish.method.as_ref()), &question, values::method)
            .await?;
        let question = Question {
            option: "--auth-mount",
            text: "",
            default: None,
        };
        let mount = given(wish.auth_mount.as_ref()).unwrap_or(&method);
        let mount = questions
            .answer(Some(mount), &question, values::mount)
            .await?;
        let question = Question {
            option: "--username",
            text: "User",
            default: None,
        };
        let username = questions
            .answer(given(wish.username.as_ref()), &question, values::username)
            .await?;
        let password = questions
            .password(given(wish.password_file.as_ref()))
            .await?;
        Ok(Self::Password {
            mount,
            username,
            password,
        })
    }

    /// Who made the token, for its metadata.
    pub(super) fn creator(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } => Some(username),
            Self::Own(_) | Self::Wrapped { .. } => None,
        }
    }
}

fn own_token() -> Result<Option<SecretString>, Problem> {
    let mut set = TOKEN_VARIABLES
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name).filter(|it| !it.is_empty())?)));
    let Some((name, token)) = set.next() else {
        return Ok(None);
    };
    match token.to_str().map(str::trim) {
        Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(SecretString::from(token)))
        }
        _ => Err(Problem::new(
            Exit::Usage,
            format!("{name}: expected a token: letters, digits and signs"),
        )),
    }
}
