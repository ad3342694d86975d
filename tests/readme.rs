//! The README's tool table and defaults, and mcp.json.example, agree with the server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fmt::Write as _;

use common::{Place, Server, like_the_seed, sandbox};
use rmcp::model::Tool;

const START: &str = "<!-- tools -->\n| tool | what it does | arguments | effect |\n|---|---|---|---|\n";
const END: &str = "<!-- /tools -->";

fn row(tool: &Tool) -> String {
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
async fn the_readmes_tool_table_is_what_the_server_lists() {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    let tools = server.client.list_all_tools().await.unwrap();
    let table = tools.iter().fold(String::new(), |mut table, tool| {
        let _ = write!(table, "{}", row(tool));
        table
    });
    let readme = include_str!("../README.md");
    let start = readme.find(START).unwrap() + START.len();
    let end = readme.find(END).unwrap();
    assert_eq!(&readme[start..end], table, "paste this into README.md:\n{table}");
}

#[test]
fn the_readme_names_the_default_base_url() {
    let default = bondmcp_server::config::DEFAULT_BASE_URL;
    assert!(include_str!("../README.md").contains(&format!("Default: `{default}`")));
}

#[test]
fn the_example_configuration_is_valid_and_holds_no_secret() {
    let example: serde_json::Value = serde_json::from_str(include_str!("../mcp.json.example")).unwrap();
    let server = &example["mcpServers"]["bondmcp"];
    assert_eq!(
        (server["command"].as_str(), server["args"][0].as_str()),
        (Some("bondmcp-server"), Some("stdio"))
    );
    assert!(server.get("env").is_none());
}
