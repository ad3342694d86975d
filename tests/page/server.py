"""bondmcp-server as a host runs it, with a record of everything that the host and its log see."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.parse

from browser import until

# The embedded BondMCP tells the person how to sign in to it.
TOLD = "Demo account: demo@example.com, password demo-password-1"


class Server:
    """A server without a signed-in account. `directory` holds the data of an earlier one."""

    binary = sys.argv[1]

    def __init__(self, *flags, directory=None, elicitation=False, base_url=None):
        self.directory = directory or tempfile.TemporaryDirectory()
        environment = {**os.environ, "BONDMCP_DATA_DIR": self.directory.name, "BONDMCP_LOG": "trace"}
        if base_url:
            environment["BONDMCP_BASE_URL"] = base_url
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([self.binary, "stdio", *flags], stdin=pipe, stdout=pipe, stderr=pipe,
                                        text=True, env=environment)
        self.seen, self.log = [], []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()
        capabilities = {"elicitation": {"url": {}}} if elicitation else {}
        self.ask("initialize", {"protocolVersion": "2025-11-25" if elicitation else "2025-06-18",
                                "capabilities": capabilities, "clientInfo": {"name": "Browser Test", "version": "1"}})
        self.send({"method": "notifications/initialized"})

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def receive(self, is_wanted):
        while not is_wanted(message := json.loads(self.read())):
            pass
        return message

    def read(self):
        self.seen.append(self.process.stdout.readline())
        return self.seen[-1]

    def ask(self, method, params):
        self.send({"id": 1, "method": method, "params": params})
        return self.receive(lambda message: message.get("id") == 1)["result"]

    def call(self, tool, **arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def link(self, tool="login", **arguments):
        return self.call(tool, **arguments)["structuredContent"]["sign_in_url"]

    def told(self, pattern):
        """Waits for a match in the log and returns it."""
        return until(lambda: re.search(pattern, "".join(list(self.log))), lambda: pattern)[1]

    def works(self):
        assert self.call("list_models")["structuredContent"]["count"] == 3

    def end(self, *secrets):
        """Ends the server; neither the host nor the log may have seen one of `secrets`, plain or encoded."""
        self.process.stdin.close()
        assert self.process.wait() == 0
        self.reader.join()
        for place, text in {"what the host saw": "".join(self.seen), "the log": "".join(self.log)}.items():
            text = text.replace(TOLD, "")
            for secret in secrets:
                whole = secret.encode()
                encoded = [base64.b64encode(b"x" * shift + whole).decode()[4:-4] for shift in range(3)]
                for form in [secret, urllib.parse.quote(secret), whole.hex(), *encoded]:
                    assert form not in text, f"a secret occurs in {place}"
