//! Files and directories that nobody else may read: made so from the start, and refused when they are not.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
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

/// Makes an empty file for the owner alone, unless there is one. One that others can read is refused, and so is one
/// that has lost its content: SQLite would take it for a new database.
pub fn prepare_file(path: &Path) -> Result<(), Error> {
    match private().create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            refuse_exposed(path, "600")?;
            let length = std::fs::metadata(path).map_err(|error| unusable(path, &error))?.len();
            if length == 0 { Err(Error::Damaged) } else { Ok(()) }
        }
        Err(error) => Err(unusable(path, &error)),
    }
}

/// Writes a file for the owner alone, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = private().create(true).truncate(true).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| unusable(path, &error))
}

/// Held while something is made that only one process may make; the system lets go of it when the process ends.
pub fn lock(path: &Path) -> Result<File, Error> {
    let file = private().create(true).truncate(false).open(path).map_err(|error| unusable(path, &error))?;
    file.lock().map_err(|error| unusable(path, &error))?;
    Ok(file)
}

/// Whether nobody but the owner has any right to it. Elsewhere than on Unix the data directory's inherited rights
/// decide.
pub fn refuse_exposed(path: &Path, mode: &'static str) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let rights = std::fs::metadata(path).map_err(|error| unusable(path, &error))?.permissions().mode();
        if rights & 0o077 != 0 {
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

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
