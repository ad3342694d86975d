//! The binary as hosts find it, and the operator's configuration.

use std::{
    env::consts,
    path::{Path, PathBuf},
};

use super::{Check, Fix, presentation::Presentation};
use crate::config::{ConfigError, SealingKeySource, Settings};

const NAME: &str = env!("CARGO_PKG_NAME");

pub(super) fn version() -> Check {
    let version = env!("CARGO_PKG_VERSION");
    Check::ok("version", format!("{NAME} {version} on {} {}", consts::OS, consts::ARCH))
}

/// Checks that a host that looks for the binary by its name finds this one.
pub(super) fn binary(presentation: &Presentation) -> Check {
    let Ok(this) = std::env::current_exe() else {
        return Check::warn(
            "binary",
            "the operating system does not report its path",
            Fix::advice("Give hosts its full path."),
        );
    };
    let shown = this.display();
    let fix = || match this.parent() {
        Some(directory) if cfg!(unix) && this.file_name().is_some_and(|name| name == NAME) => {
            Fix::advice("Give hosts the full path; so that shells find it too, in your shell's profile:")
                .or_run(format!("export PATH={}:\"$PATH\"", presentation.word(directory)))
        }
        _ => Fix::advice("Give hosts the full path, or put it into a directory on PATH under its own name."),
    };
    match on_path(NAME) {
        None => Check::warn("binary", format!("{shown} is not on PATH"), fix()),
        Some(found) if is_same_file(&found, &this) => {
            Check::ok("binary", format!("{shown}, found on PATH as {}", found.display()))
        }
        Some(other) => Check::warn(
            "binary",
            format!("{shown}, but PATH finds another file first: {}", other.display()),
            fix(),
        ),
    }
}

pub(super) fn wrong_configuration(error: &ConfigError) -> Check {
    let text = error.to_string();
    let (happened, next) = text.split_once("; ").unwrap_or((&text, "correct it"));
    Check::fail("configuration", happened, Fix::advice(crate::error::sentence(next)))
}

/// Says what is configured; of secrets only that they are set.
pub(super) fn configuration(settings: &Settings) -> Check {
    let environment = &settings.environment;
    let secrets = [
        ("BONDMCP_API_KEY", environment.api_key.is_some()),
        ("BONDMCP_EMAIL and BONDMCP_PASSWORD", environment.login.is_some()),
        ("BONDMCP_SEALING_KEY", matches!(settings.sealing_key, SealingKeySource::Given(_))),
    ];
    let set: Vec<_> = secrets.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    let set = if set.is_empty() { String::new() } else { format!(", {} set", set.join(", ")) };
    Check::ok("configuration", format!("profile {}, BondMCP at {}{set}", settings.profile, settings.base_url))
}

/// Returns the file that running `name` starts.
fn on_path(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(&name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    #[cfg(unix)]
    {
        file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    }
    #[cfg(not(unix))]
    file.is_file()
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
