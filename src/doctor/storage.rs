//! The data directory, the sealing key and the vault. Nothing is created: what does not exist is reported.

use std::{io, path::Path, time::Duration};

use tokio::time::Instant;

use super::{Check, Findings, Fix, database, presentation::Presentation};
use crate::{
    account::{self, Account, Status},
    config::{SealingKeySource, Settings, VaultLocation},
    error::{UserFacingError, reason, sentence},
    vault::{self, KeyOrigin, KeyPlace, KeychainAnswer, Keyring, files},
};

/// Longest wait for the OS keychain.
const KEYCHAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Examines where credentials are stored; returns the account's status if it can be read.
pub(super) async fn examine(
    settings: &Settings,
    account: &Account,
    findings: &mut Findings<'_>,
) -> Option<Status> {
    let vault = match &settings.vault {
        VaultLocation::Sqlite(path) => path,
        VaultLocation::Postgres(url) => return database::examine(settings, url, account, findings).await,
    };
    let mut is_usable = findings.add(directory("data directory", &settings.data_dir, &findings.presentation));
    if let Some(other) = vault.parent().filter(|parent| *parent != settings.data_dir) {
        is_usable &= findings.add(directory("vault directory", other, &findings.presentation));
    }
    let exists = settings.vault.exists();
    let began = Instant::now();
    let place = Keyring::locate(&settings.sealing_key, &settings.data_dir, KEYCHAIN_TIMEOUT).await;
    let has_answer = findings.add(keychain(&place).since(began));
    // What is in a directory that cannot be used may be there all the same.
    let key = if is_usable {
        sealing_key(settings, &place, vault, exists, &findings.presentation).await
    } else {
        Check::skip("sealing key", "not examined: the directory cannot be used")
    };
    is_usable &= findings.add(key) && has_answer;
    if !is_usable {
        findings.add(Check::skip("vault", "not opened: what it needs failed"));
    } else if !exists {
        let detail = format!("{} does not exist yet; signing in creates it", vault.display());
        findings.add(Check::ok("vault", detail));
    }
    if !exists {
        // Without a vault the status is that of the environment.
        return account.status().await.ok();
    }
    if !is_usable {
        return None;
    }
    if let Err(error) = files::refuse_exposed(vault, "600") {
        findings.add(unusable("vault", &error, vault, &findings.presentation));
        return None;
    }
    let opens = || format!("{} opens ({})", vault.display(), facts(vault));
    let unusable = |error: &_| unusable("vault", error, vault, &findings.presentation);
    let (check, status) = opened(account, opens, unusable).await;
    findings.add(check);
    status
}

/// Checks that the vault opens; returns the account's status, too, if it can be read.
pub(super) async fn opened(
    account: &Account,
    opens: impl FnOnce() -> String,
    unusable: impl FnOnce(&vault::Error) -> Check,
) -> (Check, Option<Status>) {
    let began = Instant::now();
    let status = account.status().await;
    let check = match &status {
        Ok(_) => Check::ok("vault", opens()),
        Err(account::Error::Vault(error)) => unusable(error),
        Err(error) => Check::failed("vault", error),
    };
    (check.since(began), status.ok())
}

/// Checks a directory that holds private files.
pub(super) fn directory(name: &'static str, path: &Path, presentation: &Presentation) -> Check {
    let shown = path.display();
    let elsewhere = || Fix::advice("Name another directory with --data-dir or BONDMCP_DATA_DIR.");
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            Check::fail(name, format!("{shown} is not a directory"), elsewhere())
        }
        Ok(_) => match files::refuse_exposed(path, "700") {
            Err(error) => unusable(name, &error, path, presentation),
            Ok(()) if is_writable(path) => Check::ok(name, format!("{shown} ({})", facts(path))),
            Ok(()) => Check::fail(
                name,
                format!("{shown} cannot be written"),
                elsewhere().or_run(format!("chmod 700 {}", presentation.word(path))),
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(link) = path.ancestors().find(|ancestor| ancestor.is_symlink() && !ancestor.exists())
            {
                return unusable(name, &files::unusable(link, &error), path, presentation);
            }
            // The last ancestor of a relative path is empty.
            let here = |path| if path == Path::new("") { Path::new(".") } else { path };
            match path.ancestors().map(here).find(|ancestor| ancestor.exists()) {
                Some(ancestor) if ancestor.is_dir() && is_writable(ancestor) => {
                    Check::ok(name, format!("{shown} does not exist yet; signing in creates it"))
                }
                _ => Check::fail(name, format!("{shown} is not there and cannot be created"), elsewhere()),
            }
        }
        Err(error) => {
            Check::fail(name, format!("{shown} cannot be used: {}", reason(error.kind())), elsewhere())
        }
    }
}

fn keychain(place: &KeyPlace) -> Check {
    match place.keychain {
        KeychainAnswer::NotAsked => {
            Check::ok("keychain", "not needed: the sealing key comes from the environment")
        }
        KeychainAnswer::HasKey => Check::ok("keychain", "answers and holds a sealing key"),
        KeychainAnswer::NoKey => {
            Check::ok("keychain", "answers; it holds no sealing key for this data directory")
        }
        KeychainAnswer::NoKeychain => {
            Check::ok("keychain", "none on this computer; the sealing key is in a private file instead")
        }
        KeychainAnswer::Silent => Check::fail(
            "keychain",
            format!("no answer within {} s", KEYCHAIN_TIMEOUT.as_secs()),
            Fix::advice(
                "Unlock it, or do without: put a key into a private file and name that with BONDMCP_SEALING_KEY_FILE.",
            ),
        ),
    }
}

async fn sealing_key(
    settings: &Settings,
    place: &KeyPlace,
    vault: &Path,
    vault_exists: bool,
    presentation: &Presentation,
) -> Check {
    let source = match &place.origin {
        _ if place.keychain == KeychainAnswer::Silent => {
            return Check::skip("sealing key", "the keychain does not answer");
        }
        None if vault_exists => {
            let lost = settings.data_dir.join("sealing.key");
            let advice = format!(
                "Restore {} from a backup; without it nothing in the vault can be read. Or start afresh: move the vault away.",
                lost.display()
            );
            let detail = "the vault's sealing key is gone: neither the keychain nor a file has it";
            return Check::fail("sealing key", detail, Fix::posix(advice, set_aside(vault, presentation)));
        }
        None => return Check::ok("sealing key", "none yet; it is made with the vault"),
        Some(KeyOrigin::Keychain) => {
            return Check::ok(
                "sealing key",
                match &place.hidden {
                    Some(path) => {
                        format!(
                            "in the OS keychain or {}: the vault may have either's, so keep both",
                            path.display()
                        )
                    }
                    None => "in the OS keychain".to_owned(),
                },
            );
        }
        Some(KeyOrigin::Environment) => settings.sealing_key.clone(),
        Some(KeyOrigin::KeyFile(path) | KeyOrigin::NewKeyFile(path)) => SealingKeySource::File(path.clone()),
    };
    // From these sources a key is read and never made.
    match Keyring::load(&source, &settings.data_dir, &settings.vault).await {
        Err(error) => unusable("sealing key", &error, vault, presentation),
        Ok((_, KeyOrigin::KeyFile(path))) => {
            let detail = format!("in {} ({})", path.display(), facts(&path));
            match files::refuse_replaceable(&path) {
                // What the operator provides is never written.
                Err(error) if matches!(settings.sealing_key, SealingKeySource::KeychainOrFile) => {
                    Check::warn(
                        "sealing key",
                        format!("{detail}, but cannot be changed: {error}"),
                        fix(&error, vault, presentation),
                    )
                }
                _ => Check::ok("sealing key", detail),
            }
        }
        Ok(_) => Check::ok("sealing key", "in BONDMCP_SEALING_KEY"),
    }
}

/// Describes an error of the vault or its files.
fn unusable(name: &'static str, error: &vault::Error, vault: &Path, presentation: &Presentation) -> Check {
    let detail = sentence(&error.to_string());
    Check::fail(name, detail.trim_end_matches('.'), fix(error, vault, presentation))
}

/// Returns what mends an error of the vault or its files, with a command that works as it stands.
fn fix(error: &vault::Error, vault: &Path, presentation: &Presentation) -> Fix {
    match error {
        vault::Error::Exposed { path, mode } => Fix::run(format!("chmod {mode} {}", presentation.word(path))),
        vault::Error::Foreign { path, user, .. } => {
            Fix::advice("Run this as its owner. If the file is yours:")
                .or_run(format!("sudo chown -R {user} {}", presentation.word(path)))
        }
        vault::Error::Damaged | vault::Error::Tampered => Fix::posix(
            "Restore it from a backup. Or start afresh, with a new sign-in and new API keys: move it away.",
            set_aside(vault, presentation),
        ),
        vault::Error::WrongKey => Fix::posix(
            "Give the right key. Or start afresh, with a new sign-in and new API keys: move the vault away.",
            set_aside(vault, presentation),
        ),
        _ => Fix::advice(UserFacingError::from(error).solution),
    }
}

/// Returns the command that moves the vault away without losing it.
fn set_aside(vault: &Path, presentation: &Presentation) -> String {
    let aside = vault.with_file_name("set-aside");
    let (vault, aside) = (presentation.word(vault), presentation.word(&aside));
    format!("mkdir -p {aside} && mv {vault}* {aside}/")
}

/// Returns size, mode and owner.
fn facts(path: &Path) -> String {
    let Ok(metadata) = std::fs::metadata(path) else { return "not readable".to_owned() };
    let mut facts = Vec::new();
    if metadata.is_file() {
        facts.push(format!("{} KiB", metadata.len().div_ceil(1024)));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        facts.push(format!("mode {:o}", metadata.mode() & 0o777));
        facts.push(if metadata.uid() == rustix::process::geteuid().as_raw() {
            "yours".to_owned()
        } else {
            format!("of uid {}", metadata.uid())
        });
    }
    facts.join(", ")
}

fn is_writable(directory: &Path) -> bool {
    #[cfg(unix)]
    {
        use rustix::fs::Access;
        rustix::fs::access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_ok()
    }
    #[cfg(not(unix))]
    std::fs::metadata(directory).is_ok_and(|metadata| !metadata.permissions().readonly())
}
