"""A real browser on the sign-in page: `browser.py DIRECTORY COMMAND…` starts the server, signs in with headless Chromium
and leaves pictures of the page in DIRECTORY for a person to look at."""

import base64
import json
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

pictures = pathlib.Path(sys.argv[1])
pictures.mkdir(parents=True, exist_ok=True)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """The few WebDriver commands that are needed (W3C WebDriver)."""

    def __init__(self, *flags):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        port = next(m[1] for line in self.driver.stdout if (m := re.search(r"on port (\d+)\.", line)))
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"goog:chromeOptions": {"args": FLAGS + list(flags)}}
        self.base += "/" + self.do("", {"capabilities": {"alwaysMatch": options}})["sessionId"]

    def do(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"})
        return json.load(urllib.request.urlopen(request))["value"]

    def element(self, css):
        return self.do("/element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css, text):
        self.do(f"/element/{self.element(css)}/value", {"text": text})

    def click(self, css):
        self.do(f"/element/{self.element(css)}/click", {})

    def text(self):
        # In one step: an element that was found may be gone by the next one, when a page follows on another.
        return self.do("/execute/sync", {"script": "return document.body?.innerText ?? ''", "args": []})

    def wait_for(self, words):
        deadline = time.monotonic() + 60
        while words not in self.text():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def picture(self, name):
        (pictures / f"{name}.png").write_bytes(base64.b64decode(self.do("/screenshot")))

    def close(self):
        urllib.request.urlopen(urllib.request.Request(self.base, method="DELETE"))
        self.driver.terminate()
        self.driver.wait()


class Server:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen = []
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "browser test", "version": "1"}}
        self.ask("initialize", hello)

    def ask(self, method, params):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
        self.process.stdin.flush()
        self.seen.append(self.process.stdout.readline())
        return json.loads(self.seen[-1])["result"]

    def call(self, tool):
        return self.ask("tools/call", {"name": tool, "arguments": {}})

    def end(self):
        self.process.stdin.close()
        assert self.process.wait() == 0
        assert "demo-password-1" not in "".join(self.seen)


server = Server(sys.argv[2:])
link = server.call("login")["structuredContent"]["sign_in_url"]

for name, flags in {"light": [], "dark": ["--blink-settings=preferredColorScheme=0"], "narrow": []}.items():
    browser = Browser(f"--window-size={400 if name == 'narrow' else 800},1000", *flags)
    browser.do("/url", {"url": link})
    browser.wait_for("Sign in to BondMCP")
    browser.picture(name)
    if name != "narrow":
        browser.close()

browser.type("#sign-in-email", "demo@example.com")
browser.type("#sign-in-password", "not-the-password-1")
browser.click("form[action$='/sign-in'] button")
browser.wait_for("did not accept")
browser.picture("error")
browser.type("#sign-in-password", "demo-password-1")
browser.click("form[action$='/sign-in'] button")
browser.wait_for("You are signed in")
browser.picture("signed-in")
browser.close()

assert server.call("list_models")["structuredContent"]["count"] == 3
server.end()
print("Chromium on the sign-in page: ok")
