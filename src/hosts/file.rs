//! Reading hosts' files, and replacing them atomically. A host may be reading its file at any time, and a crash leaves
//! the old file or the new one.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use super::Error;

/// Longest file that is read; hosts' files are far shorter.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Behind the name of the copy that is kept of a file; no host reads a file of such a name.
const BACKUP_SUFFIX: &str = ".bondmcp-backup";

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The path by which the host knows the file.
    pub path: PathBuf,
    /// The file itself, where links at `path` lead.
    target: PathBuf,
    /// The content; `None` if there is no file.
    pub text: Option<String>,
}

impl Snapshot {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => path.to_owned(),
            Err(error) => return Err(Error::file(path, &error)),
        };
        let text = read_text(path, &target)?;
        Ok(Self { path: path.to_owned(), target, text })
    }

    /// Returns where the copy of the file is or would be.
    pub fn backup_path(&self) -> PathBuf {
        let mut path = self.target.as_os_str().to_owned();
        path.push(BACKUP_SUFFIX);
        path.into()
    }

    /// Returns the copy that was kept of the file.
    pub fn backup(&self) -> Result<Option<String>, Error> {
        let path = self.backup_path();
        read_text(&path, &path)
    }

    /// Keeps a copy of the file, for its owner alone; removes an older one if there is no file.
    pub fn keep_backup(&self) -> Result<Option<PathBuf>, Error> {
        let path = self.backup_path();
        let Some(text) = &self.text else {
            self.remove_backup()?;
            return Ok(None);
        };
        replace(&path, text, None).map_err(|error| Error::file(&path, &error))?;
        Ok(Some(path))
    }

    pub fn remove_backup(&self) -> Result<(), Error> {
        let path = self.backup_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Refuses a file that another user owns or can change: they would decide which program the host starts.
    pub fn refuse_foreign(&self) -> Result<(), Error> {
        #[cfg(unix)]
        super::trust::refuse_foreign_file(&self.path, &self.target)?;
        Ok(())
    }

    /// Replaces the file, or removes it for `None`, unless it is no longer as it was read. Directories in `kept` stay
    /// even if they are empty.
    pub fn write(&self, text: Option<&str>, kept: &[PathBuf]) -> Result<(), Error> {
        self.refuse_foreign()?;
        if read_text(&self.path, &self.target)? != self.text {
            return Err(Error::ChangedMeanwhile { path: self.path.clone() });
        }
        let written = match text {
            Some(text) => {
                replace(&self.target, text, fs::metadata(&self.target).ok().map(|m| m.permissions()))
            }
            None => fs::remove_file(&self.target).map(|()| remove_empty_parents(&self.target, kept)),
        };
        written.map_err(|error| Error::file(&self.path, &error))
    }
}

fn read_text(path: &Path, target: &Path) -> Result<Option<String>, Error> {
    let bytes = match fs::metadata(target) {
        // Reading a pipe or a device may never end.
        Ok(metadata) if !metadata.is_file() => {
            return Err(Error::NoFile { path: path.to_owned() });
        }
        Ok(_) => read(target).map_err(|error| Error::file(path, &error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path, &error)),
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = memchr::memchr_iter(b'\n', valid).count() + 1;
        Error::Broken { path: path.to_owned(), line, message: "The text is not UTF-8".to_owned() }
    })
}

/// Reads a file, of one that is too long one byte more than is allowed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes `text` beside `path` and renames it. Without `permissions` the file is for its owner alone.
fn replace(path: &Path, text: &str, permissions: Option<fs::Permissions>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut temporary = tempfile::Builder::new().prefix(".bondmcp-").tempfile_in(directory)?;
    temporary.write_all(text.as_bytes())?;
    if let Some(permissions) = permissions {
        temporary.as_file().set_permissions(permissions)?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    sync_directory(directory)
}

/// Makes a rename durable. On other systems than Unix a directory cannot be synced.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn remove_empty_parents(path: &Path, kept: &[PathBuf]) {
    for directory in path.ancestors().skip(1) {
        if kept.iter().any(|kept| kept == directory) || fs::remove_dir(directory).is_err() {
            return;
        }
    }
}
