//! `install` on a pseudo-terminal: the change is shown, and written only after a yes.

use rexpect::session::{PtySession, spawn_command};

use super::*;

const TIMEOUT_MS: u64 = 60_000;

fn terminal(home: &Home, arguments: &[&str]) -> PtySession {
    spawn_command(home.command(arguments), Some(TIMEOUT_MS)).unwrap()
}

#[test]
fn install_shows_the_change_and_writes_it_after_a_yes() {
    let home = Home::new();
    let file = home.write("cursor", "{}\n");
    let mut terminal = terminal(&home, &["install", "cursor"]);
    let shown = terminal.exp_string("[y/N] ").unwrap();
    assert!(shown.contains("+    \"bondmcp\": {") && shown.contains(PROGRAM), "{shown}");
    assert!(shown.ends_with(&format!("Write this change to {}? ", file.display())), "{shown}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}\n");
    terminal.send_line("y").unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(shown.contains("Next: Restart Cursor"), "{shown}");
    assert!(shown.contains("Then ask the assistant: Which BondMCP models are there?"), "{shown}");
    assert!(fs::read_to_string(&file).unwrap().contains("bondmcp"));
}

#[test]
fn without_a_yes_every_file_is_as_it_was() {
    let home = Home::new();
    home.write("cursor", "{}\n");
    home.write("codex", "a = 1\n");
    let before = home.files();
    for answer in ["n", "", "yeah"] {
        let mut terminal = terminal(&home, &["install", "cursor", "codex"]);
        for _ in 0..2 {
            terminal.exp_string("[y/N] ").unwrap();
            terminal.send_line(answer).unwrap();
        }
        let shown = terminal.exp_eof().unwrap();
        assert!(shown.contains("Cancelled.") && !shown.contains("Next:"), "{shown}");
        assert_eq!(home.files(), before);
    }
}

#[test]
fn each_host_is_asked_about_by_itself() {
    let home = Home::new();
    let [cursor, codex] = ["cursor", "codex"].map(|host| home.write(host, ""));
    let mut terminal = terminal(&home, &["install", "--all"]);
    terminal.exp_string("[y/N] ").unwrap();
    terminal.send_line("n").unwrap();
    terminal.exp_string("[y/N] ").unwrap();
    terminal.send_line("yes").unwrap();
    terminal.exp_eof().unwrap();
    assert_eq!(fs::read_to_string(cursor).unwrap(), "");
    assert!(fs::read_to_string(&codex).unwrap().contains("[mcp_servers.bondmcp]"));
}

#[test]
fn uninstall_asks_too() {
    let home = Home::new();
    assert_eq!(home.run(&["install", "cursor", "--yes"]).code, Some(0));
    let mut terminal = terminal(&home, &["uninstall", "--all"]);
    terminal.exp_string("Remove the entry from ").unwrap();
    terminal.exp_string("[y/N] ").unwrap();
    terminal.send_line("y").unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(shown.contains("Removed "), "{shown}");
    assert!(home.files().is_empty());
}
