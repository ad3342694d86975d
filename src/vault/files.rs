//! Files and directories that belong to this user and that nobody else may read: made so from the start, and refused
//! when they are not.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::Error;

/// Makes `path` and what is missing above it, for the owner alone; refuses one that others can look into.
pub fn prepare_directory(path: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| unusable(path, &error))?;
    refuse_exposed(path, "700")
}

/// Makes an empty file for the owner alone. There must be none yet.
pub fn create_private(path: &Path) -> Result<(), Error> {
    private().create_new(true).open(path).map(|_| ()).map_err(|error| unusable(path, &error))
}

/// Writes a file for the owner alone, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let write = || private().create(true).truncate(true).open(&temporary)?.write_all(content);
    write().map_err(|error| unusable(path, &error))?;
    publish(&temporary, path)
}

/// Gives a finished file its final name. After a crash or a power failure `path` is what it was before, or complete.
pub fn publish(temporary: &Path, path: &Path) -> Result<(), Error> {
    let publish = || -> io::Result<()> {
        OpenOptions::new().write(true).open(temporary)?.sync_all()?;
        std::fs::rename(temporary, path)?;
        sync_directory(path)
    };
    publish().map_err(|error| unusable(path, &error))
}

/// Removes `path` if it exists.
pub fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(path, &error)),
        _ => Ok(()),
    }
}

/// Whether `path` is a file with content. A file without any is what an interrupted start or a full disk leaves.
pub fn has_content(path: &Path) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// `path` with `suffix` behind its whole name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Held while something is made that only one process may make; the system lets go of it when the process ends.
pub fn lock(path: &Path) -> Result<File, Error> {
    let file = private().create(true).truncate(false).open(path).map_err(|error| unusable(path, &error))?;
    file.lock().map_err(|error| unusable(path, &error))?;
    Ok(file)
}

/// Refuses what belongs to another user (root could open it all the same) and what others have any right to.
/// Elsewhere than on Unix the data directory's inherited rights decide.
pub fn refuse_exposed(path: &Path, mode: &'static str) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).map_err(|error| unusable(path, &error))?;
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(Error::Foreign { path: path.to_owned(), owner, user });
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode });
        }
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}

pub fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::Unusable { path: path.to_owned(), reason: error.kind() }
}

/// Makes a rename in the directory of `path` permanent. Elsewhere than on Unix a directory cannot be synced.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
