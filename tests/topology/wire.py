"""HTTP/1.1 over asyncio, as much as one person's browser and apps need: one connection, from an address of its own."""

import asyncio
import dataclasses
import html.parser
import json
import urllib.parse

# Longest wait for an answer, in seconds.
PATIENCE = 90


class Lost(Exception):
    """There was no answer, or the connection ended before it was complete."""


class Stuck(Exception):
    """A page says again and again that it is at work."""


@dataclasses.dataclass
class Answer:
    status: int
    headers: list
    body: bytes

    def header(self, name):
        return next((value for key, value in self.headers if key == name), None)

    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode(errors="replace")


class Connection:
    def __init__(self, host, port, source):
        self.host, self.port, self.source = host, port, source
        self.reader = self.writer = None

    async def ask(self, method, path, headers=(), body=b""):
        try:
            return await asyncio.wait_for(self.exchange(method, path, headers, body), PATIENCE)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Lost(f"{method} {urllib.parse.urlsplit(path).path}: {error!r}") from error

    async def exchange(self, method, path, headers, body):
        if self.reader is None or self.reader.at_eof():
            self.close()
            address = (self.source, 0)
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=address)
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.host}:{self.port}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = [line.split(":", 1) for line in head[1:] if line]
        found = [(name.strip().lower(), value.strip()) for name, value in found]
        answer = Answer(int(head[0].split(" ")[1]), found, b"")
        answer.body = await self.body(answer)
        if (answer.header("connection") or "").lower() == "close":
            self.close()
        return answer

    async def body(self, answer):
        if answer.header("transfer-encoding") == "chunked":
            body = b""
            while size := int((await self.line()).split(b";")[0], 16):
                body += await self.reader.readexactly(size)
                await self.line()
            await self.line()
            return body
        if answer.status in (204, 304):
            return b""
        return await self.reader.readexactly(int(answer.header("content-length") or 0))

    async def line(self):
        return await self.reader.readuntil(b"\n")

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclasses.dataclass
class Form:
    action: str
    fields: list = dataclasses.field(default_factory=list)
    buttons: list = dataclasses.field(default_factory=list)


class Page(html.parser.HTMLParser):
    """The forms of a page, and where it goes on by itself."""

    def __init__(self, text):
        super().__init__()
        self.forms, self.refresh, self.links, self.inside = [], None, [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "form":
            self.forms.append(Form(found.get("action", "")))
            self.inside = True
        elif tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "meta" and (found.get("http-equiv") or "").lower() == "refresh":
            self.refresh = found["content"]
        elif self.inside and tag == "input":
            ticked = found.get("type") not in ("checkbox", "radio") or "checked" in found
            if ticked and found.get("name"):
                self.forms[-1].fields.append((found["name"], found.get("value") or ""))
        elif self.inside and tag == "button" and found.get("name"):
            self.forms[-1].buttons.append((found["name"], found.get("value") or ""))

    def handle_endtag(self, tag):
        if tag == "form":
            self.inside = False

    def form_with(self, name):
        """The form that has a field or a button of this name."""
        for form in self.forms:
            if any(name == found for found, _ in form.fields + form.buttons):
                return form
        return None


class Browser:
    """Follows redirects, keeps cookies, and submits forms as a browser does."""

    def __init__(self, connection, origin):
        self.connection, self.origin, self.cookies, self.path = connection, origin, {}, "/"

    async def open(self, path, fields=None, until=lambda _: False):
        """Opens a path, or posts a form to it. Returns the last answer, or the address that `until` accepts."""
        reloads = 0
        for _ in range(30):
            headers = [("accept", "text/html")]
            if self.cookies:
                headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
            body, self.path = b"", path
            if fields is not None:
                body = urllib.parse.urlencode(fields).encode()
                headers += [("content-type", "application/x-www-form-urlencoded"), ("origin", self.origin),
                            ("sec-fetch-site", "same-origin")]
            answer = await self.connection.ask("GET" if fields is None else "POST", path, headers, body)
            self.remember(answer)
            location = answer.header("location")
            if location is None:
                page = Page(answer.text)
                if page.refresh is None:
                    return answer
                reloads += 1
                if reloads > 10:
                    raise Stuck(path.rpartition("/")[2])
                wait, _, target = page.refresh.partition(";")
                await asyncio.sleep(min(float(wait), 2))
                location = target.strip().partition("=")[2] or path
            if until(location):
                return location
            url = urllib.parse.urlsplit(urllib.parse.urljoin(self.origin + path, location))
            assert f"{url.scheme}://{url.netloc}" == self.origin, f"{path} redirects to {url.netloc}"
            path, fields = urllib.parse.urlunsplit(("", "", url.path, url.query, "")), None
        raise AssertionError(f"{path} redirects without an end")

    def remember(self, answer):
        for name, value in answer.headers:
            if name == "set-cookie":
                cookie, *attributes = [part.strip() for part in value.split(";")]
                key, _, value = cookie.partition("=")
                if any(attribute.lower() == "max-age=0" for attribute in attributes):
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = value
