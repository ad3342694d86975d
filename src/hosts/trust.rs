//! Whether other users of this computer can change where a path leads. Elsewhere than on Unix nothing is examined.
#![cfg(unix)]

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use super::Error;

/// Linux follows at most this many links.
const MAX_LINKS: usize = 40;

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Number of components of paths such as `/home` and `/var/home`, which only the computer's root can make.
const SYSTEM_DEPTH: usize = 3;

/// Refuses the file of a host at `path` if another user owns it or can change it, or where `path` leads. `target` is the
/// file itself, where links lead.
pub fn refuse_foreign_file(path: &Path, target: &Path) -> Result<(), Error> {
    for place in [Some(target), path.parent()].into_iter().flatten().flat_map(up_to_directory) {
        let metadata = fs::metadata(place).map_err(|error| Error::file(place, &error))?;
        refuse_owner(place, &metadata, false)?;
        refuse_open(place, &metadata)?;
    }
    for (place, metadata) in way(path).map_err(|error| Error::file(path, &error))? {
        let Some(directory) = place.parent() else { continue };
        let of_directory = fs::metadata(directory).map_err(|error| Error::file(directory, &error))?;
        if metadata.is_symlink() {
            // Root's are as good as the user's: some package managers make them.
            refuse_owner(&place, &metadata, true)?;
            refuse_owner(directory, &of_directory, true)?;
        }
        refuse_open(directory, &of_directory)?;
    }
    Ok(())
}

/// Refuses a program that another user can replace, or the file that leads to it: they would decide what hosts start.
pub fn refuse_replaceable(program: &Path) -> Result<(), Error> {
    for (place, metadata) in way(program).map_err(|error| Error::file(program, &error))? {
        let directory = place.parent().map(fs::metadata).and_then(Result::ok);
        if is_replaceable(&place, &metadata, directory.as_ref()) {
            return Err(Error::Replaceable { program: program.to_owned(), place });
        }
    }
    Ok(())
}

/// Whether another user can put something in the place of what has `metadata`, or into it.
fn is_replaceable(place: &Path, metadata: &Metadata, directory: Option<&Metadata>) -> bool {
    let is_open = |metadata: &Metadata| metadata.mode() & OTHERS_WRITE != 0;
    let is_sticky = |metadata: &Metadata| metadata.is_dir() && metadata.mode() & STICKY != 0;
    let is_of_the_system = metadata.is_dir()
        && metadata.mode() & GROUP_WRITES == 0
        && place.components().count() <= SYSTEM_DEPTH;
    if !is_trusted(metadata.uid(), is_of_the_system, unmapped_owner()) {
        return true;
    }
    // A link has no mode of its own.
    if is_open(metadata) && !metadata.is_symlink() && !is_sticky(metadata) {
        return true;
    }
    // The sticky bit keeps others from replacing what is there. But such directories are emptied from time to time, and
    // then the name is free; only what root has put there is meant to stay.
    let stays = metadata.is_dir() && metadata.uid() == 0;
    directory.is_some_and(|directory| is_open(directory) && is_sticky(directory) && !stays)
}

/// Whether what `owner` can change is as safe as what the user can, given the [`unmapped_owner`].
fn is_trusted(owner: u32, is_of_the_system: bool, unmapped: Option<u32>) -> bool {
    [0, user()].contains(&owner) || is_of_the_system && unmapped == Some(owner)
}

/// Returns the number that stands for every user of the computer without one here. In a rootless container its root is
/// among them, to whom `/home` and the like belong.
fn unmapped_owner() -> Option<u32> {
    let [uid_map, overflow] =
        ["/proc/self/uid_map", "/proc/sys/kernel/overflowuid"].map(|path| fs::read_to_string(path).ok());
    overflow_owner(&uid_map?, &overflow?)
}

/// Reads the number from `overflow`, unless `uid_map` is that of a process outside of containers, where root and everybody
/// else have theirs.
fn overflow_owner(uid_map: &str, overflow: &str) -> Option<u32> {
    let is_complete = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    if is_complete { None } else { overflow.trim().parse().ok() }
}

fn refuse_owner(path: &Path, metadata: &Metadata, may_be_root: bool) -> Result<(), Error> {
    let (owner, user) = (metadata.uid(), user());
    if owner == user || may_be_root && owner == 0 {
        return Ok(());
    }
    Err(Error::Foreign { path: path.to_owned(), owner, user })
}

/// In a directory with the sticky bit others cannot replace a file.
fn refuse_open(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.mode() & OTHERS_WRITE != 0 && metadata.mode() & STICKY == 0 {
        return Err(Error::WritableByOthers { path: path.to_owned() });
    }
    Ok(())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns what `path` leads over, from the root on: directories, links, and the file. Each is named by a path without
/// links. What does not exist, and all behind it, is left out.
fn way(path: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut rest = reversed(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let (mut way, mut links) = (Vec::new(), 0);
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let place = at.join(name);
        let metadata = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            metadata => metadata?,
        };
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let to = fs::read_link(&place)?;
            if to.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(reversed(&to));
        } else {
            at.clone_from(&place);
        }
        way.push((place, metadata));
    }
    Ok(way)
}

/// Returns the names in `path`, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// Returns what exists of `path` and its ancestors, up to the first directory.
fn up_to_directory(path: &Path) -> impl Iterator<Item = &Path> {
    let mut existing = path.ancestors().filter(|path| path.exists());
    let first = existing.next();
    first.into_iter().chain(existing.next().filter(|_| first.is_some_and(|path| !path.is_dir())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_in_a_directory_for_temporary_files_can_be_replaced_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        let (directory, program) = (directory.path(), program.as_path());
        fs::write(program, "").unwrap();
        let is_replaceable_with = |mode_of_directory, mode| {
            for (path, mode) in [(directory, mode_of_directory), (program, mode)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            let [of_program, of_directory] = [program, directory].map(|path| fs::metadata(path).unwrap());
            is_replaceable(program, &of_program, Some(&of_directory))
        };
        // Many users have a group of their own, which may write.
        assert!(!is_replaceable_with(0o775, 0o775));
        assert!(is_replaceable_with(0o755, 0o757));
        assert!(is_replaceable_with(0o1777, 0o755));
    }

    #[test]
    fn a_directory_of_the_computers_root_is_trusted_in_a_rootless_container() {
        assert!(is_trusted(0, false, None) && is_trusted(user(), false, None));
        assert!(is_trusted(65534, true, Some(65534)));
        assert!(!is_trusted(65534, true, None), "a user with a number");
        assert!(!is_trusted(65534, false, Some(65534)), "a program or a link");
        assert!(!is_trusted(65533, true, Some(65534)), "another user");
        let of_rootless_container = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(overflow_owner(of_rootless_container, "65534\n"), Some(65534));
        assert_eq!(overflow_owner("         0          0 4294967295\n", "65534\n"), None);
    }
}
