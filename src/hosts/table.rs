//! The hosts: where each keeps its servers and how it writes them. Everything here comes from the host's own
//! documentation, which each row names with the day it was read.

use super::{
    document::{Format, Section},
    entry::Part::{self, Arguments, Command, CommandLine, Name, Object, Texts, Url, Word, Yes},
    place::{Base, Os},
};

/// The variable with the token of `bondmcp-server http`. The token itself is never written into a file.
pub const TOKEN_VARIABLE: &str = "BONDMCP_HTTP_TOKEN";

/// A program that runs MCP servers.
#[derive(Debug)]
pub struct Host {
    /// The name on the command line.
    pub name: &'static str,
    /// The name that its makers use.
    pub title: &'static str,
    pub format: Format,
    /// Where the servers stand.
    pub section: Section,
    /// Where the file for all of a user's projects may be. Of several directories the last one that exists counts, and
    /// of several files in it the first one that exists, or else the first.
    pub files: &'static [File],
    /// A variable that moves the file, and the file's path below the variable's value.
    pub moved_by: Option<(&'static str, &'static str)>,
    /// The program that starts the host from a terminal.
    pub program: Option<&'static str>,
    pub shape: Shape,
    /// What a file begins with that did not exist.
    pub preamble: &'static str,
    /// What to do after an entry has been written, in the host's words. `{name}` is the server's name.
    pub next: &'static str,
    /// The page of the host's documentation, and when it was read.
    pub documentation: (&'static str, &'static str),
}

/// A place of a host's file on some systems.
#[derive(Debug)]
pub struct File {
    pub systems: &'static [Os],
    pub base: Base,
    pub path: &'static str,
}

/// How a host writes a server's entry.
#[derive(Debug)]
pub struct Shape {
    pub stdio: &'static [(&'static str, Part)],
    /// The entry for streamable HTTP; `None` if the file takes none.
    pub http: Option<&'static [(&'static str, Part)]>,
    /// What an entry for HTTP has besides, so that the host gets the token, which is not written.
    pub token: &'static [(&'static str, Part)],
    pub token_source: TokenSource,
    /// The key of the environment variables.
    pub environment: &'static str,
}

/// Where a host gets the token of a server over HTTP.
#[derive(Debug)]
pub enum TokenSource {
    /// From [`TOKEN_VARIABLE`] in its environment.
    Variable,
    /// It asks the person. The question is an entry of its own, which servers refer to.
    Prompt {
        section: Section,
        id: &'static str,
        reference: &'static str,
        entry: &'static [(&'static str, Part)],
    },
    /// It has no way but to write the token into the file.
    Nowhere,
}

const fn map(key: &'static str) -> Section {
    Section { key, named_by: None }
}

const fn list(key: &'static str, named_by: &'static str) -> Section {
    Section { key, named_by: Some(named_by) }
}

const ALL: &[Os] = &[Os::Linux, Os::MacOs, Os::Windows];
const UNIX: &[Os] = &[Os::Linux, Os::MacOs];
const WINDOWS: &[Os] = &[Os::Windows];

const fn on(systems: &'static [Os], base: Base, path: &'static str) -> File {
    File { systems, base, path }
}

const COMMAND: &[(&str, Part)] = &[("command", Command), ("args", Arguments)];
const STDIO: &[(&str, Part)] = &[("type", Word("stdio")), ("command", Command), ("args", Arguments)];

pub const HOSTS: &[Host] = &[
    Host {
        name: "claude-desktop",
        title: "Claude Desktop",
        format: Format::Json,
        section: map("mcpServers"),
        // The page names macOS and Windows; on Linux the program follows the same rule of its toolkit. On Windows the
        // packaged program sees a copy of the directory: https://github.com/anthropics/claude-code/issues/26073
        files: &[
            on(ALL, Base::AppData, "Claude/claude_desktop_config.json"),
            on(
                WINDOWS,
                Base::LocalAppData,
                "Packages/Claude_pzs8sxrjxfjjc/LocalCache/Roaming/Claude/claude_desktop_config.json",
            ),
        ],
        moved_by: None,
        program: None,
        // Remote servers are added in the program's settings, not in this file.
        shape: Shape {
            stdio: COMMAND,
            http: None,
            token: &[],
            token_source: TokenSource::Nowhere,
            environment: "env",
        },
        preamble: "",
        next: "Quit Claude Desktop completely (closing the window is not enough) and open it again. \
               Settings > Developer shows whether {name} runs.",
        documentation: ("https://modelcontextprotocol.io/docs/develop/connect-local-servers", "2026-11-24"),
    },
    Host {
        name: "claude-code",
        title: "Claude Code",
        format: Format::Json,
        section: map("mcpServers"),
        files: &[on(ALL, Base::Home, ".claude.json")],
        moved_by: Some(("CLAUDE_CONFIG_DIR", ".claude.json")),
        program: Some("claude"),
        shape: Shape {
            stdio: STDIO,
            http: Some(&[("type", Word("http")), ("url", Url)]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer ${BONDMCP_HTTP_TOKEN}"))]))],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        preamble: "",
        next: "Start a new session with `claude`; `/mcp` shows whether {name} is connected.",
        documentation: ("https://code.claude.com/docs/en/mcp", "2026-11-24"),
    },
    Host {
        name: "cursor",
        title: "Cursor",
        format: Format::Jsonc,
        section: map("mcpServers"),
        files: &[on(ALL, Base::Home, ".cursor/mcp.json")],
        moved_by: None,
        program: Some("cursor"),
        shape: Shape {
            stdio: STDIO,
            http: Some(&[("url", Url)]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer ${env:BONDMCP_HTTP_TOKEN}"))]))],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        preamble: "",
        next: "Restart Cursor, open Customize > MCPs in the sidebar and check that {name} is switched on.",
        documentation: ("https://cursor.com/docs/mcp", "2026-11-24"),
    },
    Host {
        name: "vscode",
        title: "VS Code",
        format: Format::Jsonc,
        section: map("servers"),
        files: &[on(ALL, Base::AppData, "Code/User/mcp.json")],
        moved_by: Some(("VSCODE_PORTABLE", "user-data/User/mcp.json")),
        program: Some("code"),
        shape: Shape {
            stdio: STDIO,
            http: Some(&[("type", Word("http")), ("url", Url)]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer ${input:bondmcp-token}"))]))],
            // Variables are not replaced in headers: https://github.com/microsoft/vscode/issues/336232
            token_source: TokenSource::Prompt {
                section: list("inputs", "id"),
                id: "bondmcp-token",
                reference: "${input:bondmcp-token}",
                entry: &[
                    ("type", Word("promptString")),
                    ("id", Word("bondmcp-token")),
                    ("description", Word("Token of bondmcp-server http")),
                    ("password", Yes),
                ],
            },
            environment: "env",
        },
        preamble: "",
        next: "In the Command Palette run MCP: List Servers, choose {name}, start it and confirm that you trust it. \
               Then ask in Chat, in agent mode.",
        documentation: (
            "https://code.visualstudio.com/docs/agents/reference/mcp-configuration",
            "2026-11-24",
        ),
    },
    Host {
        name: "windsurf",
        title: "Windsurf",
        format: Format::Jsonc,
        section: map("mcpServers"),
        files: &[on(ALL, Base::Home, ".codeium/windsurf/mcp_config.json")],
        moved_by: None,
        program: Some("windsurf"),
        shape: Shape {
            stdio: COMMAND,
            http: Some(&[("serverUrl", Url)]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer ${env:BONDMCP_HTTP_TOKEN}"))]))],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        preamble: "",
        next: "In the Cascade panel click the MCPs icon at the top right, then the refresh button.",
        documentation: ("https://docs.windsurf.com/windsurf/cascade/mcp", "2026-11-24"),
    },
    Host {
        name: "zed",
        title: "Zed",
        format: Format::Jsonc,
        section: map("context_servers"),
        files: &[on(UNIX, Base::Config, "zed/settings.json"), on(WINDOWS, Base::Config, "Zed/settings.json")],
        moved_by: None,
        program: Some("zed"),
        shape: Shape {
            stdio: COMMAND,
            http: Some(&[("url", Url)]),
            token: &[],
            token_source: TokenSource::Nowhere,
            environment: "env",
        },
        preamble: "",
        next: "Zed reads its settings at once: in Settings > AI > MCP Servers the dot beside {name} turns green.",
        documentation: ("https://zed.dev/docs/ai/mcp", "2026-11-24"),
    },
    Host {
        name: "gemini",
        title: "Gemini CLI",
        format: Format::JsonWithComments,
        section: map("mcpServers"),
        files: &[on(ALL, Base::Home, ".gemini/settings.json")],
        moved_by: Some(("GEMINI_CLI_HOME", ".gemini/settings.json")),
        program: Some("gemini"),
        shape: Shape {
            stdio: COMMAND,
            http: Some(&[("httpUrl", Url)]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer ${BONDMCP_HTTP_TOKEN}"))]))],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        preamble: "",
        next: "Start `gemini` again; `/mcp` shows whether {name} is ready.",
        documentation: ("https://geminicli.com/docs/tools/mcp-server", "2026-11-24"),
    },
    Host {
        name: "codex",
        title: "Codex",
        format: Format::Toml,
        section: map("mcp_servers"),
        files: &[on(ALL, Base::Home, ".codex/config.toml")],
        moved_by: Some(("CODEX_HOME", "config.toml")),
        program: Some("codex"),
        shape: Shape {
            stdio: COMMAND,
            http: Some(&[("url", Url)]),
            token: &[("bearer_token_env_var", Word(TOKEN_VARIABLE))],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        preamble: "",
        next: "Start `codex` again, or restart its app or editor extension, which read the same file; \
               `/mcp` lists {name}.",
        documentation: ("https://developers.openai.com/codex/mcp", "2026-11-24"),
    },
    Host {
        name: "goose",
        title: "Goose",
        format: Format::Yaml,
        section: map("extensions"),
        files: &[
            on(UNIX, Base::Config, "goose/config.yaml"),
            on(WINDOWS, Base::AppData, "Block/goose/config/config.yaml"),
        ],
        moved_by: Some(("GOOSE_PATH_ROOT", "config/config.yaml")),
        program: Some("goose"),
        shape: Shape {
            stdio: &[
                ("type", Word("stdio")),
                ("name", Name),
                ("description", Word("BondMCP health AI")),
                ("enabled", Yes),
                ("cmd", Command),
                ("args", Arguments),
            ],
            http: Some(&[
                ("type", Word("streamable_http")),
                ("name", Name),
                ("description", Word("BondMCP health AI")),
                ("enabled", Yes),
                ("uri", Url),
            ]),
            token: &[
                ("headers", Object(&[("Authorization", Word("Bearer ${BONDMCP_HTTP_TOKEN}"))])),
                ("env_keys", Texts(&[TOKEN_VARIABLE])),
            ],
            token_source: TokenSource::Variable,
            environment: "envs",
        },
        preamble: "",
        next: "Restart Goose: quit and reopen Goose Desktop, or start a new `goose session`.",
        documentation: ("https://block.github.io/goose/docs/guides/config-files", "2026-11-24"),
    },
    Host {
        name: "opencode",
        title: "opencode",
        format: Format::Jsonc,
        section: map("mcp"),
        files: &[
            on(UNIX, Base::Config, "opencode/opencode.json"),
            on(UNIX, Base::Config, "opencode/opencode.jsonc"),
            on(WINDOWS, Base::Home, ".config/opencode/opencode.json"),
            on(WINDOWS, Base::Home, ".config/opencode/opencode.jsonc"),
        ],
        moved_by: None,
        program: Some("opencode"),
        shape: Shape {
            stdio: &[("type", Word("local")), ("command", CommandLine), ("enabled", Yes)],
            http: Some(&[("type", Word("remote")), ("url", Url), ("enabled", Yes)]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer {env:BONDMCP_HTTP_TOKEN}"))]))],
            token_source: TokenSource::Variable,
            environment: "environment",
        },
        preamble: "",
        next: "Start `opencode` again; `opencode mcp list` shows whether {name} is connected.",
        documentation: ("https://opencode.ai/v1/docs/mcp-servers", "2026-11-24"),
    },
    Host {
        name: "copilot",
        title: "GitHub Copilot CLI",
        format: Format::Jsonc,
        section: map("mcpServers"),
        files: &[on(ALL, Base::Home, ".copilot/mcp-config.json")],
        moved_by: Some(("COPILOT_HOME", "mcp-config.json")),
        program: Some("copilot"),
        shape: Shape {
            stdio: &[
                ("type", Word("local")),
                ("command", Command),
                ("args", Arguments),
                ("tools", Texts(&["*"])),
            ],
            http: Some(&[("type", Word("http")), ("url", Url), ("tools", Texts(&["*"]))]),
            token: &[("headers", Object(&[("Authorization", Word("Bearer ${BONDMCP_HTTP_TOKEN}"))]))],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        preamble: "",
        next: "Start `copilot` again; `/mcp show {name}` shows its status.",
        documentation: (
            "https://docs.github.com/en/copilot/how-tos/copilot-cli/customize-copilot/add-mcp-servers",
            "2026-11-24",
        ),
    },
    Host {
        name: "lm-studio",
        title: "LM Studio",
        format: Format::Json,
        section: map("mcpServers"),
        files: &[on(ALL, Base::Home, ".lmstudio/mcp.json")],
        moved_by: None,
        program: Some("lms"),
        shape: Shape {
            stdio: COMMAND,
            http: Some(&[("url", Url)]),
            token: &[],
            token_source: TokenSource::Nowhere,
            environment: "env",
        },
        preamble: "",
        next: "In the Program tab of LM Studio's right-hand sidebar switch mcp/{name} on.",
        documentation: ("https://lmstudio.ai/docs/app/mcp", "2026-11-24"),
    },
    Host {
        name: "continue",
        title: "Continue",
        format: Format::Yaml,
        section: list("mcpServers", "name"),
        files: &[on(ALL, Base::Home, ".continue/config.yaml")],
        moved_by: Some(("CONTINUE_GLOBAL_DIR", "config.yaml")),
        program: Some("cn"),
        shape: Shape {
            stdio: &[("name", Name), ("type", Word("stdio")), ("command", Command), ("args", Arguments)],
            http: Some(&[("name", Name), ("type", Word("streamable-http")), ("url", Url)]),
            token: &[(
                "requestOptions",
                Object(&[(
                    "headers",
                    Object(&[("Authorization", Word("Bearer ${{ secrets.BONDMCP_HTTP_TOKEN }}"))]),
                )]),
            )],
            token_source: TokenSource::Variable,
            environment: "env",
        },
        // These three keys are required.
        preamble: "name: Local Config\nversion: 1.0.0\nschema: v1\n",
        next: "Reload the editor's window, or start `cn` again. Continue uses MCP servers in agent mode only.",
        documentation: ("https://docs.continue.dev/customize/deep-dives/mcp", "2026-11-24"),
    },
];
