"""A real browser on the sign-in page: `browser.py DIRECTORY SERVER` drives headless Chromium through each way of signing
in at a server with an embedded BondMCP, and saves pictures of the page in DIRECTORY for review."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

pictures, binary = pathlib.Path(sys.argv[1]), sys.argv[2]
pictures.mkdir(parents=True, exist_ok=True)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
DEMO = {"email": "demo@example.com", "password": "demo-password-1"}


def until(condition, problem):
    deadline = time.monotonic() + 60
    while not (outcome := condition()):
        assert time.monotonic() < deadline, problem()
        time.sleep(0.1)
    return outcome


class Browser:
    """The WebDriver commands that the checks need (W3C WebDriver)."""

    def __init__(self, width=800, flags=()):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        port = next(m[1] for line in self.driver.stdout if (m := re.search(r"on port (\d+)\.", line)))
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"goog:chromeOptions": {"args": [*FLAGS, f"--window-size={width},1100", *flags]}}
        self.base += "/" + self.do("", {"capabilities": {"alwaysMatch": options}})["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        urllib.request.urlopen(urllib.request.Request(self.base, method="DELETE"))
        self.driver.terminate()
        self.driver.wait()

    def do(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"})
        return json.load(urllib.request.urlopen(request))["value"]

    def open(self, url):
        self.do("/url", {"url": url})

    def element(self, css):
        return self.do("/element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css, text):
        self.do(f"/element/{self.element(css)}/value", {"text": text})

    def click(self, css):
        self.do(f"/element/{self.element(css)}/click", {})

    def choose(self, way):
        self.click(f"details:has(form[action$='/{way}']) > summary")

    def send(self, way):
        self.click(f"form[action$='/{way}'] button")

    def text(self):
        # In one step: an element that was found may be gone by the next one, when a page follows on another.
        return self.do("/execute/sync", {"script": "return document.body?.innerText ?? ''", "args": []})

    def wait_for(self, words):
        until(lambda: words in self.text(), self.text)

    def picture(self, name):
        (pictures / f"{name}.png").write_bytes(base64.b64decode(self.do("/screenshot")))


class Server:
    """A server without a signed-in account, whose output and log are recorded."""

    def __init__(self, *flags):
        self.directory = tempfile.TemporaryDirectory()
        environment = {**os.environ, "BONDMCP_DATA_DIR": self.directory.name, "BONDMCP_LOG": "trace"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([binary, "stdio", "--sandbox", *flags], stdin=pipe, stdout=pipe,
                                        stderr=pipe, text=True, env=environment)
        self.seen, self.log = [], []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "Browser Test", "version": "1"}}
        self.ask("initialize", hello)
        self.link = self.call("login")["structuredContent"]["sign_in_url"]

    def ask(self, method, params):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
        self.process.stdin.flush()
        self.seen.append(self.process.stdout.readline())
        return json.loads(self.seen[-1])["result"]

    def call(self, tool):
        return self.ask("tools/call", {"name": tool, "arguments": {}})

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
            for secret in secrets:
                # The embedded BondMCP tells the person how to sign in to it.
                text = text.replace("Demo account: demo@example.com, password demo-password-1", "")
                whole = secret.encode()
                encoded = [base64.b64encode(b"x" * shift + whole).decode()[4:-4] for shift in range(3)]
                for form in [secret, urllib.parse.quote(secret), whole.hex(), *encoded]:
                    assert form not in text, f"a secret occurs in {place}"
        self.directory.cleanup()


def post(url, body, bearer=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)))


def signing_in():
    server = Server()
    for name, width, flags in [("dark", 800, ["--blink-settings=preferredColorScheme=0"]), ("narrow", 400, [])]:
        with Browser(width, flags) as browser:
            browser.open(server.link)
            browser.wait_for("Sign in to BondMCP")
            browser.picture(name)
    with Browser() as browser:
        browser.open(server.link)
        browser.wait_for("“Browser Test” (name not verified)")
        browser.picture("light")
        browser.type("#sign-in-email", DEMO["email"])
        browser.type("#sign-in-password", "not-the-password-1")
        browser.send("sign-in")
        browser.wait_for("Wrong e-mail or password")
        browser.picture("error")
        browser.type("#sign-in-password", DEMO["password"])
        browser.send("sign-in")
        browser.wait_for("You are signed in")
        browser.picture("signed-in")
    server.works()
    server.end(DEMO["password"], "not-the-password-1")


def creating_an_account():
    server = Server()
    password = "a-canary-of-a-password-1"
    with Browser() as browser:
        browser.open(server.link)
        browser.choose("create")
        browser.type("#create-email", "new@example.com")
        browser.type("#create-password", password)
        browser.send("create")
        browser.wait_for("Check your e-mail")
        browser.picture("verify")
        urllib.request.urlopen(server.told(r"(http://\S+/auth/verify\S+)"))
        browser.wait_for("Signed in as new@example.com")
    server.works()
    server.end(password)


def using_a_key():
    server = Server()
    base = server.told(r"BondMCP sandbox at (\S+)")
    token = post(f"{base}/auth/login", DEMO)["access_token"]
    key = post(f"{base}/auth/api-keys", {"name": "from elsewhere"}, token)["api_key"]
    with Browser() as browser:
        browser.open(server.link)
        browser.choose("key")
        browser.type("#key", key)
        browser.picture("key")
        browser.send("key")
        browser.wait_for("You are signed in")
    server.works()
    server.end(key)


def expiring():
    server = Server("--sign-in-timeout", "5")
    with Browser() as browser:
        browser.open(server.link)
        browser.wait_for("This sign-in link has expired")
        browser.picture("expired")
    server.end()


def being_framed():
    server = Server()
    with Browser() as browser:
        browser.open(f"data:text/html,<iframe src='{server.link}'></iframe>")
        browser.do("/frame", {"id": 0})
        assert "BondMCP" not in browser.text(), browser.text()
    server.end()


for check in [signing_in, creating_an_account, using_a_key, expiring, being_framed]:
    check()
    print(f"Chromium, {check.__name__.replace('_', ' ')}: ok")
