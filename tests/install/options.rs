//! The options of `install`, and that what is written runs.

use std::{
    ffi::OsStr,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use bondmcp_server::hosts::configured;
use serde_json::json;

use super::*;
use crate::common::{Server, within};

#[tokio::test(flavor = "multi_thread")]
async fn each_hosts_entry_starts_a_server_that_speaks_mcp() {
    let home = Home::new();
    let mut install =
        vec!["install", "--yes", "--sandbox", "--read-only", "--profile", "work", "--data-dir", "d"];
    install.extend(names());
    assert_eq!(home.run(&install).code, Some(0));
    let found = configured(&home.environment());
    assert_eq!((found.entries.len(), found.errors.len()), (HOSTS.len(), 0));
    let directory = home.path().join("d");
    let arguments =
        ["stdio", "--profile", "work", "--data-dir", directory.to_str().unwrap(), "--read-only", "--sandbox"];
    for entry in &found.entries {
        assert_eq!(
            (entry.name.as_str(), entry.command.as_deref()),
            ("bondmcp-work", Some(PROGRAM)),
            "{entry:?}"
        );
        assert_eq!(entry.args, arguments, "{entry:?}");
    }
    let entry = &found.entries[0];
    let mut command = tokio::process::Command::new(entry.command.as_ref().unwrap());
    let server = Server::spawn(command.env_clear().env("HOME", home.path()).args(&entry.args)).await;
    let tools = within(server.client.list_all_tools()).await.unwrap();
    let mut tools: Vec<_> = tools.iter().map(|tool| tool.name.to_string()).collect();
    tools.sort_unstable();
    assert_eq!(tools, ["auth_status", "list_models"]);
    assert_eq!(server.ok("auth_status", json!({})).await["signed_in"], false);
    server.end().await;
}

#[test]
fn the_base_url_and_the_toolsets_are_passed_on() {
    let home = Home::new();
    let flags = ["--base-url", "https://own.example/mcp", "--toolsets", "models,keys"];
    let ran = home.run(&[&["install", "goose", "codex", "--yes"], &flags[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for entry in configured(&home.environment()).entries {
        assert_eq!(entry.args, [&["stdio"], &flags[..]].concat());
    }
}

#[test]
fn the_base_url_of_the_environment_is_not_written_beside_the_sandbox() {
    let home = Home::new();
    let mut command = home.command(&["install", "goose", "--yes", "--sandbox"]);
    let ran = run(command.env("BONDMCP_BASE_URL", "https://own.example/mcp"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(configured(&home.environment()).entries[0].args, ["stdio", "--sandbox"]);
}

#[test]
fn a_token_or_a_password_in_the_environment_is_not_written() {
    let home = Home::new();
    for (variable, mode) in [
        ("BONDMCP_HTTP_TOKEN", &["--http", "http://127.0.0.1:8787/mcp"][..]),
        ("BONDMCP_API_KEY", &[]),
        ("BONDMCP_SEALING_KEY", &[]),
    ] {
        let hosts = names().into_iter().filter(|host| mode.is_empty() || *host != "claude-desktop");
        let arguments: Vec<_> =
            ["install", "--yes"].into_iter().chain(hosts).chain(mode.iter().copied()).collect();
        let ran = run(home.command(&arguments).env(variable, SECRET));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(![&ran.out, &ran.err].iter().any(|text| text.contains(SECRET)), "{}", ran.out);
        assert!(home.files().values().all(|text| !text.contains(SECRET)));
        assert_eq!(ran.err.contains(&format!("{variable} is set here")), mode.is_empty(), "{}", ran.err);
    }
}

#[test]
fn a_host_that_asks_for_the_token_gets_the_question_as_long_as_a_server_needs_it() {
    let home = Home::new();
    let text = "{\n  // mine\n  \"inputs\": [\n    { \"id\": \"other\" },\n  ],\n  \"servers\": {},\n}\n";
    let file = home.write("vscode", text);
    let http = ["install", "vscode", "--yes", "--http", "https://mcp.example/mcp", "--profile"];
    for profile in ["default", "work"] {
        assert_eq!(home.run(&[&http[..], &[profile]].concat()).code, Some(0));
    }
    let questions =
        |file: &Path| fs::read_to_string(file).unwrap().matches("\"id\": \"bondmcp-token\"").count();
    assert_eq!(questions(&file), 1);
    // Over stdio no token is needed, but the other profile still refers to it.
    assert_eq!(home.run(&["install", "vscode", "--yes"]).code, Some(0));
    assert_eq!(questions(&file), 1);
    assert_eq!(home.run(&["uninstall", "vscode", "--yes", "--profile", "work"]).code, Some(0));
    assert_eq!(questions(&file), 0);
    assert_eq!(home.run(&["uninstall", "vscode", "--yes"]).code, Some(0));
    assert_eq!(home.files(), BTreeMap::from([(file, text.to_owned())]));
}

#[test]
fn a_server_without_token_needs_no_header() {
    let home = Home::new();
    let ran = home.run(&[
        "install",
        "cursor",
        "codex",
        "--yes",
        "--http",
        "http://127.0.0.1:8787/mcp",
        "--no-auth",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(home.files().values().all(|text| !text.contains("TOKEN")), "{:?}", home.files());
    let urls: Vec<_> =
        configured(&home.environment()).entries.into_iter().map(|entry| entry.url.unwrap()).collect();
    assert_eq!(urls, ["http://127.0.0.1:8787/mcp"; 2]);
}

#[test]
fn an_address_that_would_send_the_token_in_the_clear_is_refused() {
    let home = Home::new();
    for url in
        ["http://mcp.example/mcp", "https://a:b@mcp.example", "https://mcp.example/?key=x", "mcp.example"]
    {
        let ran = home.run(&["install", "cursor", "--yes", "--http", url]);
        assert_eq!(ran.code, Some(2), "{url}");
        assert!(ran.err.contains("--http takes an https URL"), "{}", ran.err);
    }
    assert!(home.files().is_empty());
}

#[test]
fn a_variable_moves_a_hosts_file() {
    for (host, variable, path) in [
        ("claude-code", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("copilot", "COPILOT_HOME", "mcp-config.json"),
        ("gemini", "GEMINI_CLI_HOME", ".gemini/settings.json"),
        ("goose", "GOOSE_PATH_ROOT", "config/config.yaml"),
        ("continue", "CONTINUE_GLOBAL_DIR", "config.yaml"),
        ("vscode", "VSCODE_PORTABLE", "user-data/User/mcp.json"),
        ("zed", "XDG_CONFIG_HOME", "zed/settings.json"),
        ("opencode", "XDG_CONFIG_HOME", "opencode/opencode.json"),
    ] {
        let home = Home::new();
        let moved = home.path().join("moved");
        let ran = run(home.command(&["install", host, "--yes"]).env(variable, &moved));
        assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
        assert_eq!(home.files().into_keys().collect::<Vec<_>>(), [moved.join(path)]);
    }
}

#[test]
fn without_a_terminal_nothing_is_written_unless_told_to() {
    let home = Home::new();
    home.write("zed", "{}");
    let before = home.files();
    let ran = home.run(&["install", "zed"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("--yes") && ran.err.contains("--print"), "{}", ran.err);
    let ran = home.run(&["install", "zed", "--print"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("+    \"bondmcp\": {"), "{}", ran.out);
    assert_eq!(home.files(), before);
}

#[test]
fn all_is_what_is_found_and_one_broken_file_does_not_keep_others_from_being_changed() {
    let home = Home::new();
    let ran = home.run(&["install", "--all", "--yes"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.contains("No host was found") && ran.err.contains("install claude-desktop"),
        "{}",
        ran.err
    );
    let broken = home.write("codex", "[");
    home.write("claude-desktop", "{}");
    fs::create_dir(home.path().join("bin")).unwrap();
    symlink("/bin/true", home.path().join("bin/claude")).unwrap();
    let ran = run(home.command(&["install", "--all", "--yes"]).env("PATH", home.path().join("bin")));
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("config.toml:1: ") && ran.err.contains("One host was not changed"),
        "{}",
        ran.err
    );
    let found = configured(&home.environment());
    let hosts: Vec<_> = found.entries.iter().map(|entry| entry.host).collect();
    assert_eq!(hosts, ["claude-desktop", "claude-code"]);
    assert_eq!(found.errors.len(), 1);

    let list = home.run(&["install", "--list"]);
    let row = |host: &str| {
        let row = list.out.lines().find(|line| line.starts_with(host)).unwrap();
        row.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("claude-desktop")[2..4], ["yes", "bondmcp"]);
    assert_eq!(row("codex")[2..4], ["yes", "unreadable"]);
    assert_eq!(row("cursor")[2..4], ["no", "-"]);

    fs::remove_file(broken).unwrap();
    let ran = home.run(&["uninstall", "--all", "--yes"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(configured(&home.environment()).entries.is_empty());
    assert!(home.run(&["uninstall", "--all", "--yes"]).out.contains("No host has an entry bondmcp."));
}

#[test]
fn the_command_is_the_link_in_the_path_that_outlives_an_update() {
    let home = Home::new();
    let directory = beside_the_program();
    let directory = directory.path();
    let link = directory.join("bondmcp-server");
    symlink(PROGRAM, &link).unwrap();
    let ran = run(home.command(&["install", "cursor", "--yes"]).env("PATH", directory));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let entries = configured(&home.environment()).entries;
    assert_eq!(entries[0].command.as_deref().map(OsStr::new), Some(link.as_os_str()));
    // Another program of that name is not taken for this one.
    fs::remove_file(&link).unwrap();
    symlink("/bin/true", &link).unwrap();
    run(home.command(&["install", "cursor", "--yes"]).env("PATH", directory));
    assert_eq!(configured(&home.environment()).entries[0].command.as_deref(), Some(PROGRAM));
}

/// Whoever unpacks an archive in `/tmp` would have hosts start a program there for good.
#[test]
fn a_program_that_another_user_can_replace_is_not_installed() {
    let home = Home::new();
    let directory = beside_the_program();
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(PROGRAM, bin.join("bondmcp-server")).unwrap();
    for (mode, code) in [(0o777, 1), (0o1777, 1), (0o775, 0)] {
        fs::set_permissions(&bin, fs::Permissions::from_mode(mode)).unwrap();
        let ran = run(home.command(&["install", "cursor", "--yes"]).env("PATH", &bin));
        assert_eq!(ran.code, Some(code), "{mode:o}: {}", ran.err);
        assert_eq!(ran.err.contains("Move this program"), code == 1, "{mode:o}: {}", ran.err);
        assert_eq!(home.file("cursor").exists(), code == 0, "{mode:o}");
    }
}

/// Returns a directory that no other user can change, unlike one of those for temporary files.
fn beside_the_program() -> TempDir {
    tempfile::tempdir_in(Path::new(PROGRAM).parent().unwrap()).unwrap()
}
