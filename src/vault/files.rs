//! Private files and directories: created with access for their owner alone, and refused when others have access.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, DirEntry, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Error;

/// Longest wait for another process's lock, which it holds while it opens or migrates a vault, makes a key, or writes to
/// the audit log.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Length of the random part of a temporary name. A person's name for a copy is hardly ever of this length.
const RANDOM_LENGTH: usize = 12;

/// Creates `path` and its missing parents for the owner alone; refuses a directory that others can read.
pub fn prepare_directory(path: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| unusable(path, &error))?;
    refuse_exposed(path, "700")
}

/// Creates an empty file for the owner alone. It must not exist yet.
pub fn create_private(path: &Path) -> Result<(), Error> {
    private().create_new(true).open(path).map(|_| ()).map_err(|error| unusable(path, &error))
}

/// Writes a file for the owner alone, atomically. A link stays, and what it leads to is replaced. The temporary name is
/// nobody else's, and what an interruption leaves under it is found by [`unfinished`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let path = resolve(path)?;
    refuse_replaceable(&path)?;
    let mut prefix = path.file_stem().unwrap_or_default().to_owned();
    prefix.push(".");
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).rand_bytes(RANDOM_LENGTH).suffix(".new");
        let mut file = builder.tempfile_in(directory_of(&path))?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        sync_directory(&path)
    };
    write().map_err(|error| unusable(&path, &error))
}

/// Returns what an interrupted [`write_private`] left beside `path`, and beside what a link there leads to.
pub fn unfinished(path: &Path) -> Result<Vec<PathBuf>, Error> {
    // Earlier builds wrote to this.
    let mut left = vec![path.with_extension("new")];
    left.retain(|path| path.exists());
    let mut places = vec![path.to_owned(), resolve(path)?];
    places.dedup();
    for place in places {
        let directory = directory_of(&place);
        let list = || -> io::Result<Vec<_>> { std::fs::read_dir(directory)?.collect() };
        let entries = list().map_err(|error| unusable(directory, &error))?;
        let temporary = entries.iter().filter(|entry| is_temporary(&entry.file_name(), &place));
        left.extend(temporary.map(DirEntry::path));
    }
    Ok(left)
}

/// Whether [`write_private`] makes such a name for what it writes to `path`.
fn is_temporary(name: &OsStr, path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let random = || name.to_str()?.strip_prefix(&*stem)?.strip_prefix('.')?.strip_suffix(".new");
    random().is_some_and(|random| {
        random.len() == RANDOM_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Returns where a link at `path` leads, and `path` itself if there is none. A broken link is refused.
pub fn resolve(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_symlink() {
        return Ok(path.to_owned());
    }
    path.canonicalize().map_err(|error| unusable(path, &error))
}

/// Renames a finished file to its final name. After a crash or a power failure `path` is unchanged or complete.
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

/// Whether `path` is a file with content. An interrupted start or a full disk leaves an empty one. A broken link is
/// refused.
pub fn has_content(path: &Path) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(false),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// Returns `path` with `suffix` appended to its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Takes an exclusive lock across processes; the operating system releases it when the process ends.
pub fn lock(path: &Path) -> Result<File, Error> {
    lock_within(path, LOCK_TIMEOUT)
}

fn lock_within(path: &Path, timeout: Duration) -> Result<File, Error> {
    let file = private().create(true).truncate(false).open(path).map_err(|error| unusable(path, &error))?;
    let deadline = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_POLL_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(unusable(path, &error)),
        }
    }
}

/// Refuses a file that belongs to another user (root could open it all the same) or that others can access. On other
/// systems than Unix the permissions inherited from the data directory apply.
pub fn refuse_exposed(path: &Path, mode: &'static str) -> Result<(), Error> {
    refuse_access(path, 0o077, mode)
}

/// Refuses a file that another user can replace in its directory, or in that of what a link leads to.
pub fn refuse_replaceable(path: &Path) -> Result<(), Error> {
    refuse_access(directory_of(&resolve(path)?), 0o022, "go-w")
}

/// Refuses what belongs to another user or is open to others with one of the `refused` bits; `mode` is what `chmod` is to
/// set.
fn refuse_access(path: &Path, refused: u32, mode: &'static str) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).map_err(|error| unusable(path, &error))?;
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(Error::Foreign { path: path.to_owned(), owner, user });
        }
        if metadata.mode() & refused != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode });
        }
    }
    #[cfg(not(unix))]
    let _ = (path, refused, mode);
    Ok(())
}

/// As [`refuse_exposed`], for a secret that the operator provides. It may also be as container platforms mount it: it
/// belongs to root, and this process reads it as a member of its group.
pub fn refuse_exposed_secret(path: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).map_err(|error| unusable(path, &error))?;
        if is_mounted_secret(metadata.uid(), rustix::process::geteuid().as_raw(), metadata.mode()) {
            return Ok(());
        }
    }
    refuse_exposed(path, "600")
}

/// Whether the file is root's, and this process, which does not run as root, may at most read it by its group.
#[cfg(unix)]
fn is_mounted_secret(owner: u32, user: u32, mode: u32) -> bool {
    owner == 0 && user != 0 && mode & 0o077 == 0o040
}

pub fn unusable(path: &Path, error: &io::Error) -> Error {
    if path.is_symlink() && !path.exists() {
        return Error::BrokenLink { path: path.to_owned() };
    }
    Error::Unusable { path: path.to_owned(), reason: error.kind() }
}

/// Makes a rename in the directory of `path` durable. On other systems than Unix a directory cannot be synced.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        File::open(directory_of(path))?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Returns the directory that `path` is in: the current one for a name alone.
pub fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_mounted_secret_is_roots_and_read_by_a_group() {
        // A Secret of Kubernetes with `defaultMode: 0440` and `fsGroup`.
        assert!(is_mounted_secret(0, 65532, 0o100_440) && is_mounted_secret(0, 65532, 0o100_640));
        for mode in [0o100_444, 0o100_660, 0o100_450, 0o100_441, 0o100_600] {
            assert!(!is_mounted_secret(0, 65532, mode), "{mode:o}");
        }
        assert!(!is_mounted_secret(1000, 65532, 0o100_440) && !is_mounted_secret(0, 0, 0o100_440));
    }

    #[cfg(unix)]
    fn private_directory() -> tempfile::TempDir {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        tempfile::Builder::new().permissions(mode).tempdir().unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_when_what_it_leads_to_is_written_and_a_broken_one_is_refused() {
        let directory = private_directory();
        let [file, link] = ["file", "link"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let broken = Error::BrokenLink { path: link.clone() };
        assert_eq!(has_content(&link), Err(broken.clone()));
        assert_eq!(write_private(&link, b"new"), Err(broken.clone()));
        assert_eq!(prepare_directory(&link), Err(broken));
        std::fs::write(&file, "old").unwrap();
        write_private(&link, b"new").unwrap();
        assert!(link.is_symlink() && std::fs::read(&file).unwrap() == b"new");
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_written_beside_no_file_of_somebody_else() {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

        let directory = private_directory();
        let [file, link, foreign, other] =
            ["file.key", "link", "file.new", "other"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::fs::write(&file, "old").unwrap();
        let set_mode =
            |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let is_written = |content: &[u8]| {
            write_private(&link, content).unwrap();
            let mode = std::fs::symlink_metadata(&file).unwrap().permissions().mode();
            assert_eq!((std::fs::read(&file).unwrap(), mode & 0o777), (content.to_owned(), 0o600));
        };
        std::fs::write(&foreign, "foreign").unwrap();
        set_mode(&foreign, 0o644);
        is_written(b"first");
        assert_eq!(std::fs::read(&foreign).unwrap(), b"foreign");
        std::fs::rename(&foreign, &other).unwrap();
        std::os::unix::fs::symlink(&other, &foreign).unwrap();
        is_written(b"second");
        assert!(foreign.is_symlink() && std::fs::read(&other).unwrap() == b"foreign");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 4);

        let shared = directory.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        for mode in [0o770, 0o757, 0o1777] {
            set_mode(&shared, mode);
            let refused = write_private(&shared.join("file"), b"new");
            assert_eq!(refused, Err(Error::Exposed { path: shared.clone(), mode: "go-w" }));
        }
        assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 0);
        // Others see no more than the name.
        set_mode(&shared, 0o755);
        write_private(&shared.join("file"), b"new").unwrap();
        refuse_exposed(&shared.join("file"), "600").unwrap();
    }

    #[test]
    fn what_an_interruption_left_is_told_from_the_files_of_a_person() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.key");
        assert_eq!(unfinished(&path), Ok(vec![]));
        for name in
            ["file.backup.new", "file.20261130-old.new", "other.1a2B3c4D5e6F.new", "file.1a2B3c4D5e6F"]
        {
            std::fs::write(directory.path().join(name), "mine").unwrap();
        }
        assert_eq!(unfinished(&path), Ok(vec![]));
        let [earlier, left] = ["file.new", "file.1a2B3c4D5e6F.new"].map(|name| directory.path().join(name));
        for path in [&earlier, &left] {
            std::fs::write(path, "half").unwrap();
        }
        assert_eq!(unfinished(&path), Ok(vec![earlier, left]));
    }

    #[test]
    fn a_lock_is_waited_for_within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let held = lock(&path).unwrap();
        assert_eq!(lock_within(&path, Duration::ZERO).unwrap_err(), Error::Locked);
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || lock(&path).map(drop)
        });
        drop(held);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }
}
