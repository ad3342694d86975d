//! Broken data directories, sealing keys and vaults.

use std::{
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

use super::{
    Installation,
    common::{Server, run},
};

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_others_can_read() {
    let (_sandbox, installation) = Installation::signed_in().await;
    chmod(&installation.data("vault.db"), 0o644);
    let check = installation.examine().await.failed("vault", "open to other users");
    assert_eq!(check.run, "chmod 600 ~/data/vault.db");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_others_can_read() {
    let (_sandbox, installation) = Installation::signed_in().await;
    chmod(&installation.place.data_dir(), 0o755);
    let report = installation.examine().await;
    let check = report.failed("data directory", "open to other users");
    assert_eq!(report.check("vault").status, "skip");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("data directory").await;
    installation.assert_fixed("vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_file_that_others_can_read() {
    let (_sandbox, installation) = Installation::signed_in().await;
    chmod(&installation.data("sealing.key"), 0o640);
    let check = installation.examine().await.failed("sealing key", "open to other users");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("sealing key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_that_is_gone() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let (key, backup) = (installation.data("sealing.key"), installation.home().join("backup"));
    std::fs::rename(&key, &backup).unwrap();
    let report = installation.examine().await;
    let check = report.failed("sealing key", "is gone");
    assert!(check.advice.contains("Restore ~/data/sealing.key from a backup"), "{check:?}");
    std::fs::rename(&backup, &key).unwrap();
    installation.assert_fixed("sealing key").await;
    // Without a backup.
    std::fs::remove_file(&key).unwrap();
    installation.paste(&check.run, "").await;
    installation.assert_fixed("sealing key").await;
    installation.sign_in().await;
    installation.assert_fixed("credential").await;
    assert!(installation.data("set-aside/vault.db").exists(), "nothing is lost");
}

/// Moves the sealing key to another directory and links to it; returns both places.
fn with_a_linked_key(installation: &Installation) -> (PathBuf, PathBuf) {
    let (key, volume) = (installation.data("sealing.key"), installation.home().join("volume"));
    let moved = volume.join("moved.key");
    std::fs::create_dir(&volume).unwrap();
    std::fs::rename(&key, &moved).unwrap();
    symlink(&moved, &key).unwrap();
    (volume, moved)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_on_a_volume_that_is_not_mounted() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let (volume, _) = with_a_linked_key(&installation);
    installation.assert_fixed("sealing key").await;
    std::fs::rename(&volume, installation.home().join("aside")).unwrap();
    let check = installation.examine().await.failed("sealing key", "symbolic link");
    assert!(check.advice.contains("Mount the volume"), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_behind_a_link_is_changed_unless_others_can_replace_it() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let (volume, moved) = with_a_linked_key(&installation);
    let rekey = async || run(&mut installation.command(&["vault", "rekey"]), "").await;
    let is_changed = async || {
        let before = std::fs::read(&moved).unwrap();
        installation.assert_fixed("sealing key").await;
        let (code, _, told) = rekey().await;
        assert_eq!(code, Some(0), "{told}");
        assert!(installation.data("sealing.key").is_symlink() && std::fs::read(&moved).unwrap() != before);
    };
    chmod(&volume, 0o755);
    is_changed().await;

    chmod(&volume, 0o777);
    let (code, _, told) = rekey().await;
    assert!(code == Some(1) && told.contains("chmod go-w"), "{told}");
    let report = installation.examine().await;
    let check = report.warned("sealing key", "cannot be changed: `~/volume` is open to other users");
    assert_eq!(report.check("vault").status, "ok", "it is read all the same");
    installation.paste(&check.run, "").await;
    is_changed().await;
}

/// Nor is anything said of what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_below_a_link_to_a_volume_that_is_not_mounted() {
    let (_sandbox, mut installation) = Installation::signed_out().await;
    let link = installation.home().join("link");
    symlink(installation.home().join("volume"), &link).unwrap();
    installation.set("BONDMCP_DATA_DIR", link.join("a/b").to_str().unwrap());
    let report = installation.examine().await;
    let check = report.failed("data directory", "`~/link` is a symbolic link");
    assert!(check.advice.contains("Mount the volume"), "{check:?}");
    for name in ["sealing key", "vault"] {
        assert_eq!(report.check(name).status, "skip");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sealing_key() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    installation.set("BONDMCP_SEALING_KEY", &"ab".repeat(32));
    let check =
        installation.examine().await.failed("vault", "not the one that this vault was encrypted with");
    assert!(check.advice.contains("Give the right key"), "{check:?}");
    installation.unset("BONDMCP_SEALING_KEY");
    installation.assert_fixed("vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_that_is_none() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    installation.set("BONDMCP_SEALING_KEY", "canary");
    let check = installation.examine().await.failed("sealing key", "not 32 bytes");
    assert!(
        check.advice.contains("openssl rand -base64 32") && !check.detail.contains("canary"),
        "{check:?}"
    );
    installation.unset("BONDMCP_SEALING_KEY");
    installation.assert_fixed("sealing key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_damaged() {
    let (_sandbox, installation) = Installation::signed_in().await;
    std::fs::write(installation.data("vault.db"), [7; 8192]).unwrap();
    std::fs::write(installation.data("vault.db-wal"), [7; 100]).unwrap();
    let check = installation.examine().await.failed("vault", "damaged");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("vault").await;
    installation.sign_in().await;
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_of_a_newer_version() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let url = format!("sqlite://{}", installation.data("vault.db").display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (99, 'newer', 1, x'00', 1)";
    sqlx::query(newer).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let check = installation.examine().await.failed("vault", "newer version");
    assert!(check.advice.contains("Upgrade") && check.advice.contains("--data-dir"), "{check:?}");
    let elsewhere = installation.home().join("elsewhere");
    installation.flags = vec!["--data-dir".to_owned(), elsewhere.to_str().unwrap().to_owned()];
    installation.assert_fixed("vault").await;
}

/// Everything runs as an unprivileged user: root can write everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written() {
    let (_sandbox, mut installation) = Installation::signed_out().await;
    let data = installation.place.data_dir();
    std::fs::create_dir(&data).unwrap();
    if rustix::process::geteuid().is_root() {
        installation.user = Some(65534);
        for path in [&installation.home(), &data] {
            chown(path, installation.user, None).unwrap();
        }
    }
    chmod(&data, 0o500);
    let check = installation.examine().await.failed("data directory", "cannot be written");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("data directory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_a_file() {
    let (_sandbox, mut installation) = Installation::signed_out().await;
    std::fs::write(installation.place.data_dir(), "").unwrap();
    let check = installation.examine().await.failed("data directory", "not a directory");
    assert!(check.advice.contains("--data-dir"), "{check:?}");
    let elsewhere = installation.home().join("elsewhere");
    installation.flags = vec!["--data-dir".to_owned(), elsewhere.to_str().unwrap().to_owned()];
    installation.assert_fixed("data directory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_an_interrupted_start_left() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let (key, volume) = (installation.data("sealing.key"), installation.home().join("volume"));
    std::fs::create_dir(&volume).unwrap();
    std::fs::rename(&key, volume.join("moved.key")).unwrap();
    symlink(volume.join("moved.key"), &key).unwrap();
    let mut left = ["vault.db.new-journal", "vault.db.new", "sealing.1a2B3c4D5e6F.new"]
        .map(|name| installation.data(name))
        .to_vec();
    left.push(volume.join("moved.1a2B3c4D5e6F.new"));
    for path in &left {
        std::fs::write(path, "half").unwrap();
    }
    let expected = "left ~/data/vault.db.new-journal, ~/data/vault.db.new, ~/data/sealing.1a2B3c4D5e6F.new, \
        ~/volume/moved.1a2B3c4D5e6F.new";
    let check = installation.examine().await.warned("leftovers", expected);
    installation.paste(&check.run, "").await;
    installation.assert_fixed("leftovers").await;
    assert!(!left.iter().any(|path| path.exists()));
    installation.assert_fixed("vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_sign_in_page_that_is_gone() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let [stale, fresh] = ["sign-in-old.html", "sign-in-new.html"].map(|name| installation.data(name));
    for path in [&stale, &fresh] {
        std::fs::write(path, "<a href=canary-link>").unwrap();
    }
    let hour_ago = SystemTime::now() - Duration::from_hours(1);
    std::fs::File::options().write(true).open(&stale).unwrap().set_modified(hour_ago).unwrap();
    let check = installation.examine().await.warned("leftovers", "sign-in-old.html");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("leftovers").await;
    assert!(fresh.exists() && !stale.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_page_of_a_process_that_was_killed() {
    let (_sandbox, mut installation) = Installation::signed_out().await;
    installation.unset("BONDMCP_SEALING_KEY");
    let link = async |installation: &Installation| {
        let server = Server::spawn(&mut installation.command(&["stdio"])).await;
        assert_eq!(server.ok("login", json!({})).await["status"], "sign_in_required");
        server
    };
    let server = link(&installation).await;
    assert!(!installation.examine().await.check("leftovers").detail.contains("announced"), "it lives");
    server.kill().await;
    // Its lease runs for another moment.
    let check = loop {
        let check = installation.examine().await.check("leftovers");
        if check.detail.contains("a sign-in page of a process that ended is still announced") {
            break check;
        }
    };
    assert!(check.status == "ok" && check.detail.contains("the next page replaces it"), "{check:?}");
    let server = link(&installation).await;
    assert!(!installation.examine().await.check("leftovers").detail.contains("announced"));
    server.end().await;
    assert!(!installation.examine().await.check("leftovers").detail.contains("announced"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keychain_that_does_not_answer() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let socket = installation.home().join("bus");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    installation.set("DBUS_SESSION_BUS_ADDRESS", &format!("unix:path={}", socket.display()));
    let report = installation.examine_fast().await;
    let check = report.failed("keychain", "no answer within 2 s");
    assert!(check.advice.contains("BONDMCP_SEALING_KEY_FILE"), "{check:?}");
    assert_eq!(report.check("vault").status, "skip");
    installation.set("BONDMCP_SEALING_KEY_FILE", installation.data("sealing.key").to_str().unwrap());
    installation.assert_fixed("keychain").await;
    installation.assert_fixed("vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_mends_works_for_any_path() {
    let (_sandbox, mut installation) = Installation::signed_out().await;
    installation.unset("BONDMCP_SEALING_KEY");
    for name in ["a b;$(touch x)'\\", "~", "-rf"] {
        let data = installation.home().join(name);
        installation.set("BONDMCP_DATA_DIR", data.to_str().unwrap());
        installation.sign_in().await;
        chmod(&data, 0o755);
        let check = installation.examine().await.failed("data directory", "open to other users");
        installation.paste(&check.run, "").await;
        installation.assert_fixed("data directory").await;
        std::fs::write(data.join("vault.db"), [7; 8192]).unwrap();
        let check = installation.examine().await.failed("vault", "damaged");
        installation.paste(&check.run, "").await;
        let check = installation.examine().await.failed("credential", "not signed in");
        let login = format!("{} --email {} --password-stdin", check.run, super::common::EMAIL);
        installation.unset("BONDMCP_DATA_DIR");
        let password = super::common::secrets::text(&installation.place.password).to_owned();
        installation.paste(&login, &password).await;
        installation.set("BONDMCP_DATA_DIR", data.to_str().unwrap());
        installation.assert_fixed("credential").await;
    }
}
