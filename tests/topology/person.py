"""A person with a browser and with apps that are connected to the hosted server."""

import asyncio
import base64
import hashlib
import json
import re
import secrets
import time
import urllib.parse

from wire import Browser, Connection, Lost, Page, Stuck

REDIRECT = "http://127.0.0.1:7777/callback"
# What people write, and their e-mail addresses, name them.
NAMED = re.compile(r"person-(\d+)")
VERSION = "2026-07-28"
LEGACY_VERSION = "2025-11-25"


class Refused(Exception):
    """An answer that no retry makes better."""


class App:
    """What an app knows: its registration, and the tokens of one grant."""

    def __init__(self, client_id):
        self.client_id = client_id
        self.access = self.refresh = self.session = None


class Person:
    def __init__(self, index, topology, report):
        self.index, self.report = index, report
        self.email, self.password = f"person-{index}@example.com", f"Pw1-{secrets.token_urlsafe(18)}"
        # A client address of their own: limits count by it.
        source = f"127.1.{index // 200}.{index % 200 + 1}"
        self.origin = topology.public_url
        self.connection = Connection("localhost", topology.port, source)
        self.browser = Browser(self.connection, self.origin)
        self.apps = []
        # Answered billed calls, and those whose answer was lost.
        self.billed = self.uncertain = 0
        # Consents that were cut short. A sweep revokes the key that is left of one.
        self.interrupted = 0
        # Everything that must appear in no log.
        self.secrets = {self.password}

    # HTTP

    async def ask(self, what, method, path, headers=(), body=b""):
        """Asks; what a server cannot answer now is asked again, as it says."""
        began = time.monotonic()
        until = began + 60
        while True:
            answer = await self.connection.ask(method, path, headers, body)
            wait = answer.header("retry-after")
            if answer.status not in (429, 503) or wait is None or time.monotonic() > until:
                break
            self.report.count(f"{what} asked again after {answer.status}")
            await asyncio.sleep(min(float(wait), 3))
        if answer.status in (502, 504):
            raise Lost(f"{what}: {answer.status}")
        self.report.took(what, time.monotonic() - began)
        self.check(answer.text)
        return answer

    def check(self, text):
        """Nothing in an answer is somebody else's."""
        others = {int(number) for number in NAMED.findall(text)} - {self.index}
        assert not others, f"person {self.index} sees person {others}"

    # Authorization

    async def register(self):
        registration = {"client_name": f"App of person-{self.index}", "redirect_uris": [REDIRECT],
                        "token_endpoint_auth_method": "none"}
        answer = await self.ask("register", "POST", "/register", [("content-type", "application/json")],
                                json.dumps(registration).encode())
        assert answer.status == 201, answer
        return App(answer.json()["client_id"])

    async def authorize(self, app, verifier):
        """Goes from the app to the pages and back; returns the code."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        state = secrets.token_urlsafe(9)
        query = {"response_type": "code", "client_id": app.client_id, "redirect_uri": REDIRECT, "state": state,
                 "code_challenge": challenge, "code_challenge_method": "S256", "resource": f"{self.origin}/mcp",
                 "scope": "models health keys"}
        location = await self.agree("/authorize?" + urllib.parse.urlencode(query))
        given = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))
        assert given["state"] == state and given["iss"] == self.origin, sorted(given)
        self.secrets.add(given["code"])
        return given["code"]

    async def give_up(self):
        """Agrees to an app that never asks for its tokens."""
        await self.authorize(await self.register(), secrets.token_urlsafe(48))
        self.interrupted += 1

    async def connect(self):
        """Connects a new app: registration, signing in, consent, code, tokens."""
        app = await self.register()
        began = time.monotonic()
        verifier = secrets.token_urlsafe(48)
        try:
            code = await self.authorize(app, verifier)
        except Stuck:
            # The killed replica was making the grant. The page asks again after two minutes; this person begins anew.
            assert self.interrupted, "a page is stuck though no replica was killed"
            return self.report.count("consents given up, which the killed replica was carrying out")
        redemption = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": verifier}
        try:
            await self.tokens(app, **redemption)
        except Lost as lost:
            # The code was used, and using it again ends the grant; or it was not.
            self.report.lost(lost)
            try:
                await self.tokens(app, **redemption)
            except Refused:
                return self.report.count("grants ended since their code was sent twice")
        self.report.took("connect an app", time.monotonic() - began)
        self.apps.append(app)
        return app

    async def agree(self, path, redirect=REDIRECT):
        """Goes through the pages; returns the address at which the app gets its code."""
        def is_the_apps(location):
            return location.startswith(redirect)

        fields = None
        for _ in range(10):
            try:
                answer = await self.browser.open(path, fields, is_the_apps)
                if isinstance(answer, str):
                    return answer
                self.page(answer)
            except Lost as lost:
                # As a person reloads the page.
                self.report.lost(lost)
                self.interrupted += fields is not None and ("decision", "allow") in fields
                path, fields = self.browser.path, None
                continue
            page = Page(answer.text)
            if form := page.form_with("password"):
                fields = dict(form.fields) | {"email": self.email, "password": self.password}
            elif form := page.form_with("decision"):
                fields = [*form.fields, ("decision", "allow")]
            else:
                text = re.sub(r"<[^>]*>|\s+", " ", answer.text)
                raise Refused(f"an unexpected page, status {answer.status}: {text}")
            path = form.action
        raise Refused("the pages have no end")

    def page(self, answer):
        if answer.status in (502, 504):
            raise Lost(f"page: {answer.status}")
        self.check(answer.text)

    async def tokens(self, app, **fields):
        body = urllib.parse.urlencode({"client_id": app.client_id, **fields}).encode()
        answer = await self.ask(fields["grant_type"], "POST", "/token",
                                [("content-type", "application/x-www-form-urlencoded")], body)
        if answer.status != 200:
            raise Refused(f"{fields['grant_type']}: {answer.status} {answer.text}")
        tokens = answer.json()
        app.access, app.refresh = tokens["access_token"], tokens.get("refresh_token", app.refresh)
        self.secrets |= {app.access, app.refresh}

    async def renew(self, app):
        """Refreshes; an app whose answer was lost asks again with the token that it has."""
        for _ in range(5):
            try:
                return await self.tokens(app, grant_type="refresh_token", refresh_token=app.refresh)
            except Lost as lost:
                self.report.lost(lost)
        raise Refused("a refresh was lost five times")

    async def revoke(self, app):
        self.apps.remove(app)
        body = urllib.parse.urlencode({"token": app.refresh, "client_id": app.client_id}).encode()
        answer = await self.ask("revoke", "POST", "/revoke", [("content-type", "application/x-www-form-urlencoded")], body)
        assert answer.status == 200, answer

    async def disconnect_all(self):
        """Disconnects all apps on the page of connections."""
        answer = await self.browser.open("/connections")
        self.page(answer)
        if form := Page(answer.text).form_with("password"):
            fields = dict(form.fields) | {"email": self.email, "password": self.password}
            answer = await self.browser.open(form.action, fields)
            self.page(answer)
        path = "/connections/revoke" if len(self.apps) > 1 else next(
            link for link in Page(answer.text).links if link.endswith("/revoke"))
        answer = await self.browser.open(path)
        form = next(form for form in Page(answer.text).forms if form.action.endswith("/revoke"))
        answer = await self.browser.open(form.action, form.fields + form.buttons)
        assert answer.status == 200, answer
        self.apps.clear()

    # MCP

    async def post(self, app, what, message, headers):
        headers = [("authorization", f"Bearer {app.access}"), ("content-type", "application/json"),
                   ("accept", "application/json, text/event-stream"), *headers]
        answer = await self.ask(what, "POST", "/mcp", headers, json.dumps(message).encode())
        if answer.status == 401:
            raise Refused(f"{what}: 401 {answer.header('www-authenticate')}")
        return answer

    async def call(self, app, tool, arguments):
        """Calls a tool as apps of 2026-07-28 do: without a session."""
        meta = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                   "params": {"name": tool, "arguments": arguments, "_meta": meta}}
        headers = [("mcp-protocol-version", VERSION), ("mcp-method", "tools/call"), ("mcp-name", tool)]
        return self.result(tool, await self.post(app, tool, message, headers))

    async def call_in_session(self, app, tool, arguments):
        """Calls a tool as apps of 2025-11-25 do: a session that is gone is opened again."""
        message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        for _ in range(5):
            if app.session is None:
                await self.open_session(app)
            headers = [("mcp-session-id", app.session), ("mcp-protocol-version", LEGACY_VERSION)]
            answer = await self.post(app, f"{tool} in a session", message, headers)
            if answer.status != 404:
                return self.result(tool, answer)
            self.report.count("sessions opened again")
            app.session = None
        raise Refused("sessions do not last")

    async def open_session(self, app):
        parameters = {"protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": {"name": "topology", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters}
        answer = await self.post(app, "initialize", message, [])
        assert answer.status == 200, answer
        app.session = answer.header("mcp-session-id")
        headers = [("mcp-session-id", app.session), ("mcp-protocol-version", LEGACY_VERSION)]
        await self.post(app, "initialized", {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)

    def result(self, tool, answer):
        if answer.status != 200:
            raise Refused(f"{tool}: {answer.status} {answer.text}")
        text = answer.text
        # One message, as JSON or as an event.
        if (answer.header("content-type") or "").startswith("text/event-stream"):
            text = [line[5:] for line in text.splitlines() if line.startswith("data:") and "result" in line][-1]
        message = json.loads(text)
        result = message.get("result") or {}
        if result.get("isError") or "structuredContent" not in result:
            raise Refused(f"{tool}: {text}")
        return result["structuredContent"]

    async def status(self, app, in_session=False):
        call = self.call_in_session if in_session else self.call
        found = await call(app, "auth_status", {})
        assert self.email in json.dumps(found), f"person {self.index} is {found}"

    async def spend(self, app):
        """A billed call: it is sent once, and a lost answer may have been billed."""
        word = secrets.token_hex(12)
        self.secrets.add(word)
        prompt = f"person-{self.index} has a headache {word}"
        try:
            await self.call(app, "health_analyze", {"analysis_type": "general", "prompt": prompt})
        except Lost:
            self.uncertain += 1
            raise
        except Refused as refused:
            # The upstream may have been asked.
            self.uncertain += 1
            if "spend" in str(refused) or "upstream" in str(refused) or "internal" in str(refused):
                self.report.count(f"billed calls refused: {str(refused)[:200]}")
                return
            raise
        self.billed += 1
