"""A hosted server on loopback, with the sandbox as its BondMCP."""

import re
import socket
import subprocess
import tempfile
import threading
import urllib.request

from browser import until
from server import Server


class HostedServer:
    """`http --sandbox --public-url`, as in a trial."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.origin = f"http://localhost:{port}"
        environment = {"BONDMCP_DATA_DIR": self.directory.name, "BONDMCP_LOG": "trace", "BONDMCP_SEALING_KEY": "ab" * 32}
        flags = ["--sandbox", "--public-url", self.origin, "--listen", f"127.0.0.1:{port}"]
        self.process = subprocess.Popen([Server.binary, "http", *flags], stderr=subprocess.PIPE, text=True,
                                        env=environment)
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()
        until(lambda: "Serving MCP" in "".join(list(self.log)), lambda: "".join(self.log))

    def end(self, *secrets):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        for secret in secrets:
            # The trial tells the person the demo account's password.
            log = re.sub(r"Demo account:.*", "", "".join(self.log))
            assert secret not in log, "a secret occurs in the log"


def signing_in_hosted(browser, fill, demo, new):
    server = HostedServer()
    connections = f"{server.origin}/connections"
    with browser() as page:
        page.open(connections)
        page.wait_for("Sign in to BondMCP")
        link = page.script("return location.href")
        page.check("hosted-sign-in")
        fill(page, "sign-in", demo["email"], "not-the-password-1")
        page.wait_for("Wrong e-mail or password. 4 attempts left.")
        page.check("hosted-wrong-password")
        page.choose("create")
        page.check("hosted-create")
        fill(page, "create", new["email"], new["password"])
        page.wait_for("Check your e-mail")
        page.check("hosted-waiting")
        page.type("#password", new["password"])
        page.send("sign-in")
        page.wait_for("has not confirmed the e-mail address yet")
        page.check("hosted-not-verified-yet")
        urllib.request.urlopen(page.script("return document.querySelector('main a').href"))
        page.type("#password", new["password"])
        page.send("sign-in")
        until(lambda: page.script("return location.href") == connections, page.text)
    with browser() as another:
        another.open(link)
        another.wait_for("This page belongs to another browser")
        another.check("hosted-other-browser")
    server.end(new["password"], "not-the-password-1")


def signing_in_hosted_without_scripts(browser, demo):
    server = HostedServer()
    connections = f"{server.origin}/connections"
    with browser() as page:
        page.devtools("Emulation.setScriptExecutionDisabled", value=True)
        page.open(connections)
        page.wait_for("This is the sandbox")
        page.send("demo")
        until(lambda: page.script("return location.href") == connections, page.text)
    server.end(demo["password"])
