"""The hosts: what each is told besides our server, such as where its model is, and how it runs one prompt without a
terminal. The entry of our server is written by `bondmcp-server install`, where that knows the host."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


class Host:
    """A host with a home of its own."""

    title = None
    # Its package of npm, whose version is in package.json.
    package = None
    # Its name for `bondmcp-server install`.
    name = None
    # The file with the entry of our server.
    file = None

    def __init__(self, home, model_url):
        self.home, self.model_url = pathlib.Path(home), model_url

    def configure(self):
        """Writes what the host needs besides our server."""

    def enter(self, server):
        """Writes the entry of our server, for a host that `install` does not know."""

    def install(self, binary, flags, kept):
        """Adds our server to the host, and puts the tap in its place, which keeps the messages in `kept`."""
        tapped = self.home / "tapped"
        words = [sys.executable, str(HERE / "tap.py"), str(kept), binary]
        tapped.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        tapped.chmod(0o755)
        self.configure()
        if self.name is None:
            self.enter([str(tapped), *flags, "stdio"])
            return
        command = [binary, *flags, "install", self.name, "--yes"]
        done = subprocess.run(command, env=environment(self.home), text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, done
        file = self.home / self.file
        written = file.read_text()
        assert binary in written, written
        file.write_text(written.replace(binary, str(tapped)))

    def command(self):
        """The command that runs one prompt, and what it needs in its environment."""
        raise NotImplementedError

    def row(self, spoken, told):
        """The host's row in docs/hosts.md: `spoken` is what it declared, `told` what it was told when signed out."""
        versions = json.loads((HERE / "package.json").read_text())["dependencies"]
        asked = "url" in spoken["capabilities"].get("elicitation", {})
        command, link = "in a terminal" in told, "in a browser" in told
        answer = " and ".join(word for word, has in [("link", link), ("command", command)] if has)
        by = "URL elicitation" if asked else "the tool's answer"
        return f"| {self.title} {versions[self.package]} | {spoken['revision']} | {by} | {answer} |"

    def write(self, settings):
        path = self.home / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings, indent=2))


class ClaudeCode(Host):
    title, package = "Claude Code", "@anthropic-ai/claude-code"
    name, file = "claude-code", ".claude.json"

    def command(self):
        return ["claude", "-p", "go", "--allowedTools", "mcp__bondmcp"], {
            "ANTHROPIC_BASE_URL": self.model_url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_TELEMETRY": "1",
        }


class Codex(Host):
    title, package = "Codex", "@openai/codex"
    name, file = "codex", ".codex/config.toml"

    def configure(self):
        self.write(
            'model = "scripted"\nmodel_provider = "scripted"\n\n'
            f'[model_providers.scripted]\nname = "scripted"\nbase_url = "{self.model_url}/v1"\nwire_api = "responses"\n'
        )

    def command(self):
        return ["codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "go"], {}


class Copilot(Host):
    title, package = "GitHub Copilot CLI", "@github/copilot"
    name, file = "copilot", ".copilot/mcp-config.json"

    def command(self):
        return ["copilot", "-p", "go", "--allow-all-tools", "--disable-builtin-mcps"], {
            "COPILOT_PROVIDER_BASE_URL": f"{self.model_url}/v1",
            "COPILOT_PROVIDER_API_KEY": "none",
            "COPILOT_MODEL": "scripted",
            "COPILOT_OFFLINE": "true",
            "COPILOT_AUTO_UPDATE": "false",
        }


class GeminiCli(Host):
    title, package = "Gemini CLI", "@google/gemini-cli"
    name, file = "gemini", ".gemini/settings.json"

    def configure(self):
        self.write(
            {
                "general": {"enableAutoUpdate": False, "disableUpdateNag": True},
                "privacy": {"usageStatisticsEnabled": False},
                "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
            }
        )

    def command(self):
        return ["gemini", "-p", "go", "--approval-mode", "yolo"], {
            "GEMINI_API_KEY": "none",
            "GOOGLE_GEMINI_BASE_URL": self.model_url,
        }


class OpenCode(Host):
    title, package = "opencode", "opencode-ai"
    name, file = "opencode", ".config/opencode/opencode.json"

    def configure(self):
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": f"{self.model_url}/v1", "apiKey": "none"},
            "models": {"scripted": {"name": "scripted", "tool_call": True}},
        }
        self.write({"provider": {"scripted": provider}, "autoupdate": False, "share": "disabled"})

    def command(self):
        return ["opencode", "run", "-m", "scripted/scripted", "go"], {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        }


class QwenCode(Host):
    title, package = "Qwen Code", "@qwen-code/qwen-code"
    file = ".qwen/settings.json"

    def enter(self, server):
        command, *arguments = server
        self.write(
            {
                "general": {"disableAutoUpdate": True},
                "mcpServers": {"bondmcp": {"command": command, "args": arguments}},
                "privacy": {"usageStatisticsEnabled": False},
                "security": {"auth": {"selectedType": "openai"}},
            }
        )

    def command(self):
        return ["qwen", "-p", "go", "--approval-mode", "yolo"], {
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": f"{self.model_url}/v1",
            "OPENAI_MODEL": "scripted",
        }


HOSTS = [ClaudeCode, Codex, Copilot, GeminiCli, OpenCode, QwenCode]


def environment(home):
    """An environment without anything of the person who runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "CI": "1", "NO_PROXY": "127.0.0.1"}
