//! Bad configuration and a bad upstream give a clear error with the next step and change nothing.

use crate::common::{EMAIL, Place, Server, like_the_seed, run, secrets, signed_in, signed_out, within};
use bondmcp_server::sandbox::Fault;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

/// Runs `status` in this environment; returns its exit code and output.
async fn status(place: &Place, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = place.command(&["status"]);
    for (name, value) in environment {
        command.env(name, value);
    }
    let output = within(command.output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_wrong_usage_and_says_what_to_do() {
    let (_sandbox, place) = signed_in().await;
    for (name, value, next) in [
        ("BONDMCP_BASE_URL", "http://api.example/mcp", "https://"),
        ("BONDMCP_BASE_URL", "https://user:marker@api.example/mcp", "must not carry"),
        ("BONDMCP_BASE_URL", "marker", "BONDMCP_BASE_URL"),
        ("BONDMCP_PROFILE", "../marker", "letters"),
        ("BONDMCP_VAULT", "mysql://marker", "sqlite://PATH"),
        ("BONDMCP_EMAIL", "marker@example.com", "BONDMCP_PASSWORD"),
        ("BONDMCP_SEALING_KEY_FILE", "/marker", "unset one"),
        ("BONDMCP_LOG", "loud", "BONDMCP_LOG"),
    ] {
        let (code, told) = status(&place, &[(name, value)]).await;
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(next) && !told.contains("marker"), "{told}");
    }
    for arguments in
        [&["--frobnicate"][..], &["frobnicate"], &["http", "--no-auth", "--listen", "0.0.0.0:0"], &[]]
    {
        assert_eq!(place.run(arguments).await.0, Some(2), "{arguments:?}");
    }
    // A generated token would stay in a log.
    let mut command = place.command(&["http", "--listen", "0.0.0.0:0"]);
    let (code, _, told) = run(command.env_remove("BONDMCP_HTTP_TOKEN"), "").await;
    assert!(code == Some(2) && told.contains("set BONDMCP_HTTP_TOKEN"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_of_the_wrong_length_or_another_one_opens_nothing() {
    let (_sandbox, place) = signed_in().await;
    let before = crate::common::files(&place.data_dir());
    for (key, next) in
        [("c2hvcnQ=", "openssl rand"), (&"ab".repeat(33), "openssl rand"), (&"ab".repeat(32), "right key")]
    {
        let (code, told) = status(&place, &[("BONDMCP_SEALING_KEY", key)]).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(next) && !told.contains(key), "{told}");
    }
    assert_eq!(vault_bytes(&before), vault_bytes(&crate::common::files(&place.data_dir())));
}

/// A newer version has brought the tables up to date. This one serves nothing from them.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (_sandbox, place) = signed_in().await;
    let mut database =
        SqliteConnection::connect(place.data_dir().join("vault.db").to_str().unwrap()).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'newer', 1, '', 0); PRAGMA wal_checkpoint(TRUNCATE)";
    sqlx::raw_sql(newer).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let before = crate::common::files(&place.data_dir());
    let hosted = ["http", "--listen", "127.0.0.1:0", "--public-url", "http://localhost:1"];
    for arguments in [&["status"][..], &["keys", "list"], &hosted] {
        let (code, _, told) = place.run(arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        assert!(told.contains("a newer version") && told.contains("Upgrade"), "{arguments:?}: {told}");
    }
    // The version in the file's header may lag behind, in the write-ahead log.
    let server = Server::start(&place).await;
    let error = server.error("list_models", json!({})).await;
    assert!(error["message"].as_str().unwrap().contains("a newer version"), "{error}");
    server.end().await;
    assert_eq!(vault_bytes(&before), vault_bytes(&crate::common::files(&place.data_dir())));
}

/// Neither opens the vault before a tool needs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_server_does_not_start_on_a_vault_of_a_newer_version() {
    let (_sandbox, place) = signed_in().await;
    let vault = place.data_dir().join("vault.db");
    let mut database = SqliteConnection::connect(vault.to_str().unwrap()).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 999; PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    let before = crate::common::files(&place.data_dir());
    for arguments in [&["stdio"][..], &["http", "--listen", "127.0.0.1:0", "--no-auth"]] {
        let (code, output, told) = place.run(arguments).await;
        assert_eq!((code, &*output), (Some(1), ""), "{arguments:?}: {told}");
        assert!(told.contains("a newer version") && told.contains("Upgrade"), "{arguments:?}: {told}");
    }
    assert_eq!(vault_bytes(&before), vault_bytes(&crate::common::files(&place.data_dir())));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_on_a_postgresql_vault_of_a_newer_version() {
    let Some(database) = crate::common::postgres::database() else { return };
    let (_sandbox, place) = signed_out().await;
    let run = async |arguments: &[&str], input: &str| {
        crate::common::run(place.command(arguments).env("BONDMCP_VAULT", &database.url), input).await
    };
    let login = ["login", "--email", EMAIL, "--password-stdin"];
    let (code, _, told) = run(&login, secrets::text(&place.password)).await;
    assert_eq!(code, Some(0), "{told}");
    database.psql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'newer', true, '', 0)",
    );
    let local = ["http", "--listen", "127.0.0.1:0", "--no-auth"];
    let hosted = ["http", "--listen", "127.0.0.1:0", "--public-url", "http://localhost:1"];
    for arguments in [&["stdio"][..], &local, &hosted, &["status"]] {
        let (code, output, told) = run(arguments, "").await;
        assert_eq!((code, &*output), (Some(1), ""), "{arguments:?}: {told}");
        assert!(told.contains("a newer version") && told.contains("Upgrade"), "{arguments:?}: {told}");
    }
}

fn vault_bytes(files: &[(std::path::PathBuf, Vec<u8>)]) -> Vec<u8> {
    files.iter().find(|(path, _)| path.ends_with("vault.db")).unwrap().1.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let (_sandbox, place) = signed_in().await;
    let file = place.directory.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("data");
    let mut command = place.command(&["login", "--email", "a@example.com", "--password-stdin"]);
    command.env("BONDMCP_DATA_DIR", &below).stdin(std::process::Stdio::null());
    let output = within(command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));

    let mut command = place.command(&["keys", "use"]);
    let output = within(command.env("BONDMCP_DATA_DIR", &below).output()).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("--data-dir"), "{told}");
}

/// Root may open every file, so only the owner is checked.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_vault_or_key_of_another_user_is_refused_with_the_command_that_mends_it() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let (_sandbox, place) = signed_in().await;
    let key = place.directory.path().join("sealing.key");
    std::fs::write(&key, secrets::text(&place.sealing_key)).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let user = std::fs::metadata(&key).unwrap().uid();
    if user != 0 {
        // Only root can give a file away; what root owns is another user's for everybody else.
        let (code, told) = status(&place, &[("BONDMCP_VAULT", "sqlite:///etc/passwd")]).await;
        assert!(code == Some(1) && told.contains("belongs to another user"), "{told}");
        return;
    }
    for path in [&place.data_dir(), &place.data_dir().join("vault.db"), &key] {
        chown(path, Some(12345), None).unwrap();
        let mut command = place.command(&["status"]);
        command.env_remove("BONDMCP_SEALING_KEY").env("BONDMCP_SEALING_KEY_FILE", &key);
        let output = within(command.output()).await.unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("chown -R 0 {}", path.display())), "{told}");
        chown(path, Some(user), None).unwrap();
    }
    assert_eq!(status(&place, &[]).await.0, Some(0));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_sandbox, place) = signed_in().await;
    let file = place.data_dir().join("vault.db");
    for (path, mode, kept) in [(&file, 0o644, 0o600), (&place.data_dir(), 0o750, 0o700)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, told) = status(&place, &[]).await;
        assert_eq!(code, Some(1), "{told}");
        let mend = format!("chmod {kept:o} {}", path.display());
        assert!(told.contains(&mend), "{told}");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(kept)).unwrap();
    }
    assert_eq!(status(&place, &[]).await.0, Some(0));
}

/// Changes the vault directly; the rest of it must stay unchanged.
async fn with_database(place: &Place, statement: &'static str) {
    let path = place.data_dir().join("vault.db");
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    // Who damages a file does not ask the trigger.
    let trigger = "DROP TRIGGER records_update_current_key";
    sqlx::query(trigger).execute(&mut connection).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn refused(place: &Place, next: &str) {
    let before = vault_bytes(&crate::common::files(&place.data_dir()));
    let (code, told) = status(place, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(next), "{told}");
    assert_eq!(before, vault_bytes(&crate::common::files(&place.data_dir())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_from_the_future_is_left_alone() {
    let (_sandbox, place) = signed_in().await;
    with_database(
        &place,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', TRUE, x'00', 0)",
    )
    .await;
    refused(&place, "Upgrade").await;

    let (_sandbox, place) = signed_in().await;
    with_database(&place, "UPDATE records SET sealed = CAST(x'FF' || substr(sealed, 2) AS BLOB)").await;
    refused(&place, "Upgrade").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_record_is_distinguished_from_a_wrong_key() {
    for statement in [
        "UPDATE records SET sealed = substr(sealed, 1, length(sealed) - 1)",
        "UPDATE records SET sealed = x'01'",
        "UPDATE records SET version = version + 1",
        "UPDATE records SET sealed = (SELECT value FROM meta)",
    ] {
        let (_sandbox, place) = signed_in().await;
        with_database(&place, statement).await;
        refused(&place, "backup").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_does_not_pass_for_another_ones() {
    let (_sandbox, place) = signed_in().await;
    assert_eq!(place.run(&["--profile", "other", "keys", "use"]).await.0, Some(0));
    with_database(
        &place,
        "UPDATE records SET (version, sealed) =
             (SELECT version, sealed FROM records ORDER BY length(sealed) LIMIT 1)",
    )
    .await;
    refused(&place, "backup").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_vault_is_an_error_and_stays_as_it_is() {
    for length in [100_u64, 5000] {
        let (_sandbox, place) = signed_in().await;
        let path = place.data_dir().join("vault.db");
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        for beside in ["vault.db-wal", "vault.db-shm"] {
            let _ = std::fs::remove_file(place.data_dir().join(beside));
        }
        refused(&place, "backup").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_upstream_has_its_kind() {
    let elsewhere = crate::common::sandbox(like_the_seed()).await;
    let faults = [
        (Fault::Status(400), "invalid_input"),
        (Fault::Status(402), "insufficient_credits"),
        (Fault::Status(403), "forbidden"),
        (Fault::Status(404), "not_found"),
        (Fault::Status(409), "conflict"),
        (Fault::Status(422), "invalid_input"),
        (Fault::TooMany(Some("3600".to_owned())), "rate_limited"),
        (Fault::Status(500), "upstream_unavailable"),
        (Fault::Html(502), "upstream_unavailable"),
        (Fault::NotJson, "upstream_unavailable"),
        (Fault::OtherShape, "upstream_unavailable"),
        (Fault::Oversize, "upstream_unavailable"),
        (Fault::DropMidBody, "upstream_unavailable"),
        (Fault::Redirect(elsewhere.base_url()), "upstream_unavailable"),
    ];
    // All at the same time, since a server waits between attempts. A new one each: the rate limiter and the circuit breaker
    // would block the next request.
    join_all(faults.map(async |(fault, kind)| {
        let (sandbox, place) = signed_in().await;
        sandbox.faults().always("GET /health-ai/models", fault.clone());
        let server = Server::start(&place).await;
        let error = server.error("list_models", json!({ "refresh": true })).await;
        assert_eq!(error["kind"], kind, "{fault:?}: {error}");
        assert!(error["solution"].as_str().unwrap().len() > 10, "{error}");
        if let Fault::TooMany(_) = fault {
            assert_eq!((&error["status"], &error["retry_after_seconds"]), (&json!(429), &json!(3600)));
        }
    }))
    .await;
    assert_eq!(elsewhere.counts().len(), 0);
    let (_sandbox, place) = signed_in().await;
    let mut environment = place.command(&["stdio"]);
    environment.env("BONDMCP_API_KEY", secrets::text(&place.password).replace(|c: char| !c.is_ascii(), ""));
    let server = Server::spawn(&mut environment).await;
    assert_eq!(server.error("list_models", json!({})).await["kind"], "invalid_credentials");
}
