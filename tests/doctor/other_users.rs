//! Hosts' files and programs that other users of the computer can change.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

use serde_json::json;

use super::{Installation, hosts::DESKTOP};

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_others_can_change_is_not_started() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&installation.entry());
    let file = installation.home().join(DESKTOP);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
    let check = installation.examine().await.failed("host Claude Desktop", "can be changed by every user");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("host Claude Desktop").await;
}

/// Another user could lead the link to any file of this user's, such as one in a work tree from elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_behind_a_link_that_others_can_change_is_not_started() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&installation.entry());
    let file = installation.home().join(DESKTOP);
    let elsewhere = installation.home().join("elsewhere.json");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    installation.assert_fixed("host Claude Desktop").await;
    // A link on the way counts as well.
    let shared = installation.home().join("shared");
    fs::create_dir(&shared).unwrap();
    symlink(&elsewhere, shared.join("link.json")).unwrap();
    fs::remove_file(&file).unwrap();
    symlink(shared.join("link.json"), &file).unwrap();
    for directory in [file.parent().unwrap(), &shared] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
        let check =
            installation.examine().await.failed("host Claude Desktop", "can be changed by every user");
        installation.paste(&check.run, "").await;
        installation.assert_fixed("host Claude Desktop").await;
    }
}

/// The link that leads on need not be the last part of a path.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_behind_a_directory_that_others_can_replace_is_not_started() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&installation.entry());
    let home = installation.home();
    let [claude, shared, own] = [".config/Claude", "shared", "own"].map(|name| home.join(name));
    fs::create_dir(&shared).unwrap();
    fs::rename(&claude, &own).unwrap();
    symlink("../shared/link", &claude).unwrap();
    symlink(&own, shared.join("link")).unwrap();
    installation.assert_fixed("host Claude Desktop").await;
    let refused = async || {
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        let check =
            installation.examine().await.failed("host Claude Desktop", "can be changed by every user");
        assert!(check.detail.contains("~/shared"), "{check:?}");
        installation.paste(&check.run, "").await;
        installation.assert_fixed("host Claude Desktop").await;
    };
    refused().await;
    // A directory is replaced as easily as a link.
    fs::remove_file(shared.join("link")).unwrap();
    fs::create_dir(shared.join("link")).unwrap();
    fs::rename(&own, shared.join("link/Claude")).unwrap();
    fs::remove_file(&claude).unwrap();
    symlink("../shared/link/Claude", &claude).unwrap();
    refused().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_another_user_can_replace_is_not_started() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let server = PathBuf::from(env!("CARGO_BIN_EXE_bondmcp-server"));
    let directory = tempfile::tempdir_in(server.parent().unwrap()).unwrap();
    let program = directory.path().join("server");
    symlink(&server, &program).unwrap();
    let mut entry = installation.entry();
    entry["command"] = json!(program);
    installation.configure(&entry);
    installation.assert_fixed("host Claude Desktop").await;
    for mode in [0o777, 0o1777] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        let report = installation.examine().await;
        let check = report.failed("host Claude Desktop", "another user of this computer can replace");
        assert!(check.advice.contains("Move the program"), "{check:?}");
        installation.install(&check.run).await;
        installation.assert_fixed("host Claude Desktop").await;
        installation.configure(&entry);
    }
}
