"""A person whose browser shows the pages of the hosted server: by plain HTTP, or in Chromium."""

import http.client
import pathlib
import sys
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "topology"), str(HERE.parent / "page")]
import browser  # noqa: E402
from wire import Page  # noqa: E402

EMAIL, PASSWORD = "demo@example.com", "demo-password-1"


class Forms:
    """Signs in, agrees, and follows the way back to the app."""

    def __init__(self, server):
        self.origin, self.context, self.cookies = server.origin, server.client_context(), {}

    def visit(self, url):
        """Goes from the address that a client shows to its callback; returns the callback's answer."""
        fields, seen = None, []
        for _ in range(40):
            seen.append(urllib.parse.urlsplit(url).path)
            response, text = self.fetch(url, fields)
            fields = None
            if location := response.getheader("location"):
                url = urllib.parse.urljoin(url, location)
                continue
            page = Page(text)
            if not url.startswith(self.origin + "/"):
                assert response.status < 400, f"the callback answers {response.status}: {text[:500]}"
                return text
            if page.refresh is not None:
                wait, _, target = page.refresh.partition(";")
                time.sleep(min(float(wait), 1))
                url = urllib.parse.urljoin(url, target.strip().partition("=")[2]) if target else url
            elif form := page.form_with("password"):
                url = urllib.parse.urljoin(url, form.action)
                fields = dict(form.fields) | {"email": EMAIL, "password": PASSWORD}
            elif form := page.form_with("decision"):
                url = urllib.parse.urljoin(url, form.action)
                fields = [*form.fields, ("decision", "allow")]
            else:
                raise AssertionError(f"status {response.status}, an unexpected page: {text}")
        raise AssertionError(f"the pages have no end: {seen}")

    def fetch(self, url, fields):
        parts = urllib.parse.urlsplit(url)
        secure = parts.scheme == "https"
        connection = (http.client.HTTPSConnection(parts.hostname, parts.port, timeout=60, context=self.context) if secure
                      else http.client.HTTPConnection(parts.hostname, parts.port, timeout=60))
        headers, body = {"accept": "text/html"}, None
        ours = url.startswith(self.origin + "/")
        if ours and self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if fields is not None:
            body = urllib.parse.urlencode(fields)
            headers |= {"content-type": "application/x-www-form-urlencoded", "origin": self.origin, "sec-fetch-site": "same-origin"}
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("GET" if fields is None else "POST", target, body, headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        connection.close()
        for cookie in (response.headers.get_all("set-cookie") or []) if ours else []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return response, text


class Chromium:
    """The same in headless Chromium, which also applies the pages' Content-Security-Policy and the rules of their cookie."""

    def __init__(self, server):
        self.origin, trusted = server.origin, server.spki_hash()
        # With https the cookie has `Secure` and the prefix `__Host-`, which Chromium keeps to over TLS alone.
        self.cookie = ("__Host-bondmcp", True) if trusted else ("bondmcp", False)
        self.flags = [f"--ignore-certificate-errors-spki-list={trusted}"] if trusted else []

    def visit(self, url):
        with browser.Browser("", None, self.flags) as chromium:
            chromium.open(url)
            chromium.wait_for_script("document.querySelector(\"form[action$='/demo']\")")
            cookies = chromium.devtools("Network.getCookies", urls=[self.origin])["cookies"]
            assert [(cookie["name"], cookie["secure"]) for cookie in cookies] == [self.cookie], cookies
            chromium.send("demo")
            chromium.wait_for_script("document.querySelector('button[value=allow]')")
            chromium.click("button[value=allow]")
            chromium.wait_for_script(f"location.origin !== '{self.origin}' && document.readyState === 'complete'")
            return chromium.text()
