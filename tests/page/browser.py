"""Headless Chromium through chromedriver: the commands that the checks of the sign-in page need (W3C WebDriver)."""

import base64
import json
import re
import subprocess
import time
import urllib.request

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FACES = [(width, scheme) for width in (360, 1000) for scheme in ("light", "dark")]


def until(condition, problem):
    deadline = time.monotonic() + 60
    while not (outcome := condition()):
        assert time.monotonic() < deadline, problem()
        time.sleep(0.1)
    return outcome


class Browser:
    """A browser that checks each page that it is told to. `axe` is the source of axe-core, `pictures` a directory, `flags`
    are further ones for Chromium."""

    def __init__(self, axe, pictures, flags=()):
        self.axe, self.pictures = axe, pictures
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        port = next(m[1] for line in self.driver.stdout if (m := re.search(r"on port (\d+)\.", line)))
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"goog:chromeOptions": {"args": [*FLAGS, "--window-size=1000,1000", *flags]}}
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

    def devtools(self, command, **parameters):
        return self.do("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self.do("/url", {"url": url})

    def element(self, css):
        return self.do("/element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css, text):
        element = self.element(css)
        self.do(f"/element/{element}/clear", {})
        self.do(f"/element/{element}/value", {"text": text})

    def click(self, css):
        self.do(f"/element/{self.element(css)}/click", {})

    def choose(self, form):
        self.click(f"a[href$='/{form}']")
        self.wait_for_script(f"document.querySelector(\"form[action$='/{form}']\")")

    def send(self, form):
        self.click(f"form[action$='/{form}'] > button")

    def script(self, body):
        return self.do("/execute/sync", {"script": body, "args": []})

    def text(self):
        # In one step: an element that was found may be gone by the next one, when a page follows on another.
        return self.script("return document.body?.innerText ?? ''")

    def wait_for(self, words):
        until(lambda: words in self.text(), self.text)

    def wait_for_script(self, condition):
        until(lambda: self.script(f"return Boolean({condition})"), lambda: f"{condition}: {self.text()}")

    def face(self, width, scheme):
        """Shows the page at another width and in another colour scheme."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path, width=640, scheme="light"):
        """Takes a picture of the whole page."""
        self.face(width, scheme)
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def check(self, name):
        """Checks the page for accessibility, wide and narrow, light and dark, and that it fits its width."""
        for width, scheme in FACES:
            self.picture(self.pictures / f"{name}-{width}-{scheme}.png", width, scheme)
            place = f"{name}, {width} px, {scheme}"
            assert self.script("return document.documentElement.scrollWidth <= innerWidth"), f"{place}: too wide"
            self.script(self.axe)
            run = "const done = arguments[0]; axe.run({runOnly: %s}).then(r => done(r.violations))" % json.dumps(RULES)
            found = self.do("/execute/async", {"script": run, "args": []})
            told = [f"{v['id']}: {v['help']}: {[n['html'] for n in v['nodes']]}" for v in found]
            assert not found, f"{place}: {told}"
