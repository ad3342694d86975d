//! Hosts whose files are broken, and entries that do not work.

use std::path::PathBuf;

use bondmcp_server::secret::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use super::{Installation, common, common::secrets};

const DESKTOP: &str = ".config/Claude/claude_desktop_config.json";

impl Installation {
    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.home().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes an entry into the file of Claude Desktop.
    pub(super) fn configure(&self, entry: &Value) {
        self.write(DESKTOP, &json!({"mcpServers": {"bondmcp": entry}}).to_string());
    }

    /// An entry for this place's server.
    pub(super) fn entry(&self) -> Value {
        let data_dir = self.place.data_dir();
        json!({
            "command": env!("CARGO_BIN_EXE_bondmcp-server"),
            "args": ["stdio", "--data-dir", data_dir.to_str().unwrap(), "--base-url", self.place.base_url],
        })
    }

    /// Runs `install` as printed, which asks; here it is told not to.
    async fn install(&self, run: &str) {
        self.paste(&format!("{run} --yes"), "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_is_configured() {
    let (_sandbox, installation) = Installation::signed_in().await;
    std::fs::create_dir_all(installation.home().join(".config/Claude")).unwrap();
    let check = installation.examine().await.warned("hosts", "no host is configured");
    installation.install(&check.run).await;
    installation.assert_fixed("host Claude Desktop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_whose_program_is_gone() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&json!({"command": "/opt/bondmcp-0.0/bondmcp-server", "args": ["stdio"]}));
    let report = installation.examine().await;
    let check =
        report.failed("host Claude Desktop", "its program /opt/bondmcp-0.0/bondmcp-server is not there");
    assert!(check.detail.contains("bondmcp in ~/.config/Claude/claude_desktop_config.json"), "{check:?}");
    installation.install(&check.run).await;
    installation.assert_fixed("host Claude Desktop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_whose_program_does_not_speak_mcp() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let server = env!("CARGO_BIN_EXE_bondmcp-server");
    for entry in [
        json!({"command": "/bin/echo", "args": ["hello"]}),
        json!({"command": "/bin/cat"}),
        json!({"command": server, "args": ["--version"]}),
        json!({"command": server, "args": ["stdio", "--sign-in-timeout", "0"]}),
    ] {
        installation.configure(&entry);
        let check = installation.examine().await.failed("host Claude Desktop", "does not speak MCP");
        installation.install(&check.run).await;
        installation.assert_fixed("host Claude Desktop").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_whose_program_is_silent_is_ended() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let pid = installation.home().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", pid.display());
    installation.configure(&json!({"command": "/bin/sh", "args": ["-c", script]}));
    let check = installation.examine().await.failed("host Claude Desktop", "no answer within 10 s");
    let pid = std::fs::read_to_string(pid).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim()));
    assert!(!status.is_ok_and(|line| line.contains("sleep")), "it is ended");
    installation.install(&check.run).await;
    installation.assert_fixed("host Claude Desktop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_host_cannot_read() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let broken = "{\n  \"mcpServers\": {\n    \"bondmcp\": {\"command\": nothing}\n  }\n}\n";
    installation.write(DESKTOP, broken);
    let check = installation.examine().await.failed("host Claude Desktop", "claude_desktop_config.json:3: ");
    assert!(check.advice.starts_with("Correct line 3"), "{check:?}");
    let server = serde_json::to_string(&installation.entry()).unwrap();
    installation.write(DESKTOP, &broken.replace("{\"command\": nothing}", &server));
    installation.assert_fixed("host Claude Desktop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_a_line_of_its_own() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&installation.entry());
    installation
        .write(".cursor/mcp.json", &json!({"mcpServers": {"bondmcp": {"command": "/nowhere"}}}).to_string());
    let report = installation.examine().await;
    assert_eq!(report.check("host Claude Desktop").status, "ok");
    let check = report.failed("host Cursor", "/nowhere is not there");
    assert!(check.run.contains("install cursor"), "{check:?}");
    installation.install(&check.run).await;
    installation.assert_fixed("host Cursor").await;
}

/// Starts `bondmcp-server http`; returns its address.
async fn http_server(installation: &Installation, token: &str) -> (Child, String) {
    let mut command = installation.command(&["http", "--listen", "127.0.0.1:0"]);
    let mut server =
        command.env("BONDMCP_HTTP_TOKEN", token).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = common::within(lines.next_line()).await.unwrap().unwrap();
    (server, line.strip_prefix("Serving MCP at ").unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_over_http_without_its_server_or_its_token() {
    const TOKEN: &str = "canary-token-of-the-http-server";
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let (mut server, url) = http_server(&installation, TOKEN).await;
    let configure = |installation: &Installation, entry: Value| {
        installation.write(".claude.json", &json!({"mcpServers": {"bondmcp": entry}}).to_string());
    };
    configure(&installation, json!({"type": "http", "url": url}));
    installation.set("BONDMCP_HTTP_TOKEN", TOKEN);
    let check = installation.examine().await.failed("host Claude Code", "wants a token");
    assert!(check.advice.contains("dynamic registration 404"), "{check:?}");
    installation.install(&check.run).await;
    installation.assert_fixed("host Claude Code").await;

    installation.unset("BONDMCP_HTTP_TOKEN");
    let report = installation.examine().await;
    let check = report.failed("host Claude Code", "wants a token");
    assert!(
        check.advice.contains("BONDMCP_HTTP_TOKEN") && !report.0.to_string().contains(TOKEN),
        "{check:?}"
    );
    installation.set("BONDMCP_HTTP_TOKEN", TOKEN);
    installation.assert_fixed("host Claude Code").await;

    // Zed takes no token from a variable, so `install` cannot fix it.
    let zed = |entry: Value| json!({"context_servers": {"bondmcp": entry}}).to_string();
    installation.write(".config/zed/settings.json", &zed(json!({"url": url})));
    let check = installation.examine().await.failed("host Zed", "wants a token");
    assert!(check.advice.contains("Authorization: Bearer TOKEN") && check.run.is_empty(), "{check:?}");
    let headers = json!({"Authorization": format!("Bearer {TOKEN}")});
    installation.write(".config/zed/settings.json", &zed(json!({"url": url, "headers": headers})));
    installation.assert_fixed("host Zed").await;
    installation.write(".config/zed/settings.json", "{}");

    server.kill().await.unwrap();
    let check = installation.examine().await.failed("host Claude Code", "no server answers at its address");
    let (_server, url) = http_server(&installation, TOKEN).await;
    assert!(check.advice.contains("bondmcp-server http"), "{check:?}");
    let headers = json!({"Authorization": "Bearer ${BONDMCP_HTTP_TOKEN}"});
    configure(&installation, json!({"type": "http", "url": url, "headers": headers}));
    installation.assert_fixed("host Claude Code").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_of_an_entry_are_used_and_not_shown() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let canaries: [SecretString; 2] = ["canary-of-the-entry".into(), "canary-among-the-arguments".into()];
    let mut entry = installation.entry();
    entry["env"] = json!({"BONDMCP_API_KEY": secrets::text(&canaries[0]), "BONDMCP_BASE_URL": installation.place.base_url});
    installation.configure(&entry);
    installation.assert_fixed("host Claude Desktop").await;
    let script =
        format!(": {}; echo $BONDMCP_API_KEY; echo $BONDMCP_API_KEY >&2", secrets::text(&canaries[1]));
    entry["command"] = json!("/bin/sh");
    entry["args"] = json!(["-c", script]);
    installation.configure(&entry);
    for arguments in [&["doctor"][..], &["doctor", "--json"], &["--log", "trace", "doctor"]] {
        let (_, out, log) = common::run(&mut installation.command(arguments), "").await;
        assert!(out.contains("does not speak MCP"), "{out}");
        secrets::assert_absent(&canaries, out.as_bytes(), "the findings");
        secrets::assert_absent(&canaries, log.as_bytes(), "the log");
    }
}

/// A server of another version, as a script.
const OLDER: &str = r#"
while read -r line; do
  id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
  case "$line" in
    *'"initialize"'*) result='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bondmcp-server","version":"0.0.1"}}' ;;
    *'"tools/list"'*) result='{"tools":[]}' ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_runs_another_version() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&json!({"command": "/bin/sh", "args": ["-c", OLDER]}));
    let check = installation.examine().await.warned("host Claude Desktop", "runs bondmcp-server 0.0.1, not");
    installation.install(&check.run).await;
    installation.assert_fixed("host Claude Desktop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_others_can_change_is_not_started() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_sandbox, installation) = Installation::signed_in().await;
    installation.configure(&installation.entry());
    let file = installation.home().join(DESKTOP);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).unwrap();
    let check = installation.examine().await.failed("host Claude Desktop", "can be changed by every user");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("host Claude Desktop").await;
}

/// VS Code asks for the token and passes it on, which only a person can try.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_whose_host_asks_for_the_token_is_not_called_broken() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let (_server, url) = http_server(&installation, "canary-token-of-the-http-server").await;
    installation
        .install(&format!("{} install vscode --http {url}", env!("CARGO_BIN_EXE_bondmcp-server")))
        .await;
    let check = installation.examine().await.check("host VS Code");
    assert!(check.status == "skip" && check.detail.contains("only the host has"), "{check:?}");
}
