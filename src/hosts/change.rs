//! Planning a change of a host's file. Nothing is written until [`Change::write`]; what is planned has been parsed
//! again and differs from the file in one entry only.

use std::path::{Path, PathBuf};

use super::{
    Error, Host,
    document::Slot,
    entry::Server,
    file::Snapshot,
    place::{Base, Environment},
    value::Value,
};

/// A planned change of a host's file.
#[derive(Debug)]
pub struct Change {
    name: String,
    before: Snapshot,
    after: Option<String>,
    backup: Backup,
    kept_directories: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backup {
    Write,
    /// The copy is older than the entry that is replaced.
    Keep,
    Remove,
}

/// Plans to write an entry for `server`; `None` if the file has that entry already.
pub fn install(
    host: &'static Host,
    environment: &Environment,
    server: &Server,
) -> Result<Option<Change>, Error> {
    let entry = host.shape.entry(server).ok_or(Error::NoHttp { title: host.title })?;
    let opened = Opened::find(host, environment, &server.name)?;
    opened.before.refuse_foreign()?;
    let (entry, backup) = match &opened.entry {
        Some(existing) => {
            let entry = host.shape.with_foreign_keys(&entry, existing);
            if entry == *existing {
                return Ok(None);
            }
            (entry, if opened.before.backup(&server.name)?.is_some() { Backup::Keep } else { Backup::Write })
        }
        None => (entry, Backup::Write),
    };
    let after = opened.with(opened.before.text.as_deref().unwrap_or(host.preamble), &entry)?;
    Ok(Some(opened.change(environment, Some(after), backup)))
}

/// Plans to remove the entry `name`; `None` if the file has none. If nothing but the entry has changed since it was
/// written, the file becomes again what it was.
pub fn uninstall(
    host: &'static Host,
    environment: &Environment,
    name: &str,
) -> Result<Option<Change>, Error> {
    let opened = Opened::find(host, environment, name)?;
    let (Some(entry), Some(text)) = (&opened.entry, &opened.before.text) else { return Ok(None) };
    opened.before.refuse_foreign()?;
    let backup = opened.before.backup(name)?;
    let original = backup.as_deref().unwrap_or(host.preamble);
    let is_original = host
        .format
        .parse(original)
        .is_ok_and(|original| host.format.entry(&original, opened.slot()).is_none())
        && opened.with(original, entry).is_ok_and(|written| written == *text);
    let after = if is_original { backup } else { Some(opened.without(text)?) };
    Ok(Some(opened.change(environment, after, Backup::Remove)))
}

/// A host's file with the entry that a change is about.
struct Opened {
    host: &'static Host,
    name: String,
    before: Snapshot,
    entry: Option<Value>,
}

impl Opened {
    /// Opens the file that has the entry `name`, or else the one that the host takes.
    fn find(host: &'static Host, environment: &Environment, name: &str) -> Result<Self, Error> {
        let open = |path: &Path| {
            let before = Snapshot::read(path)?;
            let mut opened = Self { host, name: name.to_owned(), before, entry: None };
            if let Some(text) = &opened.before.text {
                opened.entry = host.format.entry(&opened.parsed(text)?, opened.slot());
            }
            Ok::<_, Error>(opened)
        };
        for path in host.paths(environment).iter().filter(|path| path.exists()) {
            let opened = open(path)?;
            if opened.entry.is_some() {
                return Ok(opened);
            }
        }
        open(&host.path(environment))
    }

    fn slot(&self) -> Slot<'_> {
        Slot { section: self.host.section, name: &self.name }
    }

    fn parsed(&self, text: &str) -> Result<Value, Error> {
        self.host.format.parse(text).map_err(|error| Error::broken(&self.before.path, error))
    }

    /// Returns `text` with `entry`, after a check that nothing else differs.
    fn with(&self, text: &str, entry: &Value) -> Result<String, Error> {
        let edited = self.host.format.set(text, self.slot(), entry).map_err(|_| self.not_editable())?;
        self.check(text, &edited, Some(entry))?;
        Ok(edited)
    }

    fn without(&self, text: &str) -> Result<String, Error> {
        let edited = self.host.format.remove(text, self.slot()).map_err(|_| self.not_editable())?;
        self.check(text, &edited, None)?;
        Ok(edited)
    }

    fn check(&self, text: &str, edited: &str, entry: Option<&Value>) -> Result<(), Error> {
        let format = self.host.format;
        let before = self.parsed(text)?;
        let after = format.parse(edited).map_err(|_| self.not_editable())?;
        let is_ours_as_wanted = format.entry(&after, self.slot()).as_ref() == entry;
        let is_rest_equal = format.without(&before, self.slot()) == format.without(&after, self.slot());
        if is_ours_as_wanted && is_rest_equal { Ok(()) } else { Err(self.not_editable()) }
    }

    fn not_editable(&self) -> Error {
        Error::NotEditable {
            path: self.before.path.clone(),
            section: self.host.section,
            name: self.name.clone(),
            documentation: self.host.documentation.0,
        }
    }

    fn change(self, environment: &Environment, after: Option<String>, backup: Backup) -> Change {
        let kept_directories =
            [Base::Home, Base::Config, Base::AppData].map(|base| environment.directory(base));
        let Self { name, before, .. } = self;
        Change { name, before, after, backup, kept_directories: kept_directories.to_vec() }
    }
}

impl Change {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.before.path
    }

    /// Returns the file's text before the change; `None` if there is no file.
    #[must_use]
    pub fn before(&self) -> Option<&str> {
        self.before.text.as_deref()
    }

    /// Returns the file's text after the change; `None` if it is removed.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Makes the change; returns the path of the copy that was made of the file.
    pub fn write(&self) -> Result<Option<PathBuf>, Error> {
        let backup = match self.backup {
            Backup::Write => self.before.keep_backup(&self.name)?,
            Backup::Keep | Backup::Remove => None,
        };
        self.before.write(self.after.as_deref(), &self.kept_directories)?;
        if self.backup == Backup::Remove {
            self.before.remove_backup(&self.name)?;
        }
        Ok(backup)
    }
}
