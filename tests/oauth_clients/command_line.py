"""Clients with a command line, each in a home of its own: how they connect, call, refresh and disconnect."""

import asyncio
import json
import pathlib
import re
import sys
from concurrent import futures

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

import terminal

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "hosts"))
import hosts  # noqa: E402
from model import DONE, Model  # noqa: E402


class CommandLine:
    def __init__(self, server, browser, tools, home):
        self.server, self.browser, self.tools, self.home = server, browser, tools, pathlib.Path(home)
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

    def sign_in(self, *command, addresses=1):
        """Runs a command that shows the person one address or more, and goes there."""
        return self.run(*command, authorize=f"{self.server.origin}/authorize?", visit=self.browser.visit, addresses=addresses)

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


def spoiled(token):
    """A token whose signature is wrong, as one that has been revoked."""
    return token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB")


RMCP = str(HERE.parents[1] / "target/debug/examples/rmcp_client")


def rmcp(it):
    told = it.sign_in(RMCP, it.server.url)
    assert told.count("sandbox-general-1") == 2 and "revoked" in told, told
    assert not it.server.live_tokens()


def rmcp_that_steps_up(it):
    """An app that the operator has added, and which asks for more when it needs it."""
    client = it.server.add_client("rmcp", "http://127.0.0.1/callback")
    told = it.sign_in(RMCP, it.server.url, client, addresses=2)
    # It revokes what it has; its first grant could be that of another installation, and stays.
    assert told.count("sandbox-general-1") == 2 and "analysis" in told and "revoked" in told, told


def inspector(it):
    base = ["mcp-inspector", "--cli", "--server-url", it.server.url, "--transport", "http"]
    call = ["--method", "tools/call", "--tool-name", "list_models"]
    assert '"manage_api_keys"' in it.sign_in(*base, "--method", "tools/list")
    for era in ("legacy", "modern"):
        assert "sandbox-general-1" in it.run(*base, *call, "--stored-auth-only", "--protocol-era", era)

    def spoil(kept):
        secrets = kept["secrets"]
        for name in [name for name in secrets if ":tokens:" in name]:
            tokens = json.loads(secrets[name])
            secrets[name] = json.dumps({**tokens, "access_token": spoiled(tokens["access_token"])})

    tokens = it.asked("/token")
    it.edit(".mcp-inspector/secrets.json", spoil)
    assert "sandbox-general-1" in it.run(*base, *call, "--stored-auth-only")
    assert it.asked("/token") > tokens
    # It forgets its tokens, and connects anew.
    assert "sandbox-general-1" in it.sign_in(*base, *call, "--relogin")


def claude_code(it):
    add = ["claude", "mcp", "add", "--transport", "http"]
    it.run(*add, "bondmcp", it.server.url)
    # Its client id is its metadata document, which a server without network cannot fetch.
    shown = it.shows("claude", "mcp", "login", "bondmcp")
    assert "client_id=https%3A%2F%2Fclaude.ai%2Foauth%2Fclaude-code-client-metadata&" in shown, shown
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
    # Several processes find the same token expired, and each of them may refresh it.
    it.edit(".claude/.credentials.json", expire)
    with futures.ThreadPoolExecutor() as pool:
        for listed in [pool.submit(it.run, "claude", "mcp", "list") for _ in range(3)]:
            assert "Connected" in listed.result()
    assert "Connected" in it.run("claude", "mcp", "list")
    it.run("claude", "mcp", "logout", "bondmcp")
    # It has revoked what it had.
    assert not it.server.live_tokens()
    # It moves the cursor where a blank would be.
    assert "Needsauthentication" in re.sub(r"\s+", "", it.run("claude", "mcp", "list"))


def codex(it):
    entry = f'[mcp_servers.bondmcp]\nurl = "{it.server.url}"\n'

    class Configured(hosts.Codex):
        def write(self, settings):
            """Keeps its tokens in a file, as there is no keychain."""
            super().write(f'mcp_oauth_credentials_store = "file"\n{settings}\n{entry}')

    host = Configured(it.home, "http://127.0.0.1:9")
    host.configure()
    shown = it.shows("codex", "mcp", "login", "bondmcp")
    assert "client_id=https%3A%2F%2Fchatgpt.com%2Foauth%2Fcodex%2Fclient.json&" in shown, shown
    it.sign_in("codex", "mcp", "login", "bondmcp", "--oauth-client-registration", "dcr")
    assert "OAuth" in it.run("codex", "mcp", "list")
    it.plays(host)

    def expire(kept):
        for tokens in kept.values():
            tokens["expires_at"] = 1

    tokens = it.asked("/token")
    it.edit(".codex/.credentials.json", expire)
    it.plays(host)
    assert it.asked("/token") > tokens
    # It forgets its tokens, and revokes nothing.
    it.run("codex", "mcp", "logout", "bondmcp")
    assert it.server.live_tokens()


def opencode(it):
    server = {"bondmcp": {"type": "remote", "url": it.server.url, "enabled": True}}

    class Configured(hosts.OpenCode):
        def write(self, settings):
            super().write({**settings, "mcp": server})

    host = Configured(it.home, "http://127.0.0.1:9")
    host.configure()
    it.sign_in("opencode", "mcp", "auth", "bondmcp")
    it.plays(host)

    def spoil(kept):
        for entry in kept.values():
            entry["tokens"]["accessToken"] = spoiled(entry["tokens"]["accessToken"])

    tokens = it.asked("/token")
    it.edit(".local/share/opencode/mcp-auth.json", spoil)
    it.plays(host)
    assert it.asked("/token") > tokens
    # It forgets its tokens, and revokes nothing.
    it.run("opencode", "mcp", "logout", "bondmcp")
    assert it.server.live_tokens()


def typescript_sdk(it, generation):
    it.sign_in("node", f"{it.tools}/oauth_typescript_sdk.mjs", it.server.url, generation)


def mcp_remote(it):
    """An MCP host's server over stdio, which is the client of ours."""
    client = StdioServerParameters(command="mcp-remote", args=[it.server.url], env=it.environment, cwd=it.home)

    async def call(shown):
        with shown.open("w") as log:
            async with Client(stdio_client(client, log), mode="legacy") as host:
                assert "manage_api_keys" in {tool.name for tool in (await host.list_tools()).tools}
                result = await host.call_tool("list_models", {"refresh": True})
                assert result.structured_content["count"] == 3, result

    async def person(shown):
        while not (url := re.search(rf"^{re.escape(it.server.origin)}/authorize\?\S+$", shown.read_text(), re.MULTILINE)):
            await asyncio.sleep(0.1)
        await asyncio.to_thread(it.browser.visit, url[0])

    async def connect():
        shown = it.home / "first"
        shown.touch()
        await asyncio.gather(call(shown), person(shown))

    asyncio.run(asyncio.wait_for(connect(), terminal.LIMIT))
    file, = it.home.glob(".mcp-auth/*/*_tokens.json")

    def spoil(kept):
        kept["access_token"] = spoiled(kept["access_token"])

    tokens = it.asked("/token")
    it.edit(file.relative_to(it.home), spoil)
    again = it.home / "second"
    asyncio.run(asyncio.wait_for(call(again), terminal.LIMIT))
    assert it.asked("/token") > tokens
    assert "/authorize?" not in again.read_text()
