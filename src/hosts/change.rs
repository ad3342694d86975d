//! Planning a change of a host's file. Nothing is written until [`Change::write`]; what is planned has been parsed
//! again and differs from the file in one entry only.

use std::path::{Path, PathBuf};

use super::{
    Error, Host,
    document::Slot,
    entry::{Server, fixed},
    file::Snapshot,
    is_our_name, is_shown_command,
    place::{Base, Environment},
    table::TokenSource,
    value::Value,
};

/// A planned change of a host's file.
#[derive(Debug)]
pub struct Change {
    host: &'static Host,
    before: Snapshot,
    after: Option<String>,
    backup: Backup,
    /// The values of the file that may be shown.
    shown: Vec<String>,
    kept_directories: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backup {
    Write,
    /// The copy is from before the first of several entries, or has an entry that was replaced.
    Keep,
    /// As [`Self::Keep`], and the person is told where the copy is.
    Leave,
    Remove,
}

/// Plans to write an entry for `server`; `None` if the file has that entry already.
pub fn install(
    host: &'static Host,
    environment: &Environment,
    server: &Server,
) -> Result<Option<Change>, Error> {
    let wanted = host.shape.entry(server).ok_or(Error::NoHttp { title: host.title })?;
    let opened = Opened::find(host, environment, &server.name)?;
    opened.before.refuse_foreign()?;
    let entry = match opened.entry() {
        Some(existing) => host.shape.with_foreign_keys(&wanted, existing),
        None => wanted.clone(),
    };
    if opened.entry() == Some(&entry) {
        return Ok(None);
    }
    let backup = match opened.original()? {
        // It may be the only copy of an entry that a person wrote.
        _ if opened.backup_has_entry()? => Backup::Keep,
        Some(_) if !opened.ours.is_empty() && opened.replaces_nothing_foreign() => Backup::Keep,
        _ => Backup::Write,
    };
    let after = opened.with(opened.text(), &server.name, &entry)?;
    Ok(Some(opened.change(environment, Some(after), backup, wanted.texts())))
}

/// Plans to remove the entry `name`; `None` if the file has none. If nothing but this server's entries has changed since
/// the first was written, the file becomes again what it was.
pub fn uninstall(
    host: &'static Host,
    environment: &Environment,
    name: &str,
) -> Result<Option<Change>, Error> {
    let opened = Opened::find(host, environment, name)?;
    if opened.entry().is_none() {
        return Ok(None);
    }
    opened.before.refuse_foreign()?;
    let is_last = opened.ours.len() == 1;
    let after = match opened.original()? {
        Some(original) if is_last => original.text,
        Some(Original { text, mut written }) => {
            written.retain(|(written, _)| written != name);
            Some(opened.rewritten(text.as_deref().unwrap_or(host.preamble), &written)?)
        }
        None => Some(opened.without(opened.text())?),
    };
    let backup = if !is_last {
        Backup::Keep
    } else if opened.backup_has_entry()? {
        Backup::Leave
    } else {
        Backup::Remove
    };
    Ok(Some(opened.change(environment, after, backup, Vec::new())))
}

/// A host's file with this server's entries.
struct Opened {
    host: &'static Host,
    /// The name of the entry that a change is about.
    name: String,
    before: Snapshot,
    /// The entries of all profiles, in the order of the file.
    ours: Vec<(String, Value)>,
}

/// A file as it was before this server's first entry was written.
struct Original {
    /// The content; `None` if there was no file.
    text: Option<String>,
    /// This server's entries in the order in which they were written.
    written: Vec<(String, Value)>,
}

impl Opened {
    /// Opens the file that has the entry `name`, or else the one that the host takes.
    fn find(host: &'static Host, environment: &Environment, name: &str) -> Result<Self, Error> {
        let open = |path: &Path| {
            let before = Snapshot::read(path)?;
            let mut opened = Self { host, name: name.to_owned(), before, ours: Vec::new() };
            let document = opened.parsed(opened.text())?;
            let ours = host.section.entries(&document).into_iter().filter(|(name, _)| is_our_name(name));
            opened.ours = ours.map(|(name, entry)| (name.to_owned(), entry.clone())).collect();
            Ok::<_, Error>(opened)
        };
        for path in host.paths(environment).iter().filter(|path| path.exists()) {
            let opened = open(path)?;
            if opened.entry().is_some() {
                return Ok(opened);
            }
        }
        open(&host.path(environment))
    }

    /// Returns the text that an entry is added to.
    fn text(&self) -> &str {
        self.before.text.as_deref().unwrap_or(self.host.preamble)
    }

    fn entry(&self) -> Option<&Value> {
        self.ours.iter().find(|(name, _)| *name == self.name).map(|(_, entry)| entry)
    }

    /// Returns what the file was before this server's first entry was written; nothing if anything else has changed
    /// since.
    fn original(&self) -> Result<Option<Original>, Error> {
        let text = self.before.backup()?;
        let start = text.as_deref().unwrap_or(self.host.preamble);
        let has_ours = self.has_entry(start);
        // A format adds an entry either before or after the others.
        let orders = [self.ours.clone(), self.ours.iter().rev().cloned().collect()];
        let is_order = |order: &Vec<_>| self.rewritten(start, order).is_ok_and(|text| text == self.text());
        let order = orders.into_iter().filter(|_| !has_ours).find(is_order);
        Ok(order.map(|written| Original { text, written }))
    }

    /// Whether the copy of the file has an entry that was replaced.
    fn backup_has_entry(&self) -> Result<bool, Error> {
        Ok(self.before.backup()?.is_some_and(|text| self.has_entry(&text)))
    }

    /// Whether `text` has an entry of one of this server's names.
    fn has_entry(&self, text: &str) -> bool {
        self.host.format.parse(text).is_ok_and(|document| {
            self.host.section.entries(&document).iter().any(|(name, _)| is_our_name(name))
        })
    }

    /// Whether the entry that is there, if any, is one that this program writes.
    fn replaces_nothing_foreign(&self) -> bool {
        self.entry().is_none_or(|entry| self.host.shape.wrote(&self.name, entry))
    }

    /// Returns `text` with `entries` written one after the other.
    fn rewritten(&self, text: &str, entries: &[(String, Value)]) -> Result<String, Error> {
        entries.iter().try_fold(text.to_owned(), |text, (name, entry)| self.with(&text, name, entry))
    }

    fn slot<'a>(&self, name: &'a str) -> Slot<'a> {
        Slot { section: self.host.section, name }
    }

    fn parsed(&self, text: &str) -> Result<Value, Error> {
        self.host.format.parse(text).map_err(|error| Error::broken(&self.before.path, error))
    }

    /// Returns `text` with an entry, after a check that nothing else differs.
    fn with(&self, text: &str, name: &str, entry: &Value) -> Result<String, Error> {
        let edited = self.host.format.set(text, self.slot(name), entry).map_err(|_| self.not_editable())?;
        let edited = self.with_prompt_if_used(edited)?;
        self.check(text, &edited, name, Some(entry))?;
        Ok(edited)
    }

    fn without(&self, text: &str) -> Result<String, Error> {
        let edited = self.host.format.remove(text, self.slot(&self.name)).map_err(|_| self.not_editable())?;
        let edited = self.with_prompt_if_used(edited)?;
        self.check(text, &edited, &self.name, None)?;
        Ok(edited)
    }

    /// Returns `text` with the question for the token if a server refers to it, and else without.
    fn with_prompt_if_used(&self, text: String) -> Result<String, Error> {
        let TokenSource::Prompt { reference, entry, .. } = &self.host.shape.token_source else {
            return Ok(text);
        };
        let Some(slot) = self.prompt() else { return Ok(text) };
        let document = self.host.format.parse(&text).map_err(|_| self.not_editable())?;
        let refers =
            |(_, server): &(&str, &Value)| server.texts().iter().any(|text| text.contains(reference));
        let is_used = self.host.section.entries(&document).iter().any(refers);
        let edited = match (is_used, slot.entry(&document).is_some()) {
            (true, false) => self.host.format.set(&text, slot, &fixed(entry)),
            (false, true) => self.host.format.remove(&text, slot),
            _ => Ok(text),
        };
        edited.map_err(|_| self.not_editable())
    }

    /// Returns the place of the question for the token.
    fn prompt(&self) -> Option<Slot<'static>> {
        match self.host.shape.token_source {
            TokenSource::Prompt { section, id, .. } => Some(Slot { section, name: id }),
            _ => None,
        }
    }

    fn check(&self, text: &str, edited: &str, name: &str, entry: Option<&Value>) -> Result<(), Error> {
        let slot = self.slot(name);
        let before = self.parsed(text)?;
        let after = self.host.format.parse(edited).map_err(|_| self.not_editable())?;
        let rest = |document: &Value| {
            let rest = slot.emptied(document);
            self.prompt().map_or_else(|| rest.clone(), |prompt| prompt.emptied(&rest))
        };
        if slot.entry(&after) == entry && rest(&before) == rest(&after) {
            Ok(())
        } else {
            Err(self.not_editable())
        }
    }

    fn not_editable(&self) -> Error {
        Error::NotEditable {
            path: self.before.path.clone(),
            section: self.host.section.key,
            name: self.name.clone(),
            documentation: self.host.documentation.0,
        }
    }

    fn change(
        self,
        environment: &Environment,
        after: Option<String>,
        backup: Backup,
        mut shown: Vec<String>,
    ) -> Change {
        // An entry that is there may have been written by hand and hold a token.
        let parsed = self.entry().map(|entry| self.host.shape.read(entry)).unwrap_or_default();
        let is_flag = |word: &String| word.starts_with("--") && !word.contains('=') || word == "stdio";
        shown.push(self.name.clone());
        shown.extend(parsed.command.filter(|command| is_shown_command(command)));
        shown.extend(parsed.arguments.into_iter().filter(is_flag));
        let Self { host, before, .. } = self;
        shown.extend(host.shape.words().map(ToOwned::to_owned));
        shown.extend(host.format.parse(host.preamble).iter().flat_map(Value::texts));
        if let TokenSource::Prompt { entry, .. } = &host.shape.token_source {
            shown.extend(fixed(entry).texts());
        }
        let kept_directories =
            [Base::Home, Base::Config, Base::AppData].map(|base| environment.directory(base));
        Change { host, before, after, backup, shown, kept_directories: kept_directories.to_vec() }
    }
}

impl Change {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.before.path
    }

    /// Whether the file is removed, since this server's entry was all that was written into it.
    #[must_use]
    pub fn removes_file(&self) -> bool {
        self.after.is_none()
    }

    /// Returns the file before and after the change, for display: without comments and other servers' values, which
    /// may be secrets.
    #[must_use]
    pub fn shown(&self) -> [Option<String>; 2] {
        let masked = |text: &String| self.host.format.masked(text, &self.shown);
        [&self.before.text, &self.after].map(|text| text.as_ref().map(masked))
    }

    /// Whether the copy of the file stays behind though the entry is removed: it has an entry that the first one
    /// replaced.
    #[must_use]
    pub fn leaves_backup(&self) -> bool {
        self.backup == Backup::Leave
    }

    /// Makes the change; returns the path of the copy of the file that was made or that stays behind.
    pub fn write(&self) -> Result<Option<PathBuf>, Error> {
        let backup = match self.backup {
            Backup::Write => self.before.keep_backup()?,
            Backup::Leave => Some(self.before.backup_path()),
            Backup::Keep | Backup::Remove => None,
        };
        self.before.write(self.after.as_deref(), &self.kept_directories)?;
        if self.backup == Backup::Remove {
            self.before.remove_backup()?;
        }
        Ok(backup)
    }
}
