//! The hosts that are configured to run this server, and whether each entry works: it is started as the host starts it,
//! asked for its tools, and ended.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Check, Findings, Fix, entry, presentation::Presentation};
use crate::{
    config::{BaseUrl, Profile},
    hosts::{self, ConfiguredEntry, Environment, Host, Secrets, TokenSource},
    redact::Redactor,
    secret::{ExposeSecret as _, SecretString},
};

/// Variables whose values are no secrets.
const OPEN_VARIABLES: [&str; 5] =
    ["BONDMCP_BASE_URL", "BONDMCP_DATA_DIR", "BONDMCP_LOG", "BONDMCP_PROFILE", "BONDMCP_SEALING_KEY_FILE"];

/// Variables that hosts pass on from their own environment to the servers that they start.
const PASSED_ON: [&str; 15] = [
    "APPDATA",
    "HOME",
    "HOMEDRIVE",
    "HOMEPATH",
    "LANG",
    "LOCALAPPDATA",
    "LOGNAME",
    "PATH",
    "PROGRAMFILES",
    "SHELL",
    "SYSTEMROOT",
    "TEMP",
    "TMPDIR",
    "USER",
    "USERPROFILE",
];

/// Examines the entries of all hosts.
pub(super) async fn examine(profile: &Profile, redactor: &Redactor, findings: &mut Findings<'_>) {
    let Some(environment) = Environment::current() else {
        findings.add(Check::skip("hosts", "there is no home directory"));
        return;
    };
    let configured = hosts::configured(&environment);
    if configured.entries.is_empty() && configured.errors.is_empty() {
        let fix = Fix::advice("To add this server to the hosts that are found on this computer:")
            .or_run(findings.presentation.command("install --all"));
        findings.add(Check::warn("hosts", "no host is configured to run this server", fix));
        return;
    }
    for (host, error) in &configured.errors {
        findings.add(unreadable(host.title, error, &findings.presentation));
    }
    for configured in &configured.entries {
        let began = Instant::now();
        let check = one(configured, profile, redactor, &findings.presentation).await;
        findings.add(check.since(began));
    }
}

fn check_name(title: &str) -> String {
    format!("host {title}")
}

/// Reports a file that cannot be read or must not be trusted.
fn unreadable(title: &str, error: &hosts::Error, presentation: &Presentation) -> Check {
    let (detail, fix) = match error {
        hosts::Error::Broken { path, line, message } => (
            format!("{}:{line}: {message}", path.display()),
            Fix::advice(format!("Correct line {line} of that file; {title} cannot read it either.")),
        ),
        hosts::Error::WritableByOthers { path } => (
            format!("{} can be changed by every user of this computer", path.display()),
            Fix::run(format!("chmod o-w {}", presentation.word(path))),
        ),
        error => {
            let text = error.to_string();
            let (happened, next) = text.split_once(". ").unwrap_or((&text, "Correct it, then try again."));
            (happened.to_owned(), Fix::advice(next))
        }
    };
    Check::fail(check_name(title), detail.trim_end_matches('.'), fix)
}

/// Tries one entry.
async fn one(
    configured: &ConfiguredEntry,
    profile: &Profile,
    redactor: &Redactor,
    presentation: &Presentation,
) -> Check {
    let name = check_name(configured.title);
    let place = format!("{} in {}", configured.name, configured.file.display());
    if configured.is_off {
        return Check::skip(name, format!("{place}: switched off in the host"));
    }
    let secrets = match configured.secrets() {
        Ok(secrets) => secrets,
        Err(error) => return unreadable(configured.title, &error, presentation),
    };
    redactor.hold("host entry", hidden(&secrets.variables));
    let install = Install::of(configured, profile, presentation);
    let tried = match (&configured.command, &configured.url) {
        (Some(command), _) => entry::start(command, &configured.args, &environment(&secrets.variables)).await,
        (None, Some(url)) => entry::connect(url, secrets.passes_token_variable).await,
        (None, None) => Err(entry::Failure::NothingToReach),
    };
    match tried {
        Ok(server) => served(name, &place, &server, install),
        Err(entry::Failure::TokenWanted) if secrets.passes_token && !secrets.takes_token_from_environment => {
            Check::skip(
                name,
                format!("{place}: its server wants a token that only the host has; try it there"),
            )
        }
        Err(failure) => {
            let detail = format!("{place}: {failure}");
            Check::fail(name, detail, fix(&failure, &secrets, configured, install))
        }
    }
}

/// Returns what mends an entry that does not work.
fn fix(failure: &entry::Failure, secrets: &Secrets, configured: &ConfiguredEntry, install: Install) -> Fix {
    match failure {
        entry::Failure::TokenWanted if !secrets.passes_token && takes_no_token(configured) => {
            Fix::advice(format!(
                "{} takes no token from a variable. Add the header `Authorization: Bearer TOKEN` to the entry \
                 yourself, with the token that the server was started with.",
                configured.title
            ))
        }
        entry::Failure::TokenWanted if !secrets.passes_token => Fix {
            run: install.with_url(configured),
            ..Fix::advice(
                "The entry sends no token, so the host tries OAuth, which ends in \"dynamic registration 404\". \
                 Set BONDMCP_HTTP_TOKEN where the host starts, and have the entry send it as `Authorization: Bearer …`.",
            )
        },
        entry::Failure::TokenWanted => Fix::advice(
            "Set BONDMCP_HTTP_TOKEN, to the token that the server was started with, where the host starts. The \
             entry sends it as `Authorization: Bearer …`; without it hosts try OAuth, which ends in \"dynamic \
             registration 404\".",
        ),
        entry::Failure::Replaceable(_) => Fix::advice(
            "Move the program into a directory that only you can change, such as ~/.local/bin. Then write the \
             entry again:",
        )
        .or_run(install.command),
        entry::Failure::NotServed(_) | entry::Failure::Stranger => Fix::advice(
            "Start `bondmcp-server http` at that address, or let the host start the server:",
        )
        .or_run(install.command),
        _ => install.fix(),
    }
}

/// Whether the host has no way to send a token but to have it in its file, where `install` does not write it.
fn takes_no_token(configured: &ConfiguredEntry) -> bool {
    Host::named(configured.host).is_some_and(|host| matches!(host.token_source(), TokenSource::Nowhere))
}

/// Reports a server that works, and whether it is this one.
fn served(name: String, place: &str, server: &entry::Server, install: Install) -> Check {
    const THIS: (&str, &str) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let tools = server.tools;
    if (server.name.as_str(), server.version.as_str()) == THIS {
        return Check::ok(name, format!("{place} works and has {tools} tools"));
    }
    // A name could be one of the entry's secrets.
    let other = match server.version.as_str() {
        _ if server.name != THIS.0 => "another server".to_owned(),
        version if is_version(version) => format!("{} {version}", THIS.0),
        _ => format!("another version of {}", THIS.0),
    };
    Check::warn(
        name,
        format!("{place} works and has {tools} tools, but runs {other}, not {} {}", THIS.0, THIS.1),
        install.fix(),
    )
}

/// Whether `text` is three numbers with dots in between.
fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.len() <= 5 && part.parse::<u32>().is_ok())
}

/// The command that writes an entry.
struct Install {
    command: String,
    /// Whether it replaces the entry that was examined, and not one of another name.
    replaces: bool,
}

impl Install {
    fn of(configured: &ConfiguredEntry, profile: &Profile, presentation: &Presentation) -> Self {
        Self {
            command: presentation.command(&format!("install {}", configured.host)),
            replaces: configured.name == hosts::entry_name(profile),
        }
    }

    /// Returns the command for the address that the entry has; `None` for a path that `http` does not serve, as it may
    /// be secret.
    fn with_url(&self, configured: &ConfiguredEntry) -> Option<String> {
        let url: BaseUrl = configured.url.as_deref()?.parse().ok()?;
        let url = url.endpoint(&[]);
        let word = shlex::try_quote(url.as_str()).ok()?;
        (url.path() == "/mcp").then(|| format!("{} --http {word}", self.command))
    }

    fn fix(self) -> Fix {
        if self.replaces {
            Fix::advice("To rewrite the entry:").or_run(self.command)
        } else {
            Fix::advice(
                "Correct or remove that entry in the file, or run doctor with the --profile that it is for.",
            )
        }
    }
}

fn hidden(variables: &[(String, SecretString)]) -> impl Iterator<Item = &SecretString> {
    let is_hidden = |name: &str| !OPEN_VARIABLES.contains(&name) && !PASSED_ON.contains(&name);
    variables.iter().filter(move |(name, _)| is_hidden(name)).map(|(_, value)| value)
}

/// Returns the environment that the host gives the server: little of its own, and what the entry sets. A value that
/// refers to something else is the host's to resolve, and is left out.
fn environment(set: &[(String, SecretString)]) -> BTreeMap<String, SecretString> {
    let own =
        PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?.into())));
    let is_plain = |value: &SecretString| !value.expose_secret().contains("${");
    let set = set.iter().filter(|(_, value)| is_plain(value)).cloned();
    own.chain(set).collect()
}
