//! Where hosts keep their files, on this machine or on one described by a test.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

/// An operating system, as far as hosts keep their files in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    Linux,
    MacOs,
    Windows,
}

impl Os {
    #[must_use]
    pub fn current() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::MacOs
        } else {
            Self::Linux
        }
    }
}

/// A directory that a path in the table is relative to.
#[derive(Clone, Copy, Debug)]
pub enum Base {
    Home,
    /// `XDG_CONFIG_HOME` or `~/.config`; on Windows `%APPDATA%`.
    Config,
    /// The platform's directory for programs with windows: `~/Library/Application Support` on macOS, else like
    /// [`Self::Config`].
    AppData,
    /// `%LOCALAPPDATA%`, on Windows only.
    LocalAppData,
}

/// A person's environment: where their home is, and the variables that move hosts' files.
#[derive(Clone, Debug)]
pub struct Environment {
    pub os: Os,
    pub home: PathBuf,
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// Returns an environment with those of `variables` that are not empty.
    pub fn new(os: Os, home: PathBuf, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named = |(name, value): (OsString, OsString)| {
            let mut name = name.into_string().ok()?;
            if os == Os::Windows {
                // It does not tell upper from lower case: `Path`.
                name.make_ascii_uppercase();
            }
            (!value.is_empty()).then_some((name, value))
        };
        Self { os, home, variables: variables.into_iter().filter_map(named).collect() }
    }

    /// Returns the environment of this process; `None` without a home directory.
    #[must_use]
    pub fn current() -> Option<Self> {
        let home = directories::BaseDirs::new()?.home_dir().to_owned();
        Some(Self::new(Os::current(), home, std::env::vars_os()))
    }

    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name)
    }

    pub(super) fn directory(&self, base: Base) -> PathBuf {
        let absolute = |name: &str| self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        match (base, self.os) {
            (Base::Home, _) => self.home.clone(),
            (Base::LocalAppData, _) => self
                .variable("LOCALAPPDATA")
                .map_or_else(|| self.home.join("AppData").join("Local"), PathBuf::from),
            (_, Os::Windows) => self
                .variable("APPDATA")
                .map_or_else(|| self.home.join("AppData").join("Roaming"), PathBuf::from),
            (Base::AppData, Os::MacOs) => self.home.join("Library").join("Application Support"),
            _ => absolute("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config")),
        }
    }

    /// Returns the path of a program, searched for in `PATH`.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let endings: &[&str] = if self.os == Os::Windows { &[".exe", ".cmd", ".bat"] } else { &[""] };
        std::env::split_paths(self.variable("PATH")?)
            .flat_map(|directory| endings.iter().map(move |ending| directory.join(format!("{name}{ending}"))))
            .find(|path| path.is_absolute() && path.is_file())
    }
}
