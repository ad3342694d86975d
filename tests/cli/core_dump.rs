//! The memory of the process contains passwords and tokens in plain text: it is not written to core files, and other
//! processes of the same user cannot read it.
#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    process::Stdio,
};

use crate::common::{Place, like_the_seed, raw::initialize, sandbox, within};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

/// A user without privileges. Root's processes belong to root whether they are dumpable or not, so tests run by root
/// run the binary as this user.
const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn the_process_leaves_no_core_dump_and_is_not_readable_by_its_own_user() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let home = place.directory.path();
    let binary = home.join("bondmcp-server");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
    if fs::metadata(home).unwrap().uid() == 0 {
        fs::copy(env!("CARGO_BIN_EXE_bondmcp-server"), &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        chown(home, Some(NOBODY), Some(NOBODY)).unwrap();
        command = Command::new(&binary);
        command.uid(NOBODY).gid(NOBODY).current_dir(home);
    }
    let mut child = command
        .env_clear()
        .env("BONDMCP_BASE_URL", &place.base_url)
        .env("BONDMCP_DATA_DIR", place.data_dir())
        .arg("stdio")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{}\n", initialize("2025-11-25", json!({}))).as_bytes()).await.unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(within(answers.next_line()).await.unwrap().unwrap().contains("serverInfo"));

    let process = format!("/proc/{}", child.id().unwrap());
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // The kernel gives these files to root when the process is not dumpable (proc(5)).
    assert_eq!(fs::metadata(format!("{process}/mem")).unwrap().uid(), 0);
}
