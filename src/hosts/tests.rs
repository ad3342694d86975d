use std::{ffi::OsString, fs};

use super::*;

fn environment(os: Os, home: &Path) -> Environment {
    Environment::new(os, home.to_owned(), std::iter::empty::<(OsString, OsString)>())
}

fn server(name: &str) -> Server {
    let launch = Launch::Stdio { command: "/bin/x".to_owned(), arguments: vec!["stdio".to_owned()] };
    Server { name: name.to_owned(), launch }
}

#[test]
fn each_system_has_the_documented_path() {
    let paths = |os| {
        let environment = environment(os, Path::new("~"));
        HOSTS
            .iter()
            .map(|host| host.path(&environment).display().to_string().replace('\\', "/"))
            .collect::<Vec<_>>()
    };
    let home = [
        "~/.claude.json",
        "~/.cursor/mcp.json",
        "~/.codeium/windsurf/mcp_config.json",
        "~/.gemini/settings.json",
        "~/.codex/config.toml",
        "~/.config/opencode/opencode.json",
        "~/.copilot/mcp-config.json",
        "~/.lmstudio/mcp.json",
        "~/.continue/config.yaml",
    ];
    for (os, others) in [
        (
            Os::Linux,
            [
                "~/.config/Claude/claude_desktop_config.json",
                "~/.config/Code/User/mcp.json",
                "~/.config/zed/settings.json",
                "~/.config/goose/config.yaml",
            ],
        ),
        (
            Os::MacOs,
            [
                "~/Library/Application Support/Claude/claude_desktop_config.json",
                "~/Library/Application Support/Code/User/mcp.json",
                "~/.config/zed/settings.json",
                "~/.config/goose/config.yaml",
            ],
        ),
        (
            Os::Windows,
            [
                "~/AppData/Roaming/Claude/claude_desktop_config.json",
                "~/AppData/Roaming/Code/User/mcp.json",
                "~/AppData/Roaming/Zed/settings.json",
                "~/AppData/Roaming/Block/goose/config/config.yaml",
            ],
        ),
    ] {
        let mut expected: Vec<_> = home.iter().chain(&others).map(ToString::to_string).collect();
        let mut paths = paths(os);
        expected.sort();
        paths.sort();
        assert_eq!(paths, expected, "{os:?}");
    }
}

#[test]
fn the_packaged_claude_desktop_of_windows_has_its_own_copy() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(Os::Windows, home.path());
    let host = Host::named("claude-desktop").unwrap();
    fs::create_dir_all(home.path().join("AppData/Roaming/Claude")).unwrap();
    fs::write(home.path().join("AppData/Roaming/Claude/claude_desktop_config.json"), "{}").unwrap();
    assert!(host.path(&environment).ends_with("AppData/Roaming/Claude/claude_desktop_config.json"));
    let packaged = home.path().join("AppData/Local/Packages/Claude_pzs8sxrjxfjjc/LocalCache/Roaming/Claude");
    fs::create_dir_all(&packaged).unwrap();
    assert_eq!(host.path(&environment), packaged.join("claude_desktop_config.json"));
}

#[test]
fn of_two_files_the_one_with_the_entry_is_changed_and_else_the_one_that_exists() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(Os::Linux, home.path());
    let host = Host::named("opencode").unwrap();
    let directory = home.path().join(".config/opencode");
    fs::create_dir_all(&directory).unwrap();
    let [plain, commented] = ["opencode.json", "opencode.jsonc"].map(|name| directory.join(name));
    assert_eq!(host.path(&environment), plain);
    fs::write(&commented, "{}").unwrap();
    let change = install(host, &environment, &server("bondmcp")).unwrap().unwrap();
    assert_eq!(change.path(), commented);
    change.write().unwrap();
    fs::write(&plain, "{}").unwrap();
    assert!(install(host, &environment, &server("bondmcp")).unwrap().is_none());
    assert_eq!(uninstall(host, &environment, "bondmcp").unwrap().unwrap().path(), commented);
}

#[test]
fn a_file_that_changed_since_it_was_shown_is_not_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(Os::Linux, home.path());
    let host = Host::named("cursor").unwrap();
    let file = host.path(&environment);
    let planned = install(host, &environment, &server("bondmcp")).unwrap().unwrap();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "{}").unwrap();
    assert!(matches!(planned.write(), Err(Error::ChangedMeanwhile { .. })));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
}

#[test]
fn entries_are_found_by_their_name_or_their_program() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(Os::Linux, home.path());
    let file = home.path().join(".claude.json");
    let text = r#"{"mcpServers": {
        "bondmcp-work": {"type": "http", "url": "https://mcp.example/mcp"},
        "health": {"command": "/opt/bondmcp-server", "args": ["stdio"], "env": {"BONDMCP_PROFILE": "x"}},
        "bondmcpx": {"command": "other"},
        "other": {"command": "bondmcp-server-other"}
    }}"#;
    fs::write(&file, text).unwrap();
    let entry = |name: &str| ConfiguredEntry {
        host: "claude-code",
        title: "Claude Code",
        file: file.clone(),
        name: name.to_owned(),
        command: None,
        args: Vec::new(),
        env_names: Vec::new(),
        url: None,
        is_off: false,
    };
    let expected = [
        ConfiguredEntry { url: Some("https://mcp.example/mcp".to_owned()), ..entry("bondmcp-work") },
        ConfiguredEntry {
            command: Some("/opt/bondmcp-server".to_owned()),
            args: vec!["stdio".to_owned()],
            env_names: vec!["BONDMCP_PROFILE".to_owned()],
            ..entry("health")
        },
    ];
    assert_eq!(configured(&environment).entries, expected);
}

#[test]
fn every_host_names_the_page_that_its_row_comes_from() {
    for host in HOSTS {
        let (page, read) = host.documentation;
        assert!(page.starts_with("https://") && read.starts_with("2026-"), "{}", host.name);
        assert!(!host.next.contains('{') || host.next.contains("{name}"), "{}", host.name);
        assert!(host.files.iter().all(|file| !file.systems.is_empty()), "{}", host.name);
    }
}

/// `doctor` sends the token to the server of an entry that refers to it.
#[test]
fn only_the_exact_variable_in_its_place_counts_as_this_servers_token() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(Os::Linux, home.path());
    let passes = |name: &str, text: &str| {
        let host = Host::named(name).unwrap();
        let file = host.path(&environment);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        let entry = host.entries(&file).unwrap().pop().unwrap();
        entry.secrets().unwrap().passes_token_variable
    };
    for host in HOSTS.iter().filter(|host| host.shape.http.is_some()) {
        let launch = Launch::Http { url: "https://mcp.example/mcp".to_owned(), token: true };
        let server = Server { name: "bondmcp".to_owned(), launch };
        let change = install(host, &environment, &server).unwrap().unwrap();
        change.write().unwrap();
        let written = fs::read_to_string(change.path()).unwrap();
        let is_from_environment = matches!(host.token_source(), TokenSource::Variable);
        assert_eq!(passes(host.name, &written), is_from_environment, "{}", host.name);
        for (before, behind) in [("", "_STAGING"), ("MY_", ""), ("", ".OLD")] {
            let other = format!("{before}{TOKEN_VARIABLE}{behind}");
            assert!(!passes(host.name, &written.replace(TOKEN_VARIABLE, &other)), "{}: {other}", host.name);
        }
    }
    let header = |name: &str, value: &str| {
        let headers = format!(r#"{{"X-Old": "Bearer ${{BONDMCP_HTTP_TOKEN}}", "{name}": "{value}"}}"#);
        passes("cursor", &format!(r#"{{"mcpServers": {{"bondmcp": {{"url": "u", "headers": {headers}}}}}}}"#))
    };
    for value in [
        "Bearer ${env:BONDMCP_HTTP_TOKEN}",
        "bearer $BONDMCP_HTTP_TOKEN",
        "Bearer {env:BONDMCP_HTTP_TOKEN}",
        "Bearer ${BONDMCP_HTTP_TOKEN:-none}",
        "Bearer ${{secrets.BONDMCP_HTTP_TOKEN}}",
    ] {
        assert!(header("authorization", value), "{value}");
    }
    for value in [
        "Bearer BONDMCP_HTTP_TOKEN",
        "Bearer $BONDMCP_HTTP_TOKEN_2",
        "Bearer ${BONDMCP_HTTP_TOKEN}-staging",
        "Bearer ${OTHER:-${BONDMCP_HTTP_TOKEN}}",
        "Basic ${BONDMCP_HTTP_TOKEN}",
        "Bearer ${input:bondmcp-token}",
    ] {
        assert!(!header("Authorization", value), "{value}");
    }
    let goose = "extensions:\n  bondmcp:\n    uri: u\n    env_keys: [BONDMCP_HTTP_TOKEN]\n    headers:\n      Authorization: Bearer ${OTHER}\n";
    assert!(!passes("goose", goose));
}
