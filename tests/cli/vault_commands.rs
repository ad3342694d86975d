//! `vault rekey`, `export` and `import`, as an operator runs them.

use std::{
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::common::{EMAIL, Place, Server, like_the_seed, postgres, run, sandbox, secrets};
use bondmcp_server::{sandbox::RunningSandbox, secret::SecretString};
use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};
use tokio::process::Command;

const TIMEOUT_MS: u64 = 60_000;
const PASSPHRASE: &str = "correct horse battery staple";

/// A place whose key is in the key file, where the program itself keeps it. It is there before the vault, so that no
/// keychain of this machine gets one.
struct WithKeyFile(Place);

impl WithKeyFile {
    async fn signed_in(sandbox: &RunningSandbox) -> Self {
        let place = Place::new(sandbox);
        std::fs::DirBuilder::new().mode(0o700).create(place.data_dir()).unwrap();
        let place = Self(place);
        place.write_keys(secrets::text(&place.0.sealing_key));
        let mut login = place.command(&["login", "--email", EMAIL, "--password-stdin"]);
        assert_eq!(run(&mut login, secrets::text(&place.0.password)).await.0, Some(0));
        place
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command.env_remove("BONDMCP_SEALING_KEY");
        command
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        run(&mut self.command(arguments), "").await
    }

    fn key_file(&self) -> PathBuf {
        self.0.data_dir().join("sealing.key")
    }

    fn keys(&self) -> String {
        std::fs::read_to_string(self.key_file()).unwrap()
    }

    fn write_keys(&self, keys: &str) {
        write_private(&self.key_file(), keys);
    }
}

/// Writes a file for its owner alone, atomically, since servers may read it at any time.
fn write_private(path: &std::path::Path, text: &str) {
    let new = path.with_extension("tests");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Runs a command with these keys in the environment.
async fn with_keys(place: &Place, keys: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    run(place.command(arguments).env("BONDMCP_SEALING_KEY", keys), "").await
}

/// Checks that the command failed, and that it named `remedy`.
fn assert_failed((code, out, err): &(Option<i32>, String, String), expected: i32, remedy: &str) {
    assert_eq!(*code, Some(expected), "{out}{err}");
    assert!(err.contains(remedy), "{err}");
}

fn new_key() -> SecretString {
    bondmcp_server::secret::random()
}

#[tokio::test(flavor = "multi_thread")]
async fn rekey_replaces_the_key_in_the_key_file_and_the_old_one_opens_nothing() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = WithKeyFile::signed_in(&sandbox).await;
    let mut old = vec![place.keys()];
    for _ in 0..2 {
        let (code, out, err) = place.run(&["vault", "rekey"]).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(
            out.contains("new key; 1 record was encrypted") && out.contains("old key was deleted"),
            "{out}"
        );
        let keys = place.keys();
        assert!(!keys.contains(',') && !out.contains(&keys), "{out}");
        assert!(!old.contains(&keys));
        let (code, out, err) = place.run(&["status"]).await;
        assert!(code == Some(0) && out.contains(EMAIL), "{out}{err}");
        for key in &old {
            assert_failed(&with_keys(&place.0, key, &["status"]).await, 1, "right key");
        }
        old.push(keys);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_that_was_interrupted_is_completed_with_the_key_that_it_made() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = WithKeyFile::signed_in(&sandbox).await;
    let (old, new) = (place.keys(), new_key());
    // As after the first step.
    place.write_keys(&format!("{},{old}", secrets::text(&new)));
    assert_eq!(place.run(&["status"]).await.0, Some(0));
    let (code, out, err) = place.run(&["vault", "rekey"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(with_keys(&place.0, secrets::text(&new), &["status"]).await.0, Some(0));
    assert_failed(&with_keys(&place.0, &old, &["status"]).await, 1, "right key");
    assert!(!place.keys().contains(&old));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_operator_are_changed_as_the_command_says() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let (old, new) = (secrets::text(&place.sealing_key).to_owned(), new_key());
    let (new, both) = (secrets::text(&new), format!("{},{old}", secrets::text(&new)));

    let (code, out, err) = place.run(&["vault", "rekey"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("put a new one before it") && out.contains("openssl rand"), "{out}");
    // Servers that were restarted with both keys and servers that were not work side by side.
    for keys in [&both, &old, &both, &old] {
        assert_eq!(with_keys(&place, keys, &["keys", "create", "--name", "ci"]).await.0, Some(0));
    }

    assert_failed(&with_keys(&place, &both, &["vault", "rekey"]).await, 2, "--yes");
    assert_eq!(with_keys(&place, &old, &["status"]).await.0, Some(0), "nothing was changed");
    assert_failed(&with_keys(&place, new, &["vault", "rekey", "--yes"]).await, 1, "right key");

    let (code, out, err) = with_keys(&place, &both, &["vault", "rekey", "--yes"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("remove the old key from BONDMCP_SEALING_KEY") && !out.contains(new), "{out}");
    assert_failed(&with_keys(&place, &old, &["status"]).await, 1, "right key");
    assert_eq!(with_keys(&place, new, &["status"]).await.0, Some(0));
    let (code, list, _) = with_keys(&place, new, &["keys", "list", "--json"]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert!(code == Some(0) && list["keys"].as_array().unwrap().len() == 4, "{list}");
    assert_eq!(with_keys(&place, new, &["vault", "rekey"]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rekey_asks_on_a_terminal_whether_every_server_has_both_keys() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let (old, new) = (secrets::text(&place.sealing_key), new_key());
    for (answer, told, remains) in [("no", "Cancelled", Some(0)), ("yes", "remove the old key", Some(1))] {
        let mut command = place.command(&["vault", "rekey"]).into_std();
        command.env("BONDMCP_SEALING_KEY", format!("{},{old}", secrets::text(&new)));
        let mut terminal = spawn_command(command, Some(TIMEOUT_MS)).unwrap();
        terminal.exp_string("to continue: ").unwrap();
        terminal.send_line(answer).unwrap();
        let shown = terminal.exp_eof().unwrap();
        assert!(shown.contains(told), "{shown}");
        assert_eq!(place.run(&["status"]).await.0, remains, "with the old key");
    }
}

/// Four servers that use the vault until they are told to stop.
struct Busy {
    done: Arc<AtomicBool>,
    servers: tokio::task::JoinSet<Vec<String>>,
}

impl Busy {
    async fn start(stdio: impl Fn() -> Command) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut servers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let server = Server::spawn(&mut stdio()).await;
            servers.spawn(use_vault(server, Arc::clone(&done)));
        }
        Self { done, servers }
    }

    /// Returns the ids of the API keys that the servers stored in the vault, each server one after this call.
    async fn stop(self) -> Vec<String> {
        self.done.store(true, Ordering::SeqCst);
        self.servers.join_all().await.into_iter().flatten().collect()
    }
}

async fn use_vault(server: Server, done: Arc<AtomicBool>) -> Vec<String> {
    let mut made = Vec::new();
    loop {
        let is_last = done.load(Ordering::SeqCst);
        let key = server.ok("manage_api_keys", json!({ "action": "create", "name": "k" })).await;
        let id = key["keys"][0]["id"].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
        server.ok("manage_api_keys", json!({ "action": "use", "key_id": id })).await;
        let status = server.ok("auth_status", json!({})).await;
        assert_eq!(status["signed_in"], true, "{status}");
        made.push(id);
        if is_last {
            break;
        }
    }
    server.end().await;
    made
}

/// Checks that `keys list --json` has the value of each of these keys.
async fn assert_stored(list: &mut Command, made: &[String]) {
    let (code, list, err) = run(list, "").await;
    assert_eq!(code, Some(0), "{err}");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["unfinished"], json!([]));
    for id in made {
        let key = list["keys"].as_array().unwrap().iter().find(|key| key["id"] == **id).unwrap();
        assert_eq!(key["stored"], true, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_servers_read_and_write_while_the_key_is_changed() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = WithKeyFile::signed_in(&sandbox).await;
    let busy = Busy::start(|| place.command(&["stdio"])).await;
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(place.keys());
        let (code, out, err) = place.run(&["vault", "rekey"]).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    }
    let made = busy.stop().await;
    assert_stored(&mut place.command(&["keys", "list", "--json"]), &made).await;
    for key in old {
        assert_failed(&with_keys(&place.0, &key, &["status"]).await, 1, "right key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_that_is_killed_anywhere_while_four_servers_work_loses_nothing() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = WithKeyFile::signed_in(&sandbox).await;
    let busy = Busy::start(|| place.command(&["stdio"])).await;
    let (old, began) = (place.keys(), Instant::now());
    assert_eq!(place.run(&["vault", "rekey"]).await.0, Some(0));
    let whole = began.elapsed();
    for part in 1..=8 {
        kill_within(whole * part / 9, || place.command(&["vault", "rekey"])).await;
    }
    let (code, out, err) = place.run(&["vault", "rekey"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let made = busy.stop().await;
    assert_stored(&mut place.command(&["keys", "list", "--json"]), &made).await;
    assert_failed(&with_keys(&place.0, &old, &["status"]).await, 1, "right key");
}

/// Runs a command and kills it after this time. If it ends before, it is run again for half as long.
async fn kill_within(mut time: Duration, mut command: impl FnMut() -> Command) {
    while !kill_after(time, command()).await {
        time /= 2;
    }
}

/// Runs a command and kills it after this time; false if it had ended by then.
async fn kill_after(time: Duration, mut command: Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let is_late = tokio::time::timeout(time, child.wait()).await.is_err();
    if is_late {
        child.kill().await.unwrap();
    }
    is_late
}

/// A place whose vault is in PostgreSQL, with the keys in the operator's file.
fn in_postgres(place: &Place, url: &str, keys: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    command.env("BONDMCP_VAULT", url).env_remove("BONDMCP_SEALING_KEY").env("BONDMCP_SEALING_KEY_FILE", keys);
    command
}

/// Counts the records that another key than the current one encrypted.
const OTHERS: &str = "SELECT count(*) FROM records, meta \
                      WHERE substring(sealed FROM 1 FOR 9) <> substring(value FROM 1 FOR 9)";

/// Signs in; returns the place, and the file of its key.
async fn signed_in_to_postgres(sandbox: &RunningSandbox, database: &postgres::Database) -> (Place, PathBuf) {
    let place = Place::new(sandbox);
    let keys = place.directory.path().join("keys");
    write_private(&keys, secrets::text(&place.sealing_key));
    let login = ["login", "--email", EMAIL, "--password-stdin"];
    let mut login = in_postgres(&place, &database.url, &keys, &login);
    let (code, _, err) = run(&mut login, secrets::text(&place.password)).await;
    assert_eq!(code, Some(0), "{err}");
    (place, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn four_servers_read_and_write_while_the_key_of_a_vault_in_postgresql_is_changed() {
    let Some(database) = postgres::database() else { return };
    let sandbox = sandbox(like_the_seed()).await;
    let (place, keys) = signed_in_to_postgres(&sandbox, &database).await;
    let command = |arguments: &[&str]| in_postgres(&place, &database.url, &keys, arguments);

    let busy = Busy::start(|| command(&["stdio"])).await;
    let mut old = Vec::new();
    for _ in 0..3 {
        let (before, new) = (std::fs::read_to_string(&keys).unwrap(), new_key());
        write_private(&keys, &format!("{}\n{before}\n", secrets::text(&new)));
        let (code, out, err) = run(&mut command(&["vault", "rekey", "--yes"]), "").await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains("remove the old key"), "{out}");
        // The servers read the file again when they meet the new key.
        write_private(&keys, secrets::text(&new));
        old.push(before);
        assert_eq!(database.psql(OTHERS), ["0"]);
    }
    let made = busy.stop().await;
    assert_stored(&mut command(&["keys", "list", "--json"]), &made).await;
    for key in old {
        write_private(&keys, &key);
        assert_failed(&run(&mut command(&["status"]), "").await, 1, "right key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_of_a_vault_in_postgresql_that_is_killed_anywhere_loses_nothing() {
    let Some(database) = postgres::database() else { return };
    let sandbox = sandbox(like_the_seed()).await;
    let (place, keys) = signed_in_to_postgres(&sandbox, &database).await;
    let command = |arguments: &[&str]| in_postgres(&place, &database.url, &keys, arguments);
    let busy = Busy::start(|| command(&["stdio"])).await;
    let mut all = vec![secrets::text(&place.sealing_key).to_owned()];
    // The newest is the first; a change that was killed leaves records of all others.
    let add_key = |all: &mut Vec<String>| {
        all.insert(0, secrets::text(&new_key()).to_owned());
        write_private(&keys, &all.join("\n"));
    };
    let rekey = ["vault", "rekey", "--yes"];
    add_key(&mut all);
    let began = Instant::now();
    let (code, out, err) = run(&mut command(&rekey), "").await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let whole = began.elapsed();
    for part in 1..=8 {
        let change = || {
            add_key(&mut all);
            command(&rekey)
        };
        kill_within(whole * part / 9, change).await;
    }
    let (code, out, err) = run(&mut command(&rekey), "").await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    write_private(&keys, &all[0]);
    assert_eq!(database.psql(OTHERS), ["0"]);
    let made = busy.stop().await;
    assert_eq!(database.psql(OTHERS), ["0"]);
    assert_stored(&mut command(&["keys", "list", "--json"]), &made).await;
    for key in &all[1..] {
        write_private(&keys, key);
        assert_failed(&run(&mut command(&["status"]), "").await, 1, "right key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_moves_from_sqlite_to_postgresql() {
    let Some(database) = postgres::database() else { return };
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let file = place.directory.path().join("export.bondmcp");
    let keys = place.directory.path().join("keys");
    write_private(&keys, secrets::text(&new_key()));
    let command = |arguments: &[&str]| in_postgres(&place, &database.url, &keys, arguments);
    let passphrase = format!("{PASSPHRASE}\n");

    let path = file.to_str().unwrap();
    let mut export = place.command(&["vault", "export", path, "--passphrase-stdin"]);
    assert_eq!(run(&mut export, &passphrase).await.0, Some(0));
    let import = || command(&["vault", "import", path, "--passphrase-stdin"]);
    let (code, out, err) = run(&mut import(), &passphrase).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let shown: url::Url = database.url.parse().unwrap();
    assert!(!out.contains(shown.password().unwrap()), "{out}");
    let (code, out, err) = run(&mut command(&["status", "--check"]), "").await;
    assert!(code == Some(0) && out.contains(EMAIL), "{out}{err}");
    let (_, list, _) = run(&mut command(&["keys", "list", "--json"]), "").await;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()["keys"][0]["stored"], true);
    assert_failed(&run(&mut import(), &passphrase).await, 1, "nothing was imported");
    assert_eq!(database.psql("SELECT count(*) FROM records WHERE kind = 'account'"), ["1"]);
}

fn terminal(place: &Place, arguments: &[&str]) -> PtySession {
    spawn_command(place.command(arguments).into_std(), Some(TIMEOUT_MS)).unwrap()
}

fn type_passphrase(terminal: &mut PtySession, texts: &[&str]) -> String {
    for (question, text) in ["Passphrase: ", "Passphrase again: "].iter().zip(texts) {
        terminal.exp_string(question).unwrap();
        terminal.send_line(text).unwrap();
    }
    let shown = terminal.exp_eof().unwrap();
    assert!(texts.iter().all(|text| !shown.contains(text)), "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_is_exported_and_imported_on_another_computer() {
    let sandbox = sandbox(like_the_seed()).await;
    let (from, mut to) = (Place::new(&sandbox), Place::new(&sandbox));
    to.base_url.clone_from(&from.base_url);
    from.sign_in().await;
    assert_eq!(from.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let file = from.directory.path().join("export.bondmcp");
    let path = file.to_str().unwrap();

    let export = ["vault", "export", path];
    let shown = type_passphrase(&mut terminal(&from, &export), &[PASSPHRASE, "another passphrase"]);
    assert!(shown.contains("differ") && !file.exists(), "{shown}");
    let shown = type_passphrase(&mut terminal(&from, &export), &["tiny", "tiny"]);
    assert!(shown.contains("12 characters") && !file.exists(), "{shown}");
    let shown = type_passphrase(&mut terminal(&from, &export), &[PASSPHRASE, PASSPHRASE]);
    assert!(shown.contains("Exported 1 record"), "{shown}");
    let bytes = std::fs::read(&file).unwrap();
    secrets::assert_absent(&[from.password.clone(), from.sealing_key.clone()], &bytes, "the export");
    assert!(!bytes.windows(EMAIL.len()).any(|window| window == EMAIL.as_bytes()));
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o777,
        0o600
    );

    let shown = type_passphrase(&mut terminal(&to, &["vault", "import", path]), &["a wrong passphrase"]);
    assert!(shown.contains("passphrase is wrong"), "{shown}");
    assert_eq!(to.run(&["status"]).await.0, Some(1), "nothing was imported");
    let shown = type_passphrase(&mut terminal(&to, &["vault", "import", path]), &[PASSPHRASE]);
    assert!(shown.contains("Imported 1 record"), "{shown}");
    let (code, out, err) = to.run(&["status", "--check"]).await;
    assert!(code == Some(0) && out.contains(EMAIL), "{out}{err}");
    assert_eq!(to.keys().await["keys"][0]["stored"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn export_and_import_take_the_passphrase_of_a_program_and_overwrite_nothing() {
    let sandbox = sandbox(like_the_seed()).await;
    let (from, to) = (Place::new(&sandbox), Place::new(&sandbox));
    let file = from.directory.path().join("export.bondmcp");
    let path = file.to_str().unwrap();
    let transfer = async |place: &Place, verb: &str| {
        let mut command = place.command(&["vault", verb, path, "--passphrase-stdin"]);
        run(&mut command, &format!("{PASSPHRASE}\n")).await
    };
    assert_failed(&transfer(&from, "export").await, 1, "no vault");
    assert!(!from.data_dir().exists(), "an export creates no vault");
    assert_failed(&transfer(&to, "import").await, 1, "Cannot read");
    from.sign_in().await;
    assert_eq!(transfer(&from, "export").await.0, Some(0));
    assert_failed(&transfer(&from, "export").await, 1, "Name a file that does not exist yet");
    assert_eq!(transfer(&to, "import").await.0, Some(0));
    assert_failed(&transfer(&to, "import").await, 1, "nothing was imported");

    let whole = std::fs::read(&file).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (bytes, told) in [
        (&whole[..whole.len() - 1], "incomplete or was changed"),
        (&changed[..], "incomplete or was changed"),
        (b"PK\x03\x04", "not an export"),
    ] {
        let fresh = Place::new(&sandbox);
        std::fs::write(&file, bytes).unwrap();
        assert_failed(&transfer(&fresh, "import").await, 1, told);
        assert_eq!(fresh.run(&["status"]).await.0, Some(1));
    }
}
