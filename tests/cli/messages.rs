//! Error messages of the command line: the cause and what to type next.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
};

use crate::common::{
    EMAIL, OTHER_EMAIL, Place, Server, like_the_seed, run, sandbox, secrets, signed_in, signed_out, within,
};
use rexpect::session::spawn_command;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    for command in ["http", "sandbox"] {
        let (code, _, err) = place.run(&[command, "--listen", &address.to_string()]).await;
        let wanted = format!("error: Port {} is in use; choose another with --listen.\n", address.port());
        assert_eq!((code, err), (Some(1), wanted));
    }
    let hosted = ["http", "--public-url", "http://localhost:8787", "--listen", "127.0.0.1:0"];
    let metrics = ["--metrics-listen", &*address.to_string()];
    let (code, _, err) = place.run(&[&hosted[..], &metrics].concat()).await;
    assert!(code == Some(1) && err.contains("choose another with --metrics-listen"), "{err}");
}

/// Without TLS there is a trial only, for this computer.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_listens_on_loopback_alone() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let serve = ["http", "--public-url", "http://localhost:8787", "--listen", "0.0.0.0:8787"];
    let (code, _, err) = place.run(&serve).await;
    assert!(code == Some(2) && err.contains("https://"), "{err}");
}

/// Another user of the computer could otherwise take the address that browsers may try first.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_at_localhost_has_both_of_its_addresses() {
    let Ok(other) = TcpListener::bind("[::1]:0") else { return };
    let address = other.local_addr().unwrap();
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let (origin, listen) =
        (format!("http://localhost:{}", address.port()), format!("127.0.0.1:{}", address.port()));
    let serve = ["http", "--public-url", &*origin, "--listen", &*listen];
    let (code, _, err) = place.run(&serve).await;
    assert!(code == Some(2) && err.contains(&address.to_string()), "{err}");
    drop(other);
    let mut child = place.command(&serve).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    while !within(told.next_line()).await.unwrap().unwrap().contains("Serving MCP") {}
    assert_eq!(TcpListener::bind(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

/// A server for many people has no account of its own, and its hosts get tokens of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_hosted_server_refuses_what_is_one_persons() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let serve = ["http", "--public-url", "http://localhost:8787"];
    for (environment, named) in [
        (&[("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", "Canary-1-password")][..], "BONDMCP_EMAIL"),
        (&[("BONDMCP_API_KEY", "bmcp_sk_canary")], "BONDMCP_API_KEY"),
        (&[("BONDMCP_HTTP_TOKEN", "canary-canary-canary")], "BONDMCP_HTTP_TOKEN"),
    ] {
        let mut command = place.command(&serve);
        let (code, _, err) = run(command.envs(environment.iter().copied()), "").await;
        assert!(code == Some(2) && err.contains(named) && err.contains("unset"), "{err}");
        assert!(!err.contains("canary") && !err.contains("Canary"), "{err}");
    }
    for flags in [
        &["--no-auth"][..],
        &["--allow-host", "bond.example.com"],
        &["--open-browser"],
        &["--profile", "work"],
        &["--refresh-idle-days", "90", "--refresh-absolute-days", "60"],
        &["--access-token-lifetime", "59"],
    ] {
        let (code, _, err) = place.run(&[&serve[..], flags].concat()).await;
        assert!(code == Some(2) && err.contains(flags[0]), "{err}");
    }
    let (code, _, err) = place.run(&["http", "--public-url", "http://bond.example.com"]).await;
    assert!(code == Some(2) && err.contains("https://"), "{err}");
    let (code, _, err) = place.run(&["http", "--no-iss"]).await;
    assert!(code == Some(2) && err.contains("--public-url"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_url_beside_the_sandbox_is_refused_unless_it_is_in_the_environment() {
    let (_sandbox, place) = signed_out().await;
    for command in [&["stdio"][..], &["http", "--listen", "127.0.0.1:0"], &["install", "goose"]] {
        let flags = ["--base-url", "https://other.example/mcp", "--sandbox"];
        let (code, _, err) = place.run(&[command, &flags].concat()).await;
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("--base-url and --sandbox") && !err.contains("other.example"), "{err}");
    }
    assert_eq!(place.run(&["stdio", "--sandbox"]).await.0, Some(0));
}

/// A profile with API keys belongs to the account that created them, so a new one could not sign in there.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_could_not_sign_in_is_not_created() {
    let (sandbox, place) = signed_in().await;
    assert_eq!(place.run(&["keys", "create", "ci"]).await.0, Some(0));
    for verb in ["register", "login"] {
        let mut command = place.command(&[verb, OTHER_EMAIL, "--password-stdin"]);
        let (code, _, err) = run(&mut command, "A-good-password-1").await;
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(EMAIL), "{err}");
        assert!(
            err.contains("--profile grace ") && err.contains(&format!(" {verb} {OTHER_EMAIL}`")),
            "{err}"
        );
    }
    assert_eq!(sandbox.count("POST /auth/register"), 0);
}

/// A server that a host starts has variables that the person's terminal does not have.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_that_signs_in_uses_the_servers_vault() {
    let (_sandbox, place) = signed_out().await;
    let solution = async |server: &Server| {
        server.error("list_models", json!({})).await["solution"].as_str().unwrap().to_owned()
    };
    let vault = format!("sqlite://{}", place.directory.path().join("my vault/vault.db").display());
    let server = Server::spawn(place.command(&["stdio"]).env("BONDMCP_VAULT", vault)).await;
    let told = solution(&server).await;
    let login = told.split('`').nth(1).unwrap();
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell
        .env_clear()
        .args(["-c", &format!("{login} {EMAIL} --password-stdin")])
        .env("BONDMCP_SEALING_KEY", secrets::text(&place.sealing_key));
    let (code, _, err) = run(&mut shell, secrets::text(&place.password)).await;
    assert_eq!(code, Some(0), "{login}: {err}");
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
    server.end().await;

    let Some(database) = crate::common::postgres::database() else { return };
    let server = Server::spawn(place.command(&["stdio"]).env("BONDMCP_VAULT", &database.url)).await;
    let told = solution(&server).await;
    assert!(told.contains(" login` (with this server's BONDMCP_VAULT and sealing key"), "{told}");
    assert!(!told.contains(&database.url), "{told}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_named_as_it_was_given() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_sandbox, place) = signed_out().await;
    let open = place.directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = place.command(&["--data-dir", "open", "keys", "use"]);
    let (code, _, err) = run(command.current_dir(place.directory.path()), "").await;
    let wanted = "error: `open` is open to other users. Run: chmod 700 open\n";
    assert!(code == Some(1) && err.ends_with(wanted), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_not_found() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    let (code, _, err) = place.run(&["keys", "run", &id, "--", "nosuchprog"]).await;
    assert_eq!((code, err.as_str()), (Some(127), "error: nosuchprog: command not found\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_not_signed_in_learns_what_to_run() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let (code, _, err) = place.run(&["keys", "list"]).await;
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: You are not signed in. Run: `"), "{err}");
    assert!(err.ends_with(" login`\n") && err.matches('\n').count() == 1, "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_named_with_the_command_that_lists_the_keys() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    for arguments in [
        &["revoke", "key_unknown", "--yes"][..],
        &["rotate", "key_unknown", "--yes"],
        &["usage", "key_unknown"],
    ] {
        let (code, _, err) = place.run(&[&["keys"], arguments].concat()).await;
        assert_eq!(code, Some(1), "{err}");
        assert!(err.starts_with("error: No API key key_unknown. List them: `"), "{err}");
        // The command works as it is printed.
        let printed = err.trim_end().trim_end_matches('`').rsplit_once('`').unwrap().1;
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell
            .env_clear()
            .args(["-c", printed])
            .env("BONDMCP_SEALING_KEY", crate::common::secrets::text(&place.sealing_key));
        let (code, told, err) = crate::common::run(&mut shell, "").await;
        assert_eq!((code, told.as_str()), (Some(0), "No API keys.\n"), "{printed}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_about_a_stored_key_names_commands_and_no_arguments_of_tools() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let (code, _, err) = place.run(&["keys", "use", "key_unknown"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains(" keys list`") && !err.contains("stored: true"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_not_confirmed_ends_as_cancelled_and_not_as_an_error() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    let command = place.command(&["keys", "reveal", &id]).into_std();
    let mut terminal = spawn_command(command, Some(60_000)).unwrap();
    terminal.exp_string("to continue: ").unwrap();
    terminal.send_line("no").unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(shown.contains("Cancelled.") && !shown.contains("error"), "{shown}");
}
