"""Every state of the sign-in page in Chromium: `walk.py BINARY TOOLS [DOCS]`. TOOLS holds axe-core from npm and receives
pictures of every state; DOCS receives those of the documentation."""

import json
import pathlib
import re
import subprocess
import sys
import urllib.request

from browser import Browser
from hosted import connecting_apps, signing_in_hosted, signing_in_hosted_without_scripts
from server import Server

TOOLS = pathlib.Path(sys.argv[2])
DOCS = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
AXE = (TOOLS / "node_modules/axe-core/axe.min.js").read_text()
PICTURES = TOOLS / "pictures"
DEMO = {"email": "demo@example.com", "password": "demo-password-1"}
NEW = {"email": "new@example.com", "password": "a-canary-of-a-password-1"}
TELL = "You can close this tab. Then tell your assistant that you have signed in."


def browser():
    return Browser(AXE, PICTURES)


def post(url, body, bearer=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)))


def fill(page, form, email, password):
    page.type("#email", email)
    page.type("#password", password)
    page.send(form)


def refused(page, field, words):
    """The page's title, the focus and the field's description say what is wrong."""
    page.wait_for(words)
    assert page.script("return document.title").startswith("Error: ")
    assert page.script("return document.activeElement.id") == field
    assert page.script("return document.activeElement.getAttribute('aria-invalid')") == "true"
    described = "return document.activeElement.getAttribute('aria-describedby').split(' ')" \
                ".map(id => document.getElementById(id).textContent).join(' ')"
    assert words in page.script(described)


def looking():
    server = Server()
    with browser() as page:
        page.open(server.link())
        page.wait_for("This page is served by bondmcp-server on your own computer.")
        assert "Browser Test" not in page.text()
        page.check("sign-in")
        if DOCS:
            page.picture(DOCS / "sign-in.png")
        page.script("document.querySelectorAll('details').forEach(folded => folded.open = true)")
        for words in ["“Browser Test” (name not verified)", "awsapprunner.com/mcp", "10 minutes", "Only BondMCP can reset it"]:
            page.wait_for(words)
        page.check("details")
        page.choose("create")
        page.wait_for("At least 8 characters, with a letter and a digit.")
        page.check("create")
        if DOCS:
            page.picture(DOCS / "create-account.png")
        page.choose("key")
        page.check("key")
        page.choose("sign-in")
        # The checks see what is wrong.
        page.script("document.querySelector('main').append(document.createElement('input'))")
        try:
            page.check("with-a-fault")
        except AssertionError as error:
            assert "label" in str(error), error
        else:
            raise AssertionError("axe overlooks an input without a label")
    server.end()


def signing_in():
    server = Server("--sandbox")
    with browser() as page:
        page.open(server.link())
        page.wait_for("This is the sandbox")
        page.check("sandbox")
        page.type("#password", "typed")
        page.click("button[data-shows=password]")
        assert page.script("return password.type") == "text"
        page.check("password-shown")
        page.click("button[data-shows=password]")
        assert page.script("return password.type") == "password"
        fill(page, "sign-in", DEMO["email"], "not-the-password-1")
        refused(page, "password", "Wrong e-mail or password. 4 attempts left.")
        page.check("wrong-password")
        page.type("#password", DEMO["password"])
        page.send("sign-in")
        page.wait_for("Signed in as demo@example.com")
        page.wait_for(TELL)
        page.check("signed-in")
    server.works()
    server.end(DEMO["password"], "not-the-password-1")


def using_up_the_attempts():
    server = Server("--sandbox")
    with browser() as page:
        page.open(server.link())
        for left in ["4 attempts left", "3 attempts left", "2 attempts left", "1 attempt left", "Too many failed attempts"]:
            fill(page, "sign-in", DEMO["email"], "not-the-password-1")
            page.wait_for(left)
        page.check("too-many")
        page.open(server.link().rsplit("/", 1)[0] + "/unknown")
        page.wait_for("This link isn't valid")
        page.check("unknown")
    server.end("not-the-password-1")


def using_the_demo_account():
    server = Server("--sandbox")
    with browser() as page:
        page.open(server.link())
        page.send("demo")
        page.wait_for("Signed in as demo@example.com")
    server.works()
    server.end(DEMO["password"])
    again = Server("--sandbox", directory=server.directory)
    again.works()
    again.end(DEMO["password"])


def creating_an_account():
    server = Server("--sandbox")
    with browser() as page:
        page.open(server.link("register", email="wrong@example.com"))
        page.wait_for("Create a BondMCP account")
        assert page.script("return email.value") == "wrong@example.com"
        fill(page, "create", DEMO["email"], NEW["password"])
        refused(page, "email", "This e-mail already has an account. Sign in instead.")
        page.check("e-mail-taken")
        fill(page, "create", "wrong@example.com", "no-digits-here")
        refused(page, "password", "Password needs at least 8 characters, a letter and a digit.")
        page.check("weak-password")
        fill(page, "create", "wrong@example.com", NEW["password"])
        page.wait_for("Check your e-mail")
        page.check("waiting")
        page.send("check")
        page.wait_for("BondMCP has not confirmed the address yet.")
        page.check("not-verified-yet")
        page.send("back")
        page.wait_for("Create a BondMCP account")
        assert page.script("return email.value") == "wrong@example.com"
        fill(page, "create", **{"email": NEW["email"], "password": NEW["password"]})
        page.wait_for("Check your e-mail")
        urllib.request.urlopen(page.script("return document.querySelector('main a').href"))
        page.wait_for("Signed in as new@example.com")
    server.works()
    server.end(NEW["password"])


def doing_without_scripts():
    server = Server("--sandbox")
    with browser() as page:
        page.devtools("Emulation.setScriptExecutionDisabled", value=True)
        page.open(server.link("register"))
        assert page.script("return document.querySelector('[data-shows]').hidden")
        fill(page, "create", NEW["email"], NEW["password"])
        page.wait_for("Check your e-mail")
        urllib.request.urlopen(page.script("return document.querySelector('main a').href"))
        page.send("check")
        page.wait_for("Signed in as new@example.com")
    server.works()
    server.end(NEW["password"])


def using_a_key():
    server = Server("--sandbox")
    base = server.told(r"BondMCP sandbox at (\S+)")
    token = post(f"{base}/auth/login", DEMO)["access_token"]
    key = post(f"{base}/auth/api-keys", {"name": "from elsewhere"}, token)["api_key"]
    with browser() as page:
        page.open(server.link())
        page.choose("key")
        page.type("#key", "bcp_not_a_key")
        page.send("key")
        refused(page, "key", "BondMCP does not accept this API key. 4 attempts left.")
        page.check("wrong-key")
        page.type("#key", key)
        page.send("key")
        page.wait_for("You are signed in")
    server.works()
    server.end(key)


def waiting_for_a_call():
    server = Server("--sandbox", elicitation=True)
    server.send({"id": 2, "method": "tools/call", "params": {"name": "list_models", "arguments": {}}})
    question = server.receive(lambda message: message.get("method") == "elicitation/create")
    with browser() as page:
        page.open(question["params"]["url"])
        server.send({"id": question["id"], "result": {"action": "accept"}})
        page.send("demo")
        page.wait_for("You can close this tab. Your assistant continues by itself.")
    answer = server.receive(lambda message: message.get("id") == 2)
    assert answer["result"]["structuredContent"]["count"] == 3
    server.end(DEMO["password"])


def meeting_an_outage():
    sandbox = subprocess.Popen([Server.binary, "sandbox", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    base = re.search(r"http://\S+", sandbox.stdout.readline())[0]
    server = Server(base_url=base)
    with browser() as page:
        page.open(server.link())
        page.wait_for("instead of BondMCP's standard address")
        page.check("custom-address")
        sandbox.terminate()
        sandbox.wait()
        fill(page, "sign-in", DEMO["email"], DEMO["password"])
        page.wait_for("Cannot connect to")
        assert page.script("return document.activeElement.getAttribute('role')") == "alert"
        page.check("outage")
        server.end(DEMO["password"])
        page.wait_for("This page no longer works")
        page.check("server-ended")


def expiring():
    server = Server("--sandbox", "--sign-in-timeout", "5")
    with browser() as page:
        page.open(server.link())
        page.wait_for("This sign-in link has expired")
        page.check("expired")
    server.end()


def being_framed():
    server = Server("--sandbox")
    with browser() as page:
        page.open(f"data:text/html,<iframe src='{server.link()}'></iframe>")
        page.do("/frame", {"id": 0})
        assert "BondMCP" not in page.text(), page.text()
    server.end()


def signing_in_on_a_hosted_server():
    signing_in_hosted(browser, fill, DEMO, NEW)


def signing_in_on_a_hosted_server_without_scripts():
    signing_in_hosted_without_scripts(browser, DEMO)


def connecting_apps_to_a_hosted_server():
    connecting_apps(browser, DEMO)


PICTURES.mkdir(parents=True, exist_ok=True)
for check in [looking, signing_in, using_up_the_attempts, using_the_demo_account, creating_an_account,
              doing_without_scripts, using_a_key, waiting_for_a_call, meeting_an_outage, expiring, being_framed,
              signing_in_on_a_hosted_server, signing_in_on_a_hosted_server_without_scripts,
              connecting_apps_to_a_hosted_server]:
    check()
    print(f"Chromium, {check.__name__.replace('_', ' ')}: ok", flush=True)
