"""A hosted server on loopback, with the sandbox as its BondMCP."""

import json
import re
import socket
import subprocess
import tempfile
import threading
import urllib.parse
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

    def authorization(self, name, redirect_uri):
        """Registers a client; returns the address at which it asks for everything."""
        body = json.dumps({"client_name": name, "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"})
        request = urllib.request.Request(f"{self.origin}/register", body.encode(), {"content-type": "application/json"})
        client = json.load(urllib.request.urlopen(request))["client_id"]
        query = {"response_type": "code", "client_id": client, "redirect_uri": redirect_uri, "state": "the-state",
                 "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "code_challenge_method": "S256"}
        return f"{self.origin}/authorize?{urllib.parse.urlencode(query)}"

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


def connecting_apps(browser, demo):
    """Consent, the list of apps, and what either says of a wrong amount."""
    server = HostedServer()
    connections = f"{server.origin}/connections"

    def check(page, name):
        page.check(name)
        page.face(360, "light")
        # WCAG 2.5.8; a link within a sentence is exempt.
        small = page.script("return [...document.querySelectorAll('.action a, button')]"
                            ".filter(each => each.getBoundingClientRect().height < 24).map(each => each.outerHTML)")
        assert not small, f"{name}: {small}"
        if name.startswith("consent"):
            # Whoever is deceived by the name sees where the answer goes.
            larger = page.script("const size = each => parseFloat(getComputedStyle(each).fontSize);"
                                 "const least = size(document.querySelector('.destination strong'));"
                                 "return [...document.querySelectorAll('main *')]"
                                 ".filter(each => size(each) > least).map(each => each.outerHTML)")
            assert not larger, f"{name}: {larger}"

    def come_to(page, url, words):
        """Opens a page, over the sign-in page: agreeing uses up the sign-in."""
        page.open(url)
        page.wait_for("Use the demo account")
        page.send("demo")
        page.wait_for(words)

    # Nothing of the apps runs: nobody answers on loopback, and nothing opens the scheme.
    with browser() as page:
        come_to(page, server.authorization("A program", "http://127.0.0.1:9/callback"), "Connect “A program”?")
        check(page, "consent-loopback")
        page.type("#daily-limit", "1,50")
        page.click("button[value=allow]")
        page.wait_for("at most 1000000")
        assert page.script("return document.title").startswith("Error: ")
        check(page, "consent-wrong-amount")
        page.type("#daily-limit", "1.50")
        page.click("button[value=allow]")
        until(lambda: not any(words in page.text() for words in ["Connect “", "Connecting…"]), page.text)
    with browser() as page:
        come_to(page, server.authorization("A phone", "cursor://anysphere.cursor-mcp/callback"), "Connect “A phone”?")
        check(page, "consent-device")
        page.click("button[value=allow]")
        page.wait_for("Return to the app")
        check(page, "return-to-the-app")
    with browser() as page:
        come_to(page, connections, "cursor:, an app on your device")
        check(page, "connections")
        page.type("input[name=budget]", "1,50")
        page.click("form[action$='/budget'] button")
        page.wait_for("at most 1000000")
        assert page.script("return document.title").startswith("Error: ")
        assert page.script("return document.activeElement.value") == "1,50"
        check(page, "connections-wrong-amount")
        page.type("input[aria-invalid]", "2")
        page.click("input[aria-invalid] + button")
        page.wait_for("The budget of A phone is saved.")
        page.click("a[href='/connections/revoke']")
        page.wait_for("Disconnect 2 apps?")
        check(page, "disconnect")
        page.click("form[action='/connections/revoke'] button")
        page.wait_for("2 apps are disconnected.")
        check(page, "connections-empty")
        page.send("sign-out")
        page.wait_for("You are signed out")
        check(page, "signed-out")
    server.end(demo["password"])
