"""The hosts: how each is told of our server and of the model, and how it is run for one prompt without a terminal."""

import json
import os
import pathlib


class Host:
    """A host with a home of its own."""

    def __init__(self, home, model, server, environment):
        self.home, self.model, self.server, self.environment = pathlib.Path(home), model, server, environment

    def command(self):
        """The command that runs one prompt, and what it needs in its environment."""
        raise NotImplementedError

    def write(self, path, text):
        path = self.home / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return str(path)

    def entry(self):
        command, *arguments = self.server
        return {"command": command, "args": arguments, "env": self.environment}


class ClaudeCode(Host):
    package = "@anthropic-ai/claude-code@2.1.330"

    def command(self):
        servers = self.write("mcp.json", {"mcpServers": {"bondmcp": self.entry()}})
        flags = ["--mcp-config", servers, "--strict-mcp-config", "--allowedTools", "mcp__bondmcp"]
        return ["claude", "-p", "go", *flags], {
            "ANTHROPIC_BASE_URL": self.model.url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_TELEMETRY": "1",
        }


class Codex(Host):
    package = "@openai/codex@0.169.0"

    def command(self):
        entry = self.entry()
        provider = f'name = "scripted"\nbase_url = "{self.model.url}/v1"\nwire_api = "responses"\n'
        environment = "".join(f"{name} = {json.dumps(value)}\n" for name, value in entry["env"].items())
        self.write(
            ".codex/config.toml",
            f'model = "scripted"\nmodel_provider = "scripted"\n[model_providers.scripted]\n{provider}'
            f'[mcp_servers.bondmcp]\ncommand = {json.dumps(entry["command"])}\nargs = {json.dumps(entry["args"])}\n'
            f"[mcp_servers.bondmcp.env]\n{environment}",
        )
        return ["codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "go"], {}


class Copilot(Host):
    package = "@github/copilot@1.0.102"

    def command(self):
        entry = {"type": "local", "tools": ["*"], **self.entry()}
        self.write(".copilot/mcp-config.json", {"mcpServers": {"bondmcp": entry}})
        return ["copilot", "-p", "go", "--allow-all-tools", "--disable-builtin-mcps"], {
            "COPILOT_PROVIDER_BASE_URL": f"{self.model.url}/v1",
            "COPILOT_PROVIDER_API_KEY": "none",
            "COPILOT_MODEL": "scripted",
            "COPILOT_OFFLINE": "true",
            "COPILOT_AUTO_UPDATE": "false",
        }


class GeminiCli(Host):
    package = "@google/gemini-cli@0.61.0"

    def command(self):
        self.write(
            ".gemini/settings.json",
            {
                "mcpServers": {"bondmcp": self.entry()},
                "privacy": {"usageStatisticsEnabled": False},
                "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
                "general": {"enableAutoUpdate": False, "disableUpdateNag": True},
                "telemetry": {"enabled": False},
            },
        )
        return ["gemini", "-p", "go", "--approval-mode", "yolo"], {
            "GEMINI_API_KEY": "none",
            "GOOGLE_GEMINI_BASE_URL": self.model.url,
        }


class OpenCode(Host):
    package = "opencode-ai@1.18.33"

    def command(self):
        entry = self.entry()
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": f"{self.model.url}/v1", "apiKey": "none"},
            "models": {"scripted": {"name": "scripted", "tool_call": True}},
        }
        server = {"type": "local", "command": [entry["command"], *entry["args"]], "environment": entry["env"]}
        self.write(
            ".config/opencode/opencode.json",
            {"provider": {"scripted": provider}, "mcp": {"bondmcp": server}, "autoupdate": False, "share": "disabled"},
        )
        return ["opencode", "run", "-m", "scripted/scripted", "go"], {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        }


class QwenCode(Host):
    package = "@qwen-code/qwen-code@0.24.4"

    def command(self):
        self.write(
            ".qwen/settings.json",
            {
                "mcpServers": {"bondmcp": self.entry()},
                "security": {"auth": {"selectedType": "openai"}},
                "privacy": {"usageStatisticsEnabled": False},
                "general": {"disableAutoUpdate": True},
                "telemetry": {"enabled": False},
            },
        )
        return ["qwen", "-p", "go", "--approval-mode", "yolo"], {
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": f"{self.model.url}/v1",
            "OPENAI_MODEL": "scripted",
        }


HOSTS = [ClaudeCode, Codex, Copilot, GeminiCli, OpenCode, QwenCode]


def environment(home):
    """An environment without anything of the person who runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "CI": "1", "NO_PROXY": "127.0.0.1"}
