//! Files that an interrupted process left behind.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Check, Findings, Fix};
use crate::{
    account::Account,
    config::{Settings, VaultLocation},
    sign_in,
    vault::{self, files},
};

/// Age from which a file that sends a browser to the sign-in page belongs to no page any more.
const PAGE_AGE: Duration = Duration::from_secs(sign_in::LIFETIME.as_secs() + 60);

pub(super) async fn examine(
    settings: &Settings,
    account: &Account,
    vault_opens: bool,
    findings: &mut Findings<'_>,
) {
    if let Some(export) = exported_vault(settings) {
        findings.add(Check::warn(
            "export",
            format!("{} is an exported vault; a passphrase alone protects it", export.display()),
            Fix::posix(
                "Delete it when it has been imported, or keep it elsewhere.",
                format!("rm -f {}", findings.presentation.word(&export)),
            ),
        ));
    }
    let mut left = match &settings.vault {
        VaultLocation::Sqlite(vault) => temporary_files(&settings.data_dir, vault),
        VaultLocation::Postgres(_) => vec![],
    };
    left.extend(stale_pages(&settings.data_dir));
    let is_announced =
        vault_opens && settings.vault.exists() && sign_in::is_abandoned(account).await.unwrap_or(false);
    let note = if is_announced {
        "; a sign-in page of a process that ended is still announced, and the next page replaces it"
    } else {
        ""
    };
    if left.is_empty() {
        findings.add(Check::ok("leftovers", format!("no files of interrupted processes{note}")));
        return;
    }
    let words: Vec<_> = left.iter().map(|path| findings.presentation.word(path)).collect();
    let shown: Vec<_> = left.iter().map(|path| path.to_string_lossy()).collect();
    findings.add(Check::warn(
        "leftovers",
        format!("an interrupted process left {}{note}", shown.join(", ")),
        Fix::posix("Delete them.", format!("rm -f {}", words.join(" "))),
    ));
}

fn exported_vault(settings: &Settings) -> Option<PathBuf> {
    let entries = std::fs::read_dir(&settings.data_dir).ok()?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // SQLite's files are not opened: closing them would drop the locks that this process has on them (POSIX).
    let is_sqlites = |path: &Path| match &settings.vault {
        VaultLocation::Sqlite(vault) => {
            let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
            name(vault).zip(name(path)).is_some_and(|(vault, name)| name.starts_with(&vault))
        }
        VaultLocation::Postgres(_) => false,
    };
    paths.find(|path| path.is_file() && !is_sqlites(path) && vault::is_export(path))
}

/// Returns what a first start writes under temporary names, unless one is in progress.
fn temporary_files(data_dir: &Path, vault: &Path) -> Vec<PathBuf> {
    let locks = [data_dir.join("sealing.lock"), vault.with_extension("lock")];
    if locks.iter().any(|lock| is_locked(lock)) {
        return vec![];
    }
    let new = files::beside(vault, ".new");
    let mut left = vec![files::beside(&new, "-journal"), new];
    left.retain(|path| path.exists());
    // A link to a volume that is not mounted is reported with the sealing key.
    left.extend(files::unfinished(&data_dir.join("sealing.key")).unwrap_or_default());
    left
}

fn is_locked(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|file| file.try_lock().is_err())
}

fn stale_pages(data_dir: &Path) -> Vec<PathBuf> {
    let is_old = |path: &PathBuf| {
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > PAGE_AGE))
    };
    let is_page = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default();
        name.starts_with("sign-in-") && (extension == "html" || extension == "new")
    };
    let Ok(entries) = std::fs::read_dir(data_dir) else { return vec![] };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| is_page(path) && is_old(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn an_export_is_looked_for_in_no_file_of_sqlite() {
        let directory = tempfile::tempdir().unwrap();
        let flags = Flags { data_dir: Some(directory.path().to_owned()), ..Flags::default() };
        let settings = Settings::load(flags, None, |_| None).unwrap();
        // Each would be taken for one.
        let write =
            |name: &str| std::fs::write(directory.path().join(name), "bondmcp-server export\n").unwrap();
        for name in ["vault.db", "vault.db-wal", "vault.db-shm"] {
            write(name);
        }
        assert_eq!(exported_vault(&settings), None);
        write("export");
        assert_eq!(exported_vault(&settings), Some(directory.path().join("export")));
    }
}
