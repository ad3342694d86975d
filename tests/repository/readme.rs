//! What the documents say is what the code does: the tables of tools, errors, environment variables, commands and
//! flags are generated, links lead to files, and the tests that SECURITY.md names exist.
//! `UPDATE_DOCUMENTS=1 cargo test --test repository readme` writes the tables.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::common::{Place, Server, like_the_seed, sandbox};
use bondmcp_server::{
    cli::Cli,
    error::Kind,
    hosts::{Environment, HOSTS, Os},
};
use clap::{CommandFactory as _, Parser as _};
use regex_lite::Regex;
use rmcp::model::Tool;

/// The environment variables that the program reads, each with its meaning.
const ENVIRONMENT: [(&str, &str); 12] = [
    ("BONDMCP_BASE_URL", "The BondMCP API; `https`, or `http` on loopback"),
    ("BONDMCP_PROFILE", "The local account: `default`, `work`, …"),
    ("BONDMCP_DATA_DIR", "The directory of the vault and the audit log"),
    ("BONDMCP_LOG", "`off`, `error`, `warn` (default), `info`, `debug` or `trace`, to stderr"),
    ("BONDMCP_EMAIL", "With `BONDMCP_PASSWORD`: signs in when needed; never stored"),
    ("BONDMCP_PASSWORD", "The password of `BONDMCP_EMAIL`; never stored"),
    ("BONDMCP_API_KEY", "The key for API calls; never stored. It cannot manage keys"),
    ("BONDMCP_VAULT", "`sqlite://PATH` or `postgres://…` instead of `vault.db` in the data directory"),
    (
        "BONDMCP_SEALING_KEY",
        "The vault's encryption key: 32 bytes, base64 or hex; during `vault rekey` the new and the old one",
    ),
    ("BONDMCP_SEALING_KEY_FILE", "A file that holds the vault's encryption key"),
    ("BONDMCP_HTTP_TOKEN", "The bearer token of `http`, 16 characters or more"),
    ("BONDMCP_PUBLIC_URL", "The public URL of a hosted server, such as `https://bond.example.com`"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Two tests may write one document.
static WRITING: Mutex<()> = Mutex::new(());

/// Compares the part of `document` between `<!-- name -->` and `<!-- /name -->` with `generated`.
fn assert_table(document: &str, name: &str, generated: &str) {
    let _writing = WRITING.lock();
    let path = root().join(document);
    let text = fs::read_to_string(&path).unwrap();
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let from = text.find(&start).unwrap() + start.len();
    let to = text.find(&end).unwrap();
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, format!("{}{generated}{}", &text[..from], &text[to..])).unwrap();
    } else {
        assert_eq!(
            &text[from..to],
            generated,
            "{document} differs from the code; run `UPDATE_DOCUMENTS=1 cargo test --test repository readme`"
        );
    }
}

fn tool_row(tool: &Tool) -> String {
    let properties = tool.input_schema.get("properties").and_then(|p| p.as_object());
    let required = tool.input_schema.get("required").and_then(|r| r.as_array()).cloned().unwrap_or_default();
    let arguments: Vec<String> = properties
        .into_iter()
        .flat_map(|properties| properties.keys())
        .map(|name| {
            let mark = if required.iter().any(|r| r == name) { "" } else { "?" };
            format!("`{name}{mark}`")
        })
        .collect();
    let effect = match &tool.annotations {
        Some(hints) if hints.read_only_hint == Some(true) => "read-only",
        Some(hints) if hints.is_destructive() => "destructive",
        _ if tool.description.as_deref().unwrap().contains("Billed") => "billed",
        _ => "changes data",
    };
    let arguments = if arguments.is_empty() { "–".to_owned() } else { arguments.join(", ") };
    let does = tool.description.as_deref().unwrap().split_once(". ").unwrap().0;
    format!("| `{}` | {does} | {arguments} | {effect} |\n", tool.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_tools_and_prices_are_what_the_server_lists() {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    let tools = server.client.list_all_tools().await.unwrap();
    let head = "| tool | what it does | arguments | effect |\n|---|---|---|---|\n";
    let rows: String = tools.iter().map(tool_row).collect();
    assert_table("README.md", "tools", &format!("{head}{rows}"));
    let prices: String = tools.iter().filter_map(price_row).collect();
    assert_table("docs/tools.md", "prices", &format!("| tool | price of a call |\n|---|---|\n{prices}"));
}

/// The row of a billed tool.
fn price_row(tool: &Tool) -> Option<String> {
    let (_, billed) = tool.description.as_deref().unwrap().split_once("Billed")?;
    let documented = billed.strip_prefix(": ").map(|rest| rest.split_once(" a call.").unwrap().0);
    Some(format!("| `{}` | {} |\n", tool.name, documented.unwrap_or("not documented")))
}

#[test]
fn the_table_of_errors_has_every_kind() {
    let schema = schemars::schema_for!(Kind).to_value();
    let mut table = "| kind | meaning, and what to do |\n|---|---|\n".to_owned();
    for kind in schema["oneOf"].as_array().unwrap() {
        let (name, meaning) = (kind["const"].as_str().unwrap(), kind["description"].as_str().unwrap());
        let _ = writeln!(table, "| `{name}` | {} |", meaning.replace('\n', " "));
    }
    assert_table("docs/tools.md", "errors", &table);
}

#[test]
fn the_table_of_variables_has_every_one_that_the_program_reads() {
    let command = Cli::command();
    let of_http = command.find_subcommand("http").unwrap().get_arguments();
    let flags: BTreeSet<String> = command
        .get_arguments()
        .chain(of_http)
        .filter_map(|flag| flag.get_long().map(ToOwned::to_owned))
        .collect();
    let mut table = "| variable | flag | meaning |\n|---|---|---|\n".to_owned();
    for (name, meaning) in ENVIRONMENT {
        let flag = name.strip_prefix("BONDMCP_").unwrap().to_lowercase().replace('_', "-");
        let flag = if flags.contains(&flag) { format!("`--{flag}`") } else { String::new() };
        let _ = writeln!(table, "| `{name}` | {flag} | {meaning} |");
    }
    assert_table("docs/command-line.md", "environment", &table);

    let literal = Regex::new(r#""(BONDMCP_[A-Z_]+)""#).unwrap();
    let read: BTreeSet<String> = files_below("src", "rs")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .flat_map(|code| literal.captures_iter(&code).map(|found| found[1].to_owned()).collect::<Vec<_>>())
        .collect();
    let described: BTreeSet<String> = ENVIRONMENT.map(|(name, _)| name.to_owned()).into();
    assert_eq!(described, read, "ENVIRONMENT and the variables that the code names differ");
}

fn files_below(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// The rows of a table of `arguments`: name, meaning and default.
fn argument_rows<'a>(arguments: impl Iterator<Item = &'a clap::Arg>) -> String {
    let mut rows = String::new();
    for argument in arguments {
        let mut value = argument.get_value_names().unwrap_or_default().join(" ");
        if argument.get_action().takes_values() && value.is_empty() {
            value = argument.get_id().to_string().to_uppercase();
        }
        let name = match argument.get_long() {
            Some(long) if argument.get_action().takes_values() => format!("--{long} {value}"),
            Some(long) => format!("--{long}"),
            None if argument.is_last_set() => format!("-- {value}"),
            None => value,
        };
        let help =
            argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|d| d.to_string_lossy().into_owned()).collect();
        let default = if defaults.is_empty() || !argument.get_action().takes_values() {
            String::new()
        } else {
            format!(" [default: {}]", defaults.join(","))
        };
        let _ = writeln!(rows, "| `{name}` | {}{default} |", help.replace('|', "\\|"));
    }
    rows
}

fn is_own(argument: &clap::Arg) -> bool {
    !argument.is_global_set()
        && !argument.is_hide_set()
        && !matches!(argument.get_id().as_str(), "help" | "version")
}

/// Describes `command` and those below it, one heading each.
fn describe(command: &clap::Command, path: &str, out: &mut String) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        let path = format!("{path}{}", sub.get_name());
        if sub.has_subcommands() {
            describe(sub, &format!("{path} "), out);
            continue;
        }
        let about = sub.get_long_about().or(sub.get_about()).unwrap().to_string();
        let _ = write!(out, "\n### {path}\n\n{}{}\n", about, if about.ends_with('.') { "" } else { "." });
        if let Some(examples) = sub.get_after_help() {
            let examples = examples.to_string();
            let lines = examples.lines().filter(|line| line.starts_with("  ")).map(|line| &line[2..]);
            let _ = write!(out, "\n```console\n{}\n```\n", lines.collect::<Vec<_>>().join("\n"));
        }
        let rows = argument_rows(sub.get_arguments().filter(|argument| is_own(argument)));
        if !rows.is_empty() {
            let _ = write!(out, "\n| argument | meaning |\n|---|---|\n{rows}");
        }
    }
}

#[test]
fn the_table_of_hosts_is_what_install_knows() {
    let mut table =
        "| host | `install` | file | with `--http` | its documentation |\n|---|---|---|---|---|\n".to_owned();
    for host in HOSTS {
        let on = |os| host.path(&Environment::new(os, "~".into(), [])).to_string_lossy().into_owned();
        let (linux, mac) = (on(Os::Linux), on(Os::MacOs));
        let windows = on(Os::Windows).replace("~/AppData/Roaming", "%APPDATA%").replace('~', "%USERPROFILE%");
        let mut files = vec![format!("`{linux}`")];
        if mac != linux {
            files.push(format!("macOS: `{mac}`"));
        }
        files.push(format!("Windows: `{}`", windows.replace('/', "\\")));
        let http = if host.shape.http.is_some() { "yes" } else { "no" };
        let (page, read) = host.documentation;
        let _ = writeln!(
            table,
            "| {} | `{}` | {} | {http} | [read {read}]({page}) |",
            host.title,
            host.name,
            files.join("; ")
        );
    }
    assert_table("docs/hosts.md", "hosts", &table);
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for host in HOSTS {
        assert!(readme.contains(host.name), "README.md does not name {}", host.name);
    }
}

#[test]
fn the_tables_of_commands_and_flags_are_the_command_line() {
    let command = Cli::command();
    let mut text = format!(
        "Flags of every command:\n\n| argument | meaning |\n|---|---|\n{}",
        argument_rows(command.get_arguments().filter(|argument| argument.is_global_set()))
    );
    describe(&command, "", &mut text);
    assert_table("docs/command-line.md", "commands", &text);
}

#[test]
fn the_commands_that_start_a_hosted_server_can_be_parsed() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Host it\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```console\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let commands = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ "));
    let ours: Vec<_> = commands.filter(|command| command.starts_with("bondmcp-server ")).collect();
    assert!(!ours.is_empty(), "{section}");
    for command in ours {
        let words = command.split(" #").next().unwrap().split_whitespace();
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
    }
}

#[test]
fn the_example_configuration_is_valid_and_holds_no_secret() {
    let example: serde_json::Value = serde_json::from_str(include_str!("../../mcp.json.example")).unwrap();
    let server = &example["mcpServers"]["bondmcp"];
    assert_eq!(
        (server["command"].as_str(), server["args"][0].as_str()),
        (Some("bondmcp-server"), Some("stdio"))
    );
    assert!(server.get("env").is_none());
}

fn documents() -> Vec<PathBuf> {
    let mut documents = files_below("docs", "md");
    documents.extend(
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|document| root().join(document)),
    );
    documents
}

/// The name that a Markdown heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let link = Regex::new(r#"(?:\]\(|src=")([^)":]+)[)"]"#).unwrap();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", document.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading),
                    "{}: {target}",
                    document.display()
                );
            }
        }
    }
}

#[test]
fn every_line_of_the_security_policy_names_a_test_that_exists() {
    let policy = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let named = Regex::new(r"`((?:src|tests)/[a-z_/]+\.(?:rs|py)) ([a-z_0-9]+)`").unwrap();
    let rows: Vec<&str> =
        policy.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| test |")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let mut tests = named.captures_iter(row).peekable();
        assert!(tests.peek().is_some(), "no test is named: {row}");
        for test in tests {
            let code = fs::read_to_string(root().join(&test[1])).unwrap_or_default();
            assert!(code.contains(&format!("fn {}(", &test[2])), "there is no test `{}`", &test[0]);
        }
    }
}
