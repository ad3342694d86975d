//! Hosts whose files are broken, and entries that do not work.

use std::path::PathBuf;

use bondmcp_server::secret::SecretString;
use serde_json::{Value, json};
use tokio::process::Child;

use super::{Installation, common, common::secrets};

pub(super) const DESKTOP: &str = ".config/Claude/claude_desktop_config.json";

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
    pub(super) async fn install(&self, run: &str) {
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
        report.failed("host Claude Desktop", "its program /opt/bondmcp-0.0/bondmcp-server does not exist");
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
        // What echoes is not known from what is slow to answer.
        let check = installation.examine_fast().await.failed("host Claude Desktop", "does not speak MCP");
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
    let check = installation.examine_fast().await.failed("host Claude Desktop", "no answer within 10 s");
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
    let check = report.failed("host Cursor", "/nowhere does not exist");
    assert!(check.run.contains("install cursor"), "{check:?}");
    installation.install(&check.run).await;
    installation.assert_fixed("host Cursor").await;
}

/// Starts `bondmcp-server http`; returns its address.
async fn http_server(installation: &Installation, token: &str) -> (Child, String) {
    let mut command = installation.command(&["http", "--listen", "127.0.0.1:0"]);
    let mut server =
        command.env("BONDMCP_HTTP_TOKEN", token).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let url = common::served_at(server.stderr.take().unwrap()).await;
    (server, url)
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
    let check = installation.examine().await.check("host Zed");
    assert_eq!(check.status, "skip", "{check:?}");
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

/// Hosts send the headers that the entry has, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_this_server_goes_to_no_server_whose_entry_does_not_refer_to_it() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const TOKEN: &str = "canary-token-of-the-http-server";
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let (heard, mut requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let realm = if request.starts_with("POST /mcp ") { "bondmcp-server" } else { "other" };
            heard.send(request).unwrap();
            let challenge = format!("www-authenticate: Bearer realm=\"{realm}\"");
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\n{challenge}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    installation.set("BONDMCP_HTTP_TOKEN", TOKEN);
    for (headers, is_sent) in [
        (json!({"X-Team": "blue"}), false),
        (json!({"Authorization": "Bearer ${OTHER_TOKEN}"}), false),
        (json!({"Authorization": "Bearer ${BONDMCP_HTTP_TOKEN_STAGING}"}), false),
        (json!({"Authorization": "Bearer ${BONDMCP_HTTP_TOKEN}"}), true),
    ] {
        let entry = json!({"type": "http", "url": url, "headers": headers});
        installation.write(".claude.json", &json!({"mcpServers": {"bondmcp": entry}}).to_string());
        installation.examine().await.failed("host Claude Code", "wants a token");
        let request = common::within(requests.recv()).await.unwrap();
        assert!(request.starts_with("POST /mcp ") && !request.contains(TOKEN), "{headers}");
        // The challenge is this server's.
        if is_sent {
            assert!(common::within(requests.recv()).await.unwrap().contains(TOKEN), "{headers}");
        }
        assert!(requests.try_recv().is_err(), "{headers}");
    }
    // Another program may have come to the port.
    let headers = json!({"Authorization": "Bearer ${BONDMCP_HTTP_TOKEN}"});
    let entry = json!({"type": "http", "url": url.replace("/mcp", "/other"), "headers": headers});
    installation.write(".claude.json", &json!({"mcpServers": {"bondmcp": entry}}).to_string());
    let check = installation.examine().await.failed("host Claude Code", "is not bondmcp-server");
    assert!(check.advice.contains("Start `bondmcp-server http`"), "{check:?}");
    assert!(!common::within(requests.recv()).await.unwrap().contains(TOKEN));
    assert!(requests.try_recv().is_err());
    std::fs::remove_file(installation.home().join(".claude.json")).unwrap();
    // VS Code asks the person for the token of this entry.
    let headers = json!({"Authorization": "Bearer ${input:bondmcp-token}"});
    let servers = json!({"servers": {"bondmcp": {"type": "http", "url": url, "headers": headers}}});
    let file = installation.write(".config/Code/User/mcp.json", &servers.to_string());
    assert_eq!(installation.examine().await.check("host VS Code").status, "skip");
    assert!(!common::within(requests.recv()).await.unwrap().contains(TOKEN));
    std::fs::remove_file(file).unwrap();
    // Some servers have their token in the path.
    let entry = json!({"type": "http", "url": format!("{url}/canary-in-the-path")});
    installation.write(".claude.json", &json!({"mcpServers": {"bondmcp": entry}}).to_string());
    let report = installation.examine().await;
    report.failed("host Claude Code", "wants a token");
    assert!(!report.0.to_string().contains("canary"), "{:#}", report.0);
}

/// Hosts' entries have secrets among the arguments, and a server may call itself anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_cannot_bring_a_secret_into_the_findings_with_its_name_or_version() {
    let (_sandbox, installation) = Installation::signed_in().await;
    for (from, to) in [("bondmcp-server", "'\"$1\"'"), ("0.0.1", "'\"$1\"'"), ("0.0.1", "1 '\"$1\"'")] {
        let script = OLDER.replace(from, to);
        let arguments = json!(["-c", script, "sh", "canary-among-the-arguments"]);
        installation.configure(&json!({"command": "/bin/sh", "args": arguments}));
        let report = installation.examine().await;
        let check = report.warned("host Claude Desktop", "works and has 0 tools, but runs another ");
        assert!(!report.0.to_string().contains("canary"), "{check:?}");
    }
}

/// A mistake that people make: variables and arguments in the name of the program.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_no_file_is_not_shown() {
    let (_sandbox, installation) = Installation::signed_in().await;
    for command in
        ["BONDMCP_PASSWORD=canary-of-the-entry bondmcp-server", "bondmcp-server --token canary-of-the-entry"]
    {
        installation.configure(&json!({"command": command}));
        let report = installation.examine().await;
        let check = report.failed("host Claude Desktop", "its program does not exist");
        assert!(!report.0.to_string().contains("canary"), "{check:?}");
        let mut install = installation.command(&["install", "claude-desktop", "--print"]);
        let (_, out, _) = common::run(&mut install, "").await;
        assert!(out.contains("-      \"command\": \"…\"") || out.contains("\"command\":\"…\""), "{out}");
        assert!(!out.contains("canary"), "{out}");
        installation.install(&check.run).await;
        installation.assert_fixed("host Claude Desktop").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_place_of_a_hosts_file_is_not_read() {
    let (_sandbox, installation) = Installation::signed_in().await;
    std::fs::create_dir(installation.home().join(".cursor")).unwrap();
    installation.paste("mkfifo ~/.cursor/mcp.json", "").await;
    installation.examine().await.failed("host Cursor", "not a file");
    installation.paste("rm ~/.cursor/mcp.json", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_switched_off_is_not_started() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let started = installation.home().join("started");
    let script = format!("touch {}", started.display());
    let off = json!({"command": "/bin/sh", "args": ["-c", script], "disabled": true});
    installation.write(".cursor/mcp.json", &json!({"mcpServers": {"bondmcp": off}}).to_string());
    let codex = "[mcp_servers.bondmcp]\ncommand = \"/bin/sh\"\nenabled = false\n";
    installation.write(".codex/config.toml", &format!("{codex}args = [\"-c\", '{script}']\n"));
    let report = installation.examine_fast().await;
    for host in ["host Cursor", "host Codex"] {
        let check = report.check(host);
        assert!(check.status == "skip" && check.detail.contains("switched off in the host"), "{check:?}");
    }
    assert!(!started.exists());
}
