"""Clients with a command line, each in a home of its own: how they connect, call, refresh and disconnect."""

import asyncio
import json
import os
import pathlib
import re
import sys
import threading
import time

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

import terminal

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "hosts"))
import hosts  # noqa: E402
from model import DONE, Model  # noqa: E402


class CommandLine:
    def __init__(self, server, browser, tools, home):
        self.server, self.browser, self.home = server, browser, pathlib.Path(home)
        self.home.mkdir()
        bins = [f"{tools}/oauth_clients/node_modules/.bin", f"{tools}/node_modules/.bin", "/usr/bin", "/bin"]
        # No reports to the clients' makers, and no browser but the person's.
        self.environment = {
            "HOME": str(home), "PATH": ":".join(bins), "TERM": "dumb", "NO_COLOR": "1", "LANG": "C.UTF-8",
            "BROWSER": "/bin/true", "NO_PROXY": "localhost,127.0.0.1", "DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "MCP_INSPECTOR_SECRET_STORE": "file",
        }
        if server.authority:
            self.environment |= {"NODE_EXTRA_CA_CERTS": str(server.authority), "SSL_CERT_FILE": str(server.authority)}

    def run(self, *command, **more):
        return terminal.run(command, self.environment, self.home, **more)

    def sign_in(self, *command):
        """Runs a command that shows the address for the person, and goes there."""
        return self.run(*command, authorize=f"{self.server.origin}/authorize?", visit=self.browser.visit)

    def shows(self, *command):
        """The address that a command shows; nobody goes there."""
        return self.run(*command, authorize=f"{self.server.origin}/authorize?")

    def asked(self, path):
        """How often a path of the server was asked for so far."""
        return sum(request.split(" ")[1].partition("?")[0] == path for request in self.server.tap.requests())

    def plays(self, host):
        """Runs a host with a scripted model, which calls a tool."""
        def script():
            told = yield "list_models", {}
            assert "sandbox-general-1" in told, told

        model = Model(script())
        try:
            host.model_url = model.url
            host.configure()
            command, variables = host.command()
            shown = terminal.run(command, {**self.environment, **variables}, self.home)
        finally:
            model.close()
        assert model.finished and not model.failure and DONE in shown, (model.failure, shown)

    def edit(self, file, change):
        """Changes what a client keeps in a file of JSON."""
        path = self.home / file
        kept = json.loads(path.read_text())
        change(kept)
        path.write_text(json.dumps(kept))


def inspector(it):
    base = ["mcp-inspector", "--cli", "--server-url", it.server.url, "--transport", "http"]
    call = ["--method", "tools/call", "--tool-name", "list_models"]
    assert '"manage_api_keys"' in it.sign_in(*base, "--method", "tools/list")
    for era in ("legacy", "modern"):
        assert "sandbox-general-1" in it.run(*base, *call, "--stored-auth-only", "--protocol-era", era)
    revoked = it.asked("/revoke")
    # It disconnects before it connects anew.
    it.sign_in(*base, *call, "--relogin")
    assert it.asked("/revoke") > revoked


def claude_code(it):
    add = ["claude", "mcp", "add", "--transport", "http"]
    it.run(*add, "bondmcp", it.server.url)
    # Its client id is its metadata document, which a server without network cannot fetch.
    assert "client_id=https%3A%2F%2Fclaude.ai%2Foauth%2Fclaude-code-client-metadata&" in it.shows("claude", "mcp", "login", "bondmcp")
    it.run("claude", "mcp", "remove", "bondmcp")
    client = it.server.add_client("Claude Code", "http://localhost/callback")
    it.run(*add, "--client-id", client, "bondmcp", it.server.url)
    it.sign_in("claude", "mcp", "login", "bondmcp")
    assert "Connected" in it.run("claude", "mcp", "list")
    host = hosts.ClaudeCode(it.home, None)
    it.plays(host)

    def expire(kept):
        for entry in kept["mcpOAuth"].values():
            entry["expiresAt"] = 1

    tokens = it.asked("/token")
    it.edit(".claude/.credentials.json", expire)
    it.plays(host)
    assert it.asked("/token") > tokens
    it.run("claude", "mcp", "logout", "bondmcp")
    assert it.asked("/revoke")
    assert "Needs authentication" in re.sub(r"\s+", " ", it.run("claude", "mcp", "list"))


class Codex(hosts.Codex):
    def configure(self):
        """Keeps the entry of the server, which codex wrote."""


def codex(it):
    host = hosts.Codex(it.home, "http://127.0.0.1:9")
    host.configure()
    config = it.home / host.file
    # Without a keychain.
    config.write_text('mcp_oauth_credentials_store = "file"\n' + config.read_text())
    shown = it.shows("codex", "mcp", "add", "bondmcp", "--url", it.server.url)
    assert "client_id=https%3A%2F%2Fchatgpt.com%2Foauth%2Fcodex%2Fclient.json&" in shown, shown
    it.sign_in("codex", "mcp", "login", "bondmcp", "--oauth-client-registration", "dcr")
    assert "OAuth" in it.run("codex", "mcp", "list")
