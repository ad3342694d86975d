"""A newcomer: an empty home, a terminal on which they answer questions, and a sandbox in place of BondMCP."""

import json
import os
import pty
import re
import shlex
import socket
import subprocess

# What the person types at each question.
ANSWERS = [(rb"E-mail: $", b"demo@example.com\n"), (rb"Password: $", b"demo-password-1\n"), (rb"\[y/N\]:? $", b"y\n")]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Newcomer:
    def __init__(self, home, tools, **environment):
        self.home = home
        self.port = free_port()
        self.questions = 0
        self._sandbox = None
        path = [home / ".local/bin", home / ".cargo/bin", tools / "node_modules/.bin", *os.environ["PATH"].split(":")]
        self.environment = {
            "HOME": str(home),
            "PATH": ":".join(map(str, path)),
            "TERM": "xterm",
            "BONDMCP_BASE_URL": f"http://127.0.0.1:{self.port}/mcp",
        } | environment

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._sandbox:
            self._sandbox.terminate()
            self._sandbox.wait()

    def run(self, command, folder=None):
        """Runs a command line on a terminal, answers its questions, and returns its output."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            ["bash", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            cwd=folder or self.home, env=self.environment,
        ) as process:
            os.close(theirs)
            seen = answered = b""
            while part := self._read(ours):
                seen += part
                for question, answer in ANSWERS:
                    if re.search(question, seen) and answered != seen:
                        answered = seen
                        self.questions += 1
                        os.write(ours, answer)
        os.close(ours)
        output = seen.decode(errors="replace")
        assert process.returncode == 0, f"{command}: exit code {process.returncode}\n{output}"
        return output

    @staticmethod
    def _read(terminal):
        try:
            return os.read(terminal, 4096)
        except OSError:  # The last program has closed it.
            return b""

    def start_sandbox(self):
        """Starts BondMCP's stand-in, once the program is installed."""
        command = f"exec bondmcp-server sandbox --listen 127.0.0.1:{self.port}"
        self._sandbox = subprocess.Popen(
            ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment
        )
        self._sandbox.stdout.readline()

    def list_models(self, server):
        """Calls `list_models` with a host's entry for the server, as the Inspector does."""
        given = server.get("env", {}) | {"BONDMCP_BASE_URL": self.environment["BONDMCP_BASE_URL"]}
        variables = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
        command = shlex.join([*variables, server["command"], *server["args"]])
        answer = self.run(f"mcp-inspector --cli {command} --method tools/call --tool-name list_models")
        assert "sandbox-general-1" in answer, answer

    def claude_code(self):
        """Has Claude Code connect to the server, and returns the entry that it is configured with."""
        listed = self.run("claude mcp list | cat")
        assert re.search(r"bondmcp: .*Connected", listed), listed
        configuration = json.loads((self.home / ".claude.json").read_text(encoding="utf-8"))
        scopes = [configuration, *configuration.get("projects", {}).values()]
        (server,) = [scope["mcpServers"]["bondmcp"] for scope in scopes if "bondmcp" in scope.get("mcpServers", {})]
        return server
