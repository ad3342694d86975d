//! The programs that run MCP servers, and this server's entries in their files. The hosts are rows of a table; the code
//! knows formats, not hosts. It writes no secret, and it knows nothing of MCP or of accounts.

mod change;
mod document;
mod entry;
mod file;
mod place;
mod table;
#[cfg(test)]
mod tests;
mod trust;
mod value;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::{
    change::{Change, install, uninstall},
    document::{Format, Section},
    entry::{Launch, Server},
    place::{Environment, Os},
    table::{HOSTS, Host, TOKEN_VARIABLE, TokenSource},
};
use self::{
    document::{Slot, SyntaxError},
    file::Snapshot,
    value::Value,
};
use crate::{config::Profile, secret::SecretString, text::shell_word};

/// The name of an entry; one of another profile has the profile's name behind it.
pub const ENTRY_NAME: &str = "bondmcp";

/// Returns the name of the entry for `profile`.
#[must_use]
pub fn entry_name(profile: &Profile) -> String {
    if *profile == Profile::default() {
        return ENTRY_NAME.to_owned();
    }
    // Some hosts accept no dot in a server's name.
    format!("{ENTRY_NAME}-{}", profile.as_str().replace('.', "-"))
}

/// The reasons why a host's file cannot be read or changed. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}:{line}: {message}. The file was left as it is; correct it and try again.", path = .path.display())]
    Broken { path: PathBuf, line: usize, message: String },
    #[error(
        "{path} cannot be edited without changing something else. Add the entry \"{name}\" under \"{section}\" by hand: \
         --print shows it, and {documentation} says how.", path = .path.display()
    )]
    NotEditable { path: PathBuf, section: &'static str, name: String, documentation: &'static str },
    #[error(
        "{path} belongs to the user with the id {owner}, but this program runs as {user}. Run it as the user who uses \
         the host.", path = .path.display()
    )]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    #[error(
        "Every user of this computer can change {path}, and so which programs the host starts. Run `chmod o-w {word}`.",
        path = .path.display(), word = shell_word(&.path.to_string_lossy())
    )]
    WritableByOthers { path: PathBuf },
    #[error(
        "Another user of this computer can put a program in the place of {program}, which hosts would start: look at the \
         owner and the mode of {place} and of its directory. Move this program into a directory that only you can change, \
         such as ~/.local/bin, and run it from there.", program = .program.display(), place = .place.display()
    )]
    Replaceable { program: PathBuf, place: PathBuf },
    #[error("{path} was changed by another program in the meantime. Try again.", path = .path.display())]
    ChangedMeanwhile { path: PathBuf },
    #[error("{path} is not a file. It was left as it is.", path = .path.display())]
    NoFile { path: PathBuf },
    #[error("{path} is too large for a host's configuration file. It was left unchanged.", path = .path.display())]
    TooLong { path: PathBuf },
    #[error("{path}: {reason}.", path = .path.display(), reason = crate::error::reason(*.reason))]
    File { path: PathBuf, reason: io::ErrorKind },
    #[error("{title} takes no servers over HTTP from its file. Leave --http out.")]
    NoHttp { title: &'static str },
}

impl Error {
    fn file(path: &Path, error: &io::Error) -> Self {
        Self::File { path: path.to_owned(), reason: error.kind() }
    }

    fn broken(path: &Path, error: SyntaxError) -> Self {
        Self::Broken { path: path.to_owned(), line: error.line, message: error.message }
    }
}

/// An entry for this server in a host's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredEntry {
    /// The host's name on the command line.
    pub host: &'static str,
    /// The host's name as its makers write it.
    pub title: &'static str,
    pub file: PathBuf,
    /// The entry's name.
    pub name: String,
    /// The program that the host starts; `None` for a server over HTTP.
    pub command: Option<String>,
    pub args: Vec<String>,
    /// The names of the environment variables that the entry sets.
    pub env_names: Vec<String>,
    /// The address of a server over HTTP.
    pub url: Option<String>,
    /// Whether the person has switched the entry off.
    pub is_off: bool,
}

/// The parts of an entry that may be secret.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The environment variables that the entry sets.
    pub variables: Vec<(String, SecretString)>,
    /// Whether the host takes the token that it sends from its environment, and not from the person or the file.
    pub takes_token_from_environment: bool,
    /// Whether the entry has the host send a token over HTTP.
    pub passes_token: bool,
    /// Whether that is the token of this server, which the host takes from [`TOKEN_VARIABLE`].
    pub passes_token_variable: bool,
}

/// What the hosts' files say about this server.
#[derive(Debug, Default)]
pub struct Configured {
    pub entries: Vec<ConfiguredEntry>,
    /// The files that could not be read, with their host.
    pub errors: Vec<(&'static Host, Error)>,
}

/// Reads the files of all hosts for entries that run this server, whatever their names are.
#[must_use]
pub fn configured(environment: &Environment) -> Configured {
    let mut configured = Configured::default();
    for host in HOSTS {
        for path in host.paths(environment) {
            match host.entries(&path) {
                Ok(entries) => configured.entries.extend(entries),
                Err(error) => configured.errors.push((host, error)),
            }
        }
    }
    configured
}

impl Host {
    /// Returns the host with this name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        HOSTS.iter().find(|host| host.name == name)
    }

    /// Returns the file that entries are written to.
    #[must_use]
    pub fn path(&self, environment: &Environment) -> PathBuf {
        let paths = self.paths(environment);
        let has_directory = |path: &&PathBuf| path.parent().is_some_and(Path::is_dir);
        let directory = paths.iter().rfind(has_directory).or(paths.first()).and_then(|path| path.parent());
        let in_directory = || paths.iter().filter(|path| path.parent() == directory);
        in_directory()
            .find(|path| path.exists())
            .or_else(|| in_directory().next())
            .cloned()
            .unwrap_or_default()
    }

    /// Whether the host seems to be installed: it has a directory for its file, or its program is found.
    #[must_use]
    pub fn is_found(&self, environment: &Environment) -> bool {
        let is_shared = |directory: &Path| directory == environment.home;
        let has_place = |path: &PathBuf| {
            path.exists()
                || path.parent().is_some_and(|directory| !is_shared(directory) && directory.is_dir())
        };
        self.paths(environment).iter().any(has_place)
            || self.program.is_some_and(|program| environment.program(program).is_some())
    }

    /// Returns where the host gets the token of a server over HTTP.
    #[must_use]
    pub fn token_source(&self) -> &TokenSource {
        &self.shape.token_source
    }

    /// Returns the files that the host reads.
    fn paths(&self, environment: &Environment) -> Vec<PathBuf> {
        if let Some((variable, path)) = self.moved_by
            && let Some(directory) = environment.variable(variable)
        {
            return vec![Path::new(directory).join(path)];
        }
        let files = self.files.iter().filter(|file| file.systems.contains(&environment.os));
        files.map(|file| environment.directory(file.base).join(file.path)).collect()
    }

    fn entries(&'static self, path: &Path) -> Result<Vec<ConfiguredEntry>, Error> {
        let Some(text) = Snapshot::read(path)?.text else { return Ok(Vec::new()) };
        let document = self.format.parse(&text).map_err(|error| Error::broken(path, error))?;
        let entries = self.section.entries(&document).into_iter().map(|(name, entry)| {
            let parsed = self.shape.read(entry);
            ConfiguredEntry {
                host: self.name,
                title: self.title,
                file: path.to_owned(),
                name: name.to_owned(),
                command: parsed.command,
                args: parsed.arguments,
                env_names: parsed.variables,
                url: parsed.url,
                is_off: parsed.is_off,
            }
        });
        Ok(entries.filter(ConfiguredEntry::is_ours).collect())
    }
}

impl ConfiguredEntry {
    /// Reads the parts of the entry that may be secret, for a program that starts it. Refuses a file that others can
    /// change: they would decide what is started.
    pub fn secrets(&self) -> Result<Secrets, Error> {
        let file = Snapshot::read(&self.file)?;
        file.refuse_foreign()?;
        let (Some(host), Some(text)) = (Host::named(self.host), file.text) else {
            return Ok(Secrets::default());
        };
        let document = host.format.parse(&text).map_err(|error| Error::broken(&self.file, error))?;
        let slot = Slot { section: host.section, name: &self.name };
        let Some(entry) = slot.entry(&document) else { return Ok(Secrets::default()) };
        let variables = entry.get(host.shape.environment).map(Value::entries).unwrap_or_default().iter();
        Ok(Secrets {
            variables: variables
                .filter_map(|(name, value)| Some((name.clone(), value.as_text()?.into())))
                .collect(),
            takes_token_from_environment: matches!(host.token_source(), TokenSource::Variable),
            passes_token: match host.token_source() {
                TokenSource::Nowhere => entry.get("headers").is_some(),
                _ => host.shape.token.iter().any(|(key, _)| entry.get(key).is_some()),
            },
            passes_token_variable: host.shape.sends_token_variable(entry),
        })
    }

    fn is_ours(&self) -> bool {
        is_our_name(&self.name) || self.command.as_deref().is_some_and(is_this_program)
    }
}

/// Refuses a program that another user can replace, for one who starts it or has hosts start it.
pub fn refuse_replaceable(program: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    trust::refuse_replaceable(program)?;
    #[cfg(not(unix))]
    let _ = program;
    Ok(())
}

/// Whether the command of an entry may be shown. One with variables or arguments in it is no file, and those may be
/// secrets.
#[must_use]
pub fn is_shown_command(command: &str) -> bool {
    !command.contains(|c: char| c == '=' || c.is_whitespace())
}

/// Whether the command of an entry has the name of this program.
fn is_this_program(command: &str) -> bool {
    Path::new(command).file_stem().is_some_and(|program| program == env!("CARGO_PKG_NAME"))
}

/// Whether an entry of this name is this server's, of any profile.
fn is_our_name(name: &str) -> bool {
    name.strip_prefix(ENTRY_NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
