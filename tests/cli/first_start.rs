//! An interrupted first start, whatever files it left behind, is repeated by the next start.

use std::{path::Path, process::Stdio};

use crate::common::{Place, like_the_seed, sandbox, within};
use tokio::process::Command;

/// Runs a command that creates the vault, with the key in a file beside it.
fn first_start(place: &Place) -> Command {
    let mut command = place.command(&["keys", "use"]);
    command.env_remove("BONDMCP_SEALING_KEY").stdin(Stdio::null());
    command
}

async fn starts(place: &Place, state: &str) {
    let output = within(first_start(place).output()).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{state}: {told}");
    // The vault is complete: the next process reads it.
    let output = within(first_start(place).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{state}, the second time");
}

/// Names and contents.
type Files<'a> = Vec<(&'a str, &'a [u8])>;

fn private(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_that_an_interrupted_first_start_can_leave_is_a_new_vault() {
    let sandbox = sandbox(like_the_seed()).await;
    let whole = Place::new(&sandbox);
    starts(&whole, "nothing").await;
    let read = |name: &str| std::fs::read(whole.data_dir().join(name)).unwrap();
    let (key, database) = (read("sealing.key"), read("vault.db"));

    let mut states: Vec<(String, Files)> = vec![
        ("a lock and nothing else".into(), vec![("sealing.lock", b"")]),
        ("half a key under its temporary name".into(), vec![("sealing.1a2B3c4D5e6F.new", &key[..7])]),
        ("a key and no vault".into(), vec![("sealing.key", &key), ("vault.lock", b"")]),
        ("an empty vault without a key".into(), vec![("vault.db", b"")]),
        ("an empty vault: a full disk".into(), vec![("sealing.key", &key), ("vault.db", b"")]),
        (
            "an empty vault and its journal".into(),
            vec![("sealing.key", &key), ("vault.db", b""), ("vault.db-journal", b"")],
        ),
        (
            "a whole vault under its temporary name, its journal too".into(),
            vec![("sealing.key", &key), ("vault.db.new", &database), ("vault.db.new-journal", &[0; 512])],
        ),
    ];
    for length in [0, 1, database.len() / 2, database.len() - 1] {
        let name = format!("{length} bytes of a vault under its temporary name");
        states.push((name, vec![("sealing.key", &key), ("vault.db.new", &database[..length])]));
    }
    for (state, files) in states {
        let place = Place::new(&sandbox);
        for (name, content) in files {
            private(&place.data_dir().join(name), content);
        }
        starts(&place, &state).await;
        assert!(!place.data_dir().join("vault.db.new").exists(), "{state}");
    }
}

/// Whether `directory` has a file of this name, in which a `*` stands for anything.
fn exists(directory: &Path, name: &str) -> bool {
    let (start, end) = name.split_once('*').unwrap_or((name, name));
    std::fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.any(|entry| {
            let found = entry.unwrap().file_name().into_string().unwrap();
            if start == end { found == name } else { found.starts_with(start) && found.ends_with(end) }
        })
    })
}

/// Killed as soon as a file appears: the next start works in any case.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_killed_at_any_file_that_it_makes_is_made_again() {
    let sandbox = sandbox(like_the_seed()).await;
    for file in [
        "sealing.lock",
        "sealing.*.new",
        "sealing.key",
        "vault.lock",
        "vault.db.new",
        "vault.db.new-journal",
        "vault.db",
        "vault.db-wal",
        "vault.db-shm",
    ] {
        let place = Place::new(&sandbox);
        let mut child = first_start(&place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !exists(&place.data_dir(), file) && child.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let _ = child.kill().await;
        starts(&place, file).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_with_content_is_never_made_anew() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    starts(&place, "nothing").await;
    // The database lost its content and its write-ahead log has some.
    private(&place.data_dir().join("vault.db"), b"");
    private(&place.data_dir().join("vault.db-wal"), &[1; 4096]);
    let output = within(first_start(&place).output()).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("backup"), "{told}");
    assert_eq!(std::fs::read(place.data_dir().join("vault.db-wal")).unwrap(), [1; 4096]);
}
