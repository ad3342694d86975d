"""Drives real clients through the whole of OAuth: `drive.py BINARY TOOLS [CLIENT…]`."""

import asyncio
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parents[1] / "deploy/local")]
import command_line  # noqa: E402
import late_body  # noqa: E402
import python_sdk  # noqa: E402
from browsers import Chromium, Forms  # noqa: E402
from hosted import Server  # noqa: E402
from topology import end_on_signals  # noqa: E402


def python(*arguments):
    return lambda server, browser, *_: asyncio.run(python_sdk.connect(server, browser, *arguments))


def command(client, *arguments):
    return lambda *world: client(command_line.CommandLine(*world), *arguments)


# By their titles: whether the server has https, who shows the pages, and what the client does.
CLIENTS = {
    "A client whose body comes late": (False, Forms, late_body.connect),
    "Python SDK, 2026-07-28, in Chromium": (False, Chromium, python("auto")),
    "Python SDK, legacy": (True, Forms, python("legacy")),
    "Python SDK, with a secret, basic": (True, Forms, python("auto", "client_secret_basic")),
    "Python SDK, with a secret, post": (False, Forms, python("legacy", "client_secret_post")),
    "TypeScript SDK 1, in Chromium": (False, Chromium, command(command_line.typescript_sdk, "sdk")),
    "TypeScript SDK 2": (True, Forms, command(command_line.typescript_sdk, "client")),
    "rmcp, in Chromium": (True, Chromium, command(command_line.rmcp)),
    "rmcp, stepping up, in Chromium": (True, Chromium, command(command_line.rmcp_that_steps_up)),
    "Inspector, in Chromium": (True, Chromium, command(command_line.inspector)),
    "mcp-remote, in Chromium": (True, Chromium, command(command_line.mcp_remote)),
    "Claude Code": (True, Forms, command(command_line.claude_code)),
    "Claude Code, on this computer": (False, Forms, command(command_line.claude_code)),
    "opencode": (True, Forms, command(command_line.opencode)),
    "Codex": (True, Forms, command(command_line.codex)),
    "Codex, on this computer": (False, Forms, command(command_line.codex)),
}


def drive(binary, tools, clients, secure, directory):
    server = Server(binary, directory / "server", secure)
    try:
        print(f"doctor, {'https' if secure else 'http'}: {server.examine()} checks, none failed", flush=True)
        for number, (title, (_, browser, client)) in enumerate(clients.items()):
            client(server, browser(server), tools, directory / f"home-{number}")
            server.revoke_all()
            print(f"{title}, {'https' if secure else 'http'}: ok", flush=True)
    finally:
        server.end()
    secrets, lines = server.search_log()
    print(f"{secrets} secrets, none of them in {lines} lines of the log", flush=True)


def main(binary, tools, *wanted):
    end_on_signals()
    unknown = set(wanted) - set(CLIENTS)
    assert not unknown, f"the clients are: {', '.join(CLIENTS)}"
    for secure in (False, True):
        clients = {title: client for title, client in CLIENTS.items() if client[0] == secure and title in (wanted or CLIENTS)}
        if clients:
            with tempfile.TemporaryDirectory() as directory:
                drive(binary, tools, clients, secure, pathlib.Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
