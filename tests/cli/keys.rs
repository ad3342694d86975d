//! The commands of `keys`: keys by name, questions before a key ends, and the ways in which a key leaves the vault.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use crate::common::{EMAIL, Place, like_the_seed, run, sandbox, secrets, signed_in, within};
use bondmcp_server::{clock::Clock, sandbox::RunningSandbox, sandbox::SandboxConfig};
use chrono::{TimeDelta, Utc};
use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};

const TIMEOUT_MS: u64 = 60_000;

/// Runs a command that must succeed; returns its stdout.
async fn ok(place: &Place, arguments: &[&str]) -> String {
    let (code, out, err) = place.run(arguments).await;
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    out
}

async fn with_a_key() -> (RunningSandbox, Place, String) {
    let (sandbox, place) = signed_in().await;
    ok(&place, &["keys", "create", "ci", "--permission", "read"]).await;
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    (sandbox, place, id)
}

fn terminal(place: &Place, arguments: &[&str]) -> PtySession {
    spawn_command(place.command(arguments).into_std(), Some(TIMEOUT_MS)).unwrap()
}

/// Runs `script` with `sh` in a terminal; `$0` is the program.
fn shell_on_terminal(place: &Place, script: &str) -> PtySession {
    let command = place.command(&[]).into_std();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.arg("-c").arg(script).arg(command.get_program());
    spawn_command(shell, Some(TIMEOUT_MS)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_name_is_as_good_as_an_id() {
    let (sandbox, place, id) = with_a_key().await;
    ok(&place, &["keys", "use", "ci"]).await;
    ok(&place, &["keys", "usage", "ci"]).await;
    ok(&place, &["keys", "run", "ci", "--", "/bin/sh", "-c", "exit 0"]).await;
    ok(&place, &["keys", "rotate", "ci", "--yes"]).await;
    let (new, _) = sandbox.live_keys(EMAIL).remove(0);
    assert_ne!(new, id);
    ok(&place, &["keys", "revoke", "ci", "--yes"]).await;
    assert!(sandbox.live_keys(EMAIL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_name_is_refused_with_the_ids() {
    let (sandbox, place, _) = with_a_key().await;
    ok(&place, &["keys", "create", "ci"]).await;
    for arguments in [&["keys", "use", "ci"][..], &["keys", "revoke", "ci", "--yes"]] {
        let (code, _, err) = place.run(arguments).await;
        assert_eq!(code, Some(1));
        for (id, _) in sandbox.live_keys(EMAIL) {
            assert!(err.contains(&id), "{err}");
        }
    }
    assert_eq!(sandbox.live_keys(EMAIL).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_when_a_key_was_made_and_what_it_may_do() {
    let (_sandbox, place, id) = with_a_key().await;
    let table = ok(&place, &["keys", "list"]).await;
    let [head, row] = &table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    for column in ["CREATED", "LAST USED", "PERMISSIONS"] {
        assert!(head.contains(column), "{head}");
    }
    let today = Utc::now().date_naive().to_string();
    assert!(row.starts_with(&id) && row.contains(&today[..8]) && row.contains("read"), "{row}");
    assert_eq!(place.keys().await["keys"][0]["permissions"], json!(["read"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hint_after_creating_works_as_printed() {
    let (_sandbox, place) = signed_in().await;
    let told = ok(&place, &["keys", "create", "ci"]).await;
    let hint = told.lines().find_map(|line| line.strip_prefix("Use it: ")).unwrap();
    let script = hint.replace("-- CMD", "-- /bin/sh -c 'exit 5'");
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.env_clear().env("BONDMCP_SEALING_KEY", secrets::text(&place.sealing_key)).args(["-c", &script]);
    let (code, _, err) = run(&mut shell, "").await;
    assert_eq!(code, Some(5), "{script}: {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_not_end_where_nobody_can_be_asked() {
    let (sandbox, place, _) = with_a_key().await;
    let before = sandbox.counts();
    for verb in ["revoke", "rotate"] {
        let (code, _, err) = place.run(&["keys", verb, "ci"]).await;
        assert_eq!(code, Some(2));
        assert!(err.contains("--yes"), "{err}");
    }
    assert_eq!(sandbox.counts(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_asks_once_and_for_the_key_in_use_twice() {
    let (sandbox, place, id) = with_a_key().await;
    let mut asked = terminal(&place, &["keys", "revoke", "ci"]);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("no").unwrap();
    assert!(asked.exp_eof().unwrap().contains("Cancelled."));

    ok(&place, &["keys", "use", "ci"]).await;
    let mut asked = terminal(&place, &["keys", "revoke", "ci"]);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("yes").unwrap();
    asked.exp_string("This key is in use").unwrap();
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("yes").unwrap();
    assert!(asked.exp_eof().unwrap().contains("Cancelled."));
    assert_eq!(sandbox.live_keys(EMAIL).len(), 1);

    let mut asked = terminal(&place, &["keys", "rotate", "ci"]);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("yes").unwrap();
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("ci").unwrap();
    assert!(asked.exp_eof().unwrap().contains(&format!("replaces {id}")));

    ok(&place, &["keys", "use"]).await;
    let mut asked = terminal(&place, &["keys", "revoke", "ci"]);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("yes").unwrap();
    assert!(asked.exp_eof().unwrap().contains("is revoked."));
    assert!(sandbox.live_keys(EMAIL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn use_without_a_key_names_what_calls_really_use() {
    let (sandbox, place, id) = with_a_key().await;
    assert_eq!(ok(&place, &["keys", "use", "ci"]).await, format!("API calls use {id}.\n"));
    assert_eq!(ok(&place, &["keys", "use"]).await, "API calls use the session.\n");
    let (accounts, _) = crate::common::accounts(&place);
    accounts.local().use_own_key(sandbox.secrets_issued().pop().unwrap()).await.unwrap();
    accounts.close().await;
    let told = ok(&place, &["keys", "use"]).await;
    assert!(told.contains("entered on the sign-in page"), "{told}");
    let mut command = place.command(&["keys", "use", "ci"]);
    let (_, told, _) = run(command.env("BONDMCP_API_KEY", "bcp_of-the-environment"), "").await;
    assert_eq!(told, format!("API calls use BONDMCP_API_KEY as long as it is set, otherwise {id}.\n"));
    let nobody = Place::new(&sandbox);
    let told = ok(&nobody, &["keys", "use"]).await;
    assert!(told.contains("not signed in"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_tells_the_child_where_the_api_is() {
    let (_sandbox, place, id) = with_a_key().await;
    let told = ok(&place, &["keys", "run", &id, "--", "/bin/sh", "-c", "echo \"$BONDMCP_BASE_URL\""]).await;
    assert_eq!(told.trim(), place.base_url);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_ends_as_a_shell_would() {
    let (_sandbox, place, _) = with_a_key().await;
    let file = place.directory.path().join("data.txt");
    fs::write(&file, "no program").unwrap();
    let code = async |command: &[&str]| place.run(&[&["keys", "run", "ci", "--"], command].concat()).await.0;
    assert_eq!(code(&["/bin/sh", "-c", "exit 3"]).await, Some(3));
    assert_eq!(code(&["nosuchprog"]).await, Some(127));
    assert_eq!(code(&[file.to_str().unwrap()]).await, Some(126));
    assert_eq!(code(&["/bin/sh", "-c", "kill -TERM $$"]).await, Some(128 + 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_run_reaches_the_program() {
    let (_sandbox, place, _) = with_a_key().await;
    let script = "sleep 60 & trap 'kill $!; echo ended in order; exit 4' TERM; echo ready; wait";
    let mut command = place.command(&["keys", "run", "ci", "--", "/bin/sh", "-c", script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), "ready");
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), "ended in order");
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(4));
}

fn key_in(sandbox: &RunningSandbox) -> String {
    secrets::text(&sandbox.secrets_issued().pop().unwrap()).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn write_puts_the_key_into_a_private_file_and_keeps_its_other_lines() {
    let (sandbox, place, _) = with_a_key().await;
    let file = place.directory.path().join(".env");
    fs::write(&file, "# mine\nA=1\nexport BONDMCP_API_KEY=old\nB=2\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // A link stays a link.
    let link = place.directory.path().join("link.env");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let (code, out, err) = place.run(&["keys", "write", "ci", "--env-file", link.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{err}");
    secrets::assert_absent(&sandbox.secrets_issued(), format!("{out}{err}").as_bytes(), "the output");
    let expected = format!(
        "export BONDMCP_API_KEY={}\nBONDMCP_BASE_URL={}\n# mine\nA=1\nB=2\n",
        key_in(&sandbox),
        place.base_url
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let names = fs::read_dir(place.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with(".env.")).count(), 0);
}

fn git(directory: &Path, arguments: &[&str]) {
    let git = std::process::Command::new("git").current_dir(directory).args(arguments).output().unwrap();
    assert!(git.status.success(), "{git:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn write_refuses_a_file_that_git_would_commit() {
    let (_sandbox, place, _) = with_a_key().await;
    let tree = place.directory.path().join("tree");
    fs::create_dir_all(tree.join("deep")).unwrap();
    git(&tree, &["init", "--quiet"]);
    // A work tree from elsewhere may come with a configuration that has git start programs.
    let (monitor, started) = (tree.join(".git/monitor"), place.directory.path().join("started"));
    fs::write(&monitor, format!("#!/bin/sh\ntouch '{}'\n", started.display())).unwrap();
    fs::set_permissions(&monitor, fs::Permissions::from_mode(0o700)).unwrap();
    git(&tree, &["config", "core.fsmonitor", monitor.to_str().unwrap()]);
    let file = tree.join("deep/.env");
    let write = async |path: Option<&str>| {
        let mut command = place.command(&["keys", "write", "ci", "--env-file", file.to_str().unwrap()]);
        let path = path.map_or_else(|| std::env::var("PATH").unwrap(), ToOwned::to_owned);
        let (code, _, err) = run(command.env("PATH", path).env("GIT_DIR", "/nonexistent"), "").await;
        (code, err)
    };
    let (code, err) = write(None).await;
    assert!(code == Some(1) && err.contains(".gitignore"), "{err}");
    fs::write(tree.join(".gitignore"), ".env\n").unwrap();
    let (code, err) = write(Some("/nonexistent")).await;
    assert!(code == Some(1) && err.contains("git cannot be asked"), "{err}");
    assert!(!file.exists());
    assert_eq!(write(None).await.0, Some(0));
    assert!(file.exists());
    // A file that git has already is committed although it is ignored.
    git(&tree, &["-c", "core.fsmonitor=false", "add", "--force", "deep/.env"]);
    let (code, err) = write(None).await;
    assert!(code == Some(1) && err.contains("not ignored"), "{err}");
    assert!(!started.exists(), "git started a program of the work tree");
}

/// A work tree from elsewhere may lack what git then fetches, with a program that its configuration names.
#[tokio::test(flavor = "multi_thread")]
async fn write_has_git_fetch_nothing() {
    let (_sandbox, place, _) = with_a_key().await;
    let tree = place.directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    git(&tree, &["init", "--quiet"]);
    fs::write(tree.join(".gitignore"), ".env\n").unwrap();
    git(&tree, &["add", ".gitignore"]);
    git(&tree, &["update-index", "--skip-worktree", ".gitignore"]);
    fs::remove_file(tree.join(".gitignore")).unwrap();
    for object in fs::read_dir(tree.join(".git/objects")).unwrap().map(|entry| entry.unwrap()) {
        if object.file_name().len() == 2 {
            fs::remove_dir_all(object.path()).unwrap();
        }
    }
    let (program, started) = (tree.join(".git/program"), place.directory.path().join("started"));
    fs::write(&program, format!("#!/bin/sh\ntouch '{}'\n", started.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    for (name, value) in [
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", "ssh://x/y"),
        ("core.sshCommand", program.to_str().unwrap()),
    ] {
        git(&tree, &["config", name, value]);
    }
    let file = tree.join(".env");
    let mut command = place.command(&["keys", "write", "ci", "--env-file", file.to_str().unwrap()]);
    let (code, _, err) = run(command.env("PATH", std::env::var("PATH").unwrap()), "").await;
    assert!(!started.exists(), "git started a program of the work tree");
    assert_eq!(code, Some(1), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_writes_into_a_pipe_after_a_yes_on_the_terminal() {
    let (sandbox, place, _) = with_a_key().await;
    let file = place.directory.path().join("piped");
    let script = format!("\"$0\" keys reveal ci --stdout | cat > '{}'", file.display());
    let mut asked = shell_on_terminal(&place, &script);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("no").unwrap();
    asked.exp_eof().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    let mut asked = shell_on_terminal(&place, &script);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("yes").unwrap();
    let shown = asked.exp_eof().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", key_in(&sandbox)));
    secrets::assert_absent(&sandbox.secrets_issued(), shown.as_bytes(), "the terminal");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn reveal_writes_nothing_where_there_is_no_terminal() {
    let (sandbox, place, _) = with_a_key().await;
    let command = place.command(&[]).into_std();
    let mut alone = tokio::process::Command::new("setsid");
    alone.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    alone.arg("--wait").arg(command.get_program()).args(["keys", "reveal", "ci", "--stdout"]);
    let (code, out, err) = run(&mut alone, "yes\n").await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    secrets::assert_absent(&sandbox.secrets_issued(), err.as_bytes(), "stderr");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reminds_of_keys_older_than_ninety_days() {
    let clock = Clock::manual(Utc::now() - TimeDelta::days(100));
    let sandbox = sandbox(SandboxConfig { clock: clock.clone(), ..like_the_seed() }).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    ok(&place, &["keys", "create", "old"]).await;
    clock.advance(TimeDelta::days(20));
    ok(&place, &["keys", "create", "young"]).await;
    let told = ok(&place, &["status"]).await;
    let reminder = told.lines().find(|line| line.starts_with("API key")).unwrap();
    assert!(reminder.starts_with("API key `old` is 100 days old. Rotate it: `"), "{reminder}");
    assert!(!told.contains("young"), "{told}");
    // The reminder goes with the old key, also where the plan allows no second one.
    sandbox.set_plan(EMAIL, bondmcp_server::sandbox::Plan::Free);
    clock.advance(TimeDelta::days(80));
    for (id, _) in sandbox.live_keys(EMAIL) {
        ok(&place, &["keys", "rotate", &id, "--yes"]).await;
    }
    let told = ok(&place, &["status"]).await;
    assert!(!told.contains("days old"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_with_a_key_is_audited_and_nothing_of_it() {
    let (sandbox, place, id) = with_a_key().await;
    let file = place.directory.path().join("marker.env");
    ok(&place, &["keys", "use", "ci"]).await;
    ok(&place, &["keys", "run", "ci", "--", "/bin/sh", "-c", ": marker"]).await;
    assert_eq!(place.run(&["keys", "run", "ci", "--", "marker"]).await.0, Some(127));
    ok(&place, &["keys", "write", "ci", "--env-file", file.to_str().unwrap()]).await;
    let mut asked = terminal(&place, &["keys", "reveal", "ci"]);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("yes").unwrap();
    asked.exp_eof().unwrap();
    ok(&place, &["keys", "rotate", "ci", "--yes"]).await;
    let (new, _) = sandbox.live_keys(EMAIL).remove(0);
    let mut asked = terminal(&place, &["keys", "revoke", "ci"]);
    asked.exp_string("to continue: ").unwrap();
    asked.send_line("no").unwrap();
    asked.exp_eof().unwrap();
    ok(&place, &["keys", "revoke", "ci", "--yes"]).await;

    let log = ok(&place, &["audit", "--tool", "keys", "--json"]).await;
    let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<[&str; 3]> = entries
        .iter()
        .map(|entry| ["action", "outcome", "key_id"].map(|field| entry[field].as_str().unwrap()))
        .collect();
    let expected = [
        ["create", "ok", &id],
        ["use", "ok", &id],
        ["run", "ok", &id],
        ["run", "failed", &id],
        ["write", "ok", &id],
        ["reveal", "ok", &id],
        ["rotate", "ok", &new],
        ["revoke", "cancelled", &new],
        ["revoke", "ok", &new],
    ];
    assert_eq!(told, expected);
    let file = fs::read(place.data_dir().join("audit.jsonl")).unwrap();
    secrets::assert_absent(&sandbox.secrets_issued(), &file, "the audit log");
    assert!(!String::from_utf8(file).unwrap().contains("marker"));
    let table = ok(&place, &["audit"]).await;
    assert!(table.contains("(terminal)") && table.contains("keys reveal"), "{table}");
}
