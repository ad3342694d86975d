//! Each host's file: fresh, with other servers and comments, broken, and with the entry already.

use std::fmt::Write as _;

use super::*;

/// A host's file as people have it, and one with a mistake in the named line.
struct Sample {
    host: &'static str,
    existing: &'static str,
    broken: (&'static str, usize),
}

const STRICT: (&str, usize) = ("{\n  \"mcpServers\": {\n    \"other\": {\"command\": \"x\"},\n  }\n}\n", 3);
const WITH_COMMENTS: (&str, usize) = ("{\n  // servers\n  \"mcpServers\": {\n    \"other\" {}\n  }\n}\n", 4);

const SAMPLES: [Sample; 13] = [
    Sample {
        host: "claude-desktop",
        existing: "{\n  \"globalShortcut\": \"\",\n  \"mcpServers\": {\n    \"files\": {\n      \"command\": \"npx\",\n      \"args\": [\"-y\", \"server-files\"],\n      \"env\": { \"TOKEN\": \"s3cret-of-another-server\" }\n    }\n  }\n}",
        broken: STRICT,
    },
    Sample {
        host: "claude-code",
        existing: "{\n  \"numStartups\": 12,\n  \"projects\": {\n    \"/work\": {\n      \"mcpServers\": {},\n      \"allowedTools\": []\n    }\n  },\n  \"oauthAccount\": { \"token\": \"s3cret-of-another-server\" }\n}\n",
        broken: STRICT,
    },
    Sample {
        host: "cursor",
        existing: "{\n\t\"mcpServers\": {\n\t\t// issues\n\t\t\"issues\": {\n\t\t\t\"url\": \"https://issues.example/mcp\",\n\t\t\t\"headers\": { \"Authorization\": \"Bearer s3cret-of-another-server\" }\n\t\t}, // last\n\t}\n}\n",
        broken: WITH_COMMENTS,
    },
    Sample {
        host: "vscode",
        existing: "{\r\n  \"inputs\": [\r\n    { \"type\": \"promptString\", \"id\": \"key\", \"password\": true }\r\n  ],\r\n  \"servers\": {\r\n    \"other\": {\r\n      \"type\": \"stdio\",\r\n      \"command\": \"other\", // s3cret-of-another-server\r\n    },\r\n  },\r\n}\r\n",
        broken: WITH_COMMENTS,
    },
    Sample {
        host: "windsurf",
        existing: "{\"mcpServers\":{\"other\":{\"command\":\"other\",\"env\":{\"KEY\":\"s3cret-of-another-server\"}}}}",
        broken: WITH_COMMENTS,
    },
    Sample {
        host: "zed",
        existing: "// Zed settings\n//\n// See the documentation.\n{\n  \"ui_font_size\": 16,\n  \"theme\": {\n    \"mode\": \"system\", // or \"dark\"\n    \"light\": \"One Light\",\n  },\n  \"context_servers\": {\n    \"other\": {\n      \"command\": \"other\",\n      \"args\": [\"--key=s3cret-of-another-server\"],\n    },\n    // none after this\n  },\n}\n",
        broken: ("// Zed\n{\n  \"theme\": \"a\"\n  \"x\": 1\n}\n", 3),
    },
    Sample {
        host: "gemini",
        existing: "// Gemini\n{\n  \"security\": { \"auth\": { \"selectedType\": \"gemini-api-key\" } },\n  \"apiKey\": \"s3cret-of-another-server\"\n}\n",
        broken: STRICT,
    },
    Sample {
        host: "codex",
        existing: "# Codex\nmodel = \"gpt-5\" # the usual\napproval_policy = 'on-request'\n\n[mcp_servers.other]\ncommand = \"other\"\nargs = [\n  \"--fast\", # why not\n]\n\n[mcp_servers.other.env]\nKEY = \"s3cret-of-another-server\"\n\n[tui]\ntheme = \"dark\"\n# end\n",
        broken: ("model = \"x\"\n[mcp_servers.other\ncommand = \"y\"\n", 2),
    },
    Sample {
        host: "goose",
        existing: "# Model\nGOOSE_PROVIDER: \"anthropic\"   # mine\nGOOSE_MODEL: claude\n\nextensions:\n  # built in\n  developer:\n    bundled: true\n    enabled: true\n    type: builtin\n\n  other:\n    type: stdio\n    cmd: other\n    envs:\n      KEY: s3cret-of-another-server\n# end\nslash_commands:\n- command: run\n",
        broken: ("GOOSE_MODEL: x\nextensions:\n  developer:\n   - a\n  b: [\n", 6),
    },
    Sample {
        host: "opencode",
        existing: "{\n  \"$schema\": \"https://opencode.ai/config.json\",\n  // models\n  \"model\": \"anthropic/claude\",\n  \"mcp\": {\n    \"other\": { \"type\": \"remote\", \"url\": \"https://other.example/s3cret-of-another-server\" }\n  }\n}\n",
        broken: WITH_COMMENTS,
    },
    Sample {
        host: "copilot",
        existing: "{\n    \"mcpServers\": {\n        \"other\": {\n            \"type\": \"local\",\n            \"command\": \"other\",\n            \"tools\": [\"*\"],\n            \"env\": { \"KEY\": \"s3cret-of-another-server\" }\n        }\n    }\n}\n",
        broken: WITH_COMMENTS,
    },
    Sample { host: "lm-studio", existing: "{\n  \"mcpServers\": {}\n}\n", broken: STRICT },
    Sample {
        host: "continue",
        existing: "name: Mine\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: local # fast\n    provider: ollama\n    apiKey: s3cret-of-another-server\nmcpServers:\n  # files\n  - name: files\n    command: npx\n    args:\n      - \"-y\"\n      - server-files\nrules: []\n",
        broken: ("name: Mine\nmodels:\n  - name: a\n   provider: b\n", 4),
    },
];

#[test]
fn every_host_has_samples() {
    assert_eq!(SAMPLES.map(|sample| sample.host).as_slice(), names());
}

#[test]
fn install_writes_the_entry_of_each_host_and_uninstall_restores_its_file() {
    for Sample { host, existing, .. } in SAMPLES {
        let mut golden = String::new();
        let mut section = |title: &str, text: &str| {
            let _ = write!(golden, "== {title}\n{}\n", text.trim_end_matches('\n'));
        };

        let home = Home::new();
        let ran = home.run(&["install", host, "--yes"]);
        assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
        section("fresh", &home.stable(&home.files()[&home.file(host)]));
        assert_eq!(home.files().len(), 1, "{host}");
        assert_eq!(home.run(&["uninstall", host, "--yes"]).code, Some(0), "{host}");
        assert!(home.files().is_empty(), "{host}: {:?}", home.files());

        let file = home.write(host, existing);
        let ran = home.run(&["install", host, "--yes"]);
        assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
        assert!(!ran.out.contains(SECRET), "{host}: {}", ran.out);
        let with_entry = home.files();
        section("existing", &home.stable(&with_entry[&file]).replace('\r', "␍"));
        section("shown", &home.stable(&ran.out));

        let ran = home.run(&["install", host, "--yes"]);
        assert_eq!((ran.code, home.files()), (Some(0), with_entry), "{host}");
        section("already installed", &home.stable(&ran.out));

        let ran = home.run(&["uninstall", host, "--yes"]);
        assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
        assert!(!ran.out.contains(SECRET), "{host}: {}", ran.out);
        assert_eq!(home.files(), BTreeMap::from([(file, existing.to_owned())]), "{host}");
        section("removed", &home.stable(&ran.out));

        let http = home.run(&["install", host, "--yes", "--http", "https://mcp.example/mcp"]);
        let text = home.stable(&home.files()[&home.file(host)]).replace('\r', "␍");
        let text = text.strip_suffix(existing).map_or(text.as_str(), |_| "unchanged");
        section("over HTTP", if http.code == Some(0) { text } else { &http.err });
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(host, golden);
        });
    }
}

#[test]
fn a_broken_file_is_left_alone_and_the_error_names_its_line() {
    for Sample { host, broken: (text, line), .. } in SAMPLES {
        let home = Home::new();
        let file = home.write(host, text);
        for command in ["install", "uninstall"] {
            let ran = home.run(&[command, host, "--yes"]);
            assert_eq!(ran.code, Some(1), "{host}");
            assert!(ran.err.contains(&format!("{}:{line}: ", file.display())), "{host}: {}", ran.err);
            assert_eq!(home.files(), BTreeMap::from([(file.clone(), text.to_owned())]), "{host}");
        }
    }
}
