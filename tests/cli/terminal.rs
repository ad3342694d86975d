//! The command line on a pseudo-terminal: a password is never echoed, a key is printed only there and only after a
//! confirmation, and long waits show what they wait for.

use crate::common::{EMAIL, Place, browser::Browser, secrets, signed_in, signed_out, within};
use bondmcp_server::sandbox::RunningSandbox;
use rexpect::session::{PtySession, spawn_command};

const TIMEOUT_MS: u64 = 60_000;

async fn with_a_key() -> (RunningSandbox, Place, String) {
    let (sandbox, place) = signed_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    (sandbox, place, id)
}

fn terminal(place: &Place, arguments: &[&str]) -> PtySession {
    let command = place.command(arguments).into_std();
    spawn_command(command, Some(TIMEOUT_MS)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn login_asks_and_does_not_echo_the_password() {
    let (_sandbox, place) = signed_out().await;
    let mut terminal = terminal(&place, &["login"]);
    terminal.exp_string("E-mail: ").unwrap();
    terminal.send_line(EMAIL).unwrap();
    terminal.exp_string("Password: ").unwrap();
    terminal.send_line(secrets::text(&place.password)).unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(shown.contains("Signed in as ada@example.com"), "{shown}");
    assert!(shown.contains("The password is stored, encrypted"), "{shown}");
    secrets::assert_absent(std::slice::from_ref(&place.password), shown.as_bytes(), "the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn register_asks_for_the_password_twice() {
    let (sandbox, place) = signed_out().await;
    let mut terminal = terminal(&place, &["register", "--email", "new@example.com"]);
    terminal.exp_string("Password: ").unwrap();
    terminal.send_line("a-good-password-1").unwrap();
    terminal.exp_string("Password again: ").unwrap();
    terminal.send_line("another-password-2").unwrap();
    assert!(terminal.exp_eof().unwrap().contains("differ"));
    assert_eq!(sandbox.count("POST /auth/register"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_prints_a_key_after_a_confirmation() {
    let (sandbox, place, id) = with_a_key().await;
    let mut terminal = terminal(&place, &["keys", "reveal", &id]);
    terminal.exp_string("to continue: ").unwrap();
    terminal.send_line("yes").unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(sandbox.secrets_issued().iter().any(|secret| shown.contains(secrets::text(secret))));
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_prints_nothing_without_a_confirmation() {
    let (sandbox, place, id) = with_a_key().await;
    let mut terminal = terminal(&place, &["keys", "reveal", &id]);
    terminal.exp_string("to continue: ").unwrap();
    terminal.send_line("y").unwrap();
    let shown = terminal.exp_eof().unwrap();
    secrets::assert_absent(&sandbox.secrets_issued(), shown.as_bytes(), "the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_refuses_a_pipe() {
    let (sandbox, place, id) = with_a_key().await;
    let (code, out, err) = place.run(&["keys", "reveal", &id]).await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("to a terminal only"), "{err}");
    secrets::assert_absent(&sandbox.secrets_issued(), err.as_bytes(), "stderr");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_passes_the_key_to_the_child_alone_and_returns_its_exit_code() {
    let (sandbox, place, id) = with_a_key().await;
    let script = "env; exit 3";
    let mut command = place.command(&["keys", "run", &id, "--", "/bin/sh", "-c", script]);
    command.env("BONDMCP_OF_ANOTHER_VERSION", "x").env("BONDMCP_HTTP_TOKEN", "0123456789abcdef");
    command.env("BONDMCP_VAULT", format!("sqlite://{}", place.data_dir().join("vault.db").display()));
    let (code, out, told) = crate::common::run(&mut command, "").await;
    assert_eq!(code, Some(3), "{told}");
    let mut own: Vec<_> = out.lines().filter(|line| line.starts_with("BONDMCP_")).collect();
    own.sort_unstable();
    let [key, base_url] = &own[..] else { panic!("{own:?}") };
    assert!(key.starts_with("BONDMCP_API_KEY=") && base_url.starts_with("BONDMCP_BASE_URL="), "{own:?}");
    assert!(sandbox.secrets_issued().iter().any(|secret| key.ends_with(secrets::text(secret))));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_who_is_signed_in_and_exit_codes_are_as_documented() {
    let (_sandbox, place, id) = with_a_key().await;
    let (code, out, _) = place.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, status["email"].as_str(), status["signed_in"].as_bool()),
        (Some(0), Some(EMAIL), Some(true))
    );
    assert_eq!(place.run(&["keys", "revoke", "key_unknown", "--yes"]).await.0, Some(1));
    assert_eq!(place.run(&["keys", "usage", &id, "--json"]).await.0, Some(0));
    assert_eq!(place.run(&["keys", "frobnicate"]).await.0, Some(2));
    assert_eq!(place.run(&["logout"]).await.0, Some(0));
    assert_eq!(place.run(&["keys", "list"]).await.0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn login_asks_again_after_a_wrong_password_and_three_times_at_most() {
    let (sandbox, place) = signed_out().await;
    let mut asked = terminal(&place, &["login"]);
    asked.exp_string("E-mail: ").unwrap();
    asked.send_line("wrong@example.com").unwrap();
    asked.exp_string("Password: ").unwrap();
    asked.send_line(secrets::text(&place.password)).unwrap();
    asked.exp_string("Wrong e-mail or password. 2 attempts left.").unwrap();
    asked.exp_string("E-mail [wrong@example.com]: ").unwrap();
    asked.send_line(EMAIL).unwrap();
    asked.exp_string("Password: ").unwrap();
    asked.send_line(secrets::text(&place.password)).unwrap();
    let shown = asked.exp_eof().unwrap();
    assert!(shown.contains("Signed in as ada@example.com"), "{shown}");
    secrets::assert_absent(std::slice::from_ref(&place.password), shown.as_bytes(), "the terminal");

    let before = sandbox.count("POST /auth/login");
    let mut asked = terminal(&place, &["login", EMAIL]);
    for _ in 0..3 {
        // An e-mail from the command line is not asked for.
        asked.exp_string("Password: ").unwrap();
        asked.send_line("not-the-password-1").unwrap();
    }
    let shown = asked.exp_eof().unwrap();
    assert!(shown.contains("error: Wrong e-mail or password"), "{shown}");
    assert_eq!(sandbox.count("POST /auth/login") - before, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_pipes_a_wrong_password_is_not_asked_again() {
    let (sandbox, place) = signed_out().await;
    let mut command = place.command(&["login", EMAIL, "--password-stdin"]);
    let (code, _, err) = crate::common::run(&mut command, "not-the-password-1\n").await;
    assert_eq!((code, sandbox.count("POST /auth/login")), (Some(1), 1), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_offered_a_profile_of_its_own_and_the_command_works() {
    let (sandbox, place, _) = with_a_key().await;
    sandbox.add_account("grace@example.com", &place.password, bondmcp_server::sandbox::Plan::Unlimited, true);
    let mut command = place.command(&["login", "grace@example.com", "--password-stdin"]);
    let (code, _, err) = crate::common::run(&mut command, secrets::text(&place.password)).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("API keys of ada@example.com") && !err.contains("--forget-keys"), "{err}");
    let printed = err.split('`').nth(1).unwrap();
    assert!(printed.contains(" --profile grace "), "{printed}");
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.env_clear().env("BONDMCP_SEALING_KEY", secrets::text(&place.sealing_key));
    shell.args(["-c", &format!("{printed} --password-stdin")]);
    let (code, told, err) = crate::common::run(&mut shell, secrets::text(&place.password)).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(told.contains("Signed in as grace@example.com (profile grace)"), "{told}");
    assert_eq!(place.keys().await["keys"][0]["name"], "ci", "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_on_the_page_opens_the_browser_and_shows_how_long_it_waits() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_sandbox, place) = signed_out().await;
    let (bin, opened) = (place.directory.path().join("bin"), place.directory.path().join("opened"));
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("xdg-open"), format!("#!/bin/sh\necho \"$1\" > '{}'\n", opened.display()))
        .unwrap();
    std::fs::set_permissions(bin.join("xdg-open"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(&["login", EMAIL, "--web"]).into_std();
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let mut shown = spawn_command(command, Some(TIMEOUT_MS)).unwrap();
    shown.exp_string("if not, open it: ").unwrap();
    let link = shown.read_line().unwrap();
    shown.exp_string("Waiting for you to sign in in the browser").unwrap();
    shown.exp_regex(r" at most (10:00|9:\d\d) left").unwrap();
    let browser = Browser::open(link.trim()).await;
    browser.sign_in(&place.password).await;
    let rest = shown.exp_eof().unwrap();
    assert!(rest.contains("Signed in as ada@example.com"), "{rest}");
    let opened = within(async {
        loop {
            match std::fs::read_to_string(&opened) {
                Ok(text) if text.ends_with('\n') => break text,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(opened.contains("sign-in-") && !opened.contains("http"), "{opened}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_waited_for_in_sight() {
    let (sandbox, place, _) = with_a_key().await;
    sandbox.faults().next("GET /auth/api-keys", bondmcp_server::sandbox::Fault::Hold);
    let mut shown = terminal(&place, &["keys", "list"]);
    let host = place.base_url.split('/').nth(2).unwrap();
    shown.exp_string(&format!("Waiting for {host} ")).unwrap();
    shown.exp_string(" at most 0:").unwrap();
    sandbox.faults().release();
    let rest = shown.exp_eof().unwrap();
    assert!(rest.contains("ci"), "{rest}");
    // A pipe gets nothing of it.
    let (_, _, err) = place.run(&["keys", "list"]).await;
    assert_eq!(err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn register_waits_for_the_link_and_signs_in() {
    let (sandbox, place) = signed_out().await;
    let mut asked = terminal(&place, &["register", "new@example.com"]);
    for question in ["Password: ", "Password again: "] {
        asked.exp_string(question).unwrap();
        asked.send_line("a-good-password-1").unwrap();
    }
    asked.exp_string("Waiting for the link to be opened").unwrap();
    asked.exp_string(" at most ").unwrap();
    sandbox.verify("new@example.com");
    let shown = asked.exp_eof().unwrap();
    assert!(shown.contains("Signed in as new@example.com"), "{shown}");
    assert!(!shown.contains("a-good-password-1"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stdio_in_a_terminal_says_what_it_is_and_what_to_type_instead() {
    let (_sandbox, place) = signed_out().await;
    let mut shown = terminal(&place, &["stdio"]);
    shown.exp_string("It waits for a host").unwrap();
    for verb in [" login", " install", " demo"] {
        shown.exp_string(verb).unwrap();
    }
    shown.exp_string("Press Ctrl-C to stop it.").unwrap();
    shown.send_control('c').unwrap();
    shown.exp_eof().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_makes_no_vault_where_there_is_none() {
    let (_sandbox, place) = signed_out().await;
    let (code, told, err) = place.run(&["logout"]).await;
    assert_eq!((code, told.as_str()), (Some(0), "Signed out.\n"), "{err}");
    assert!(!place.data_dir().exists());
}
