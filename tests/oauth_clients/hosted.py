"""A hosted server of its own behind a tap, with an embedded BondMCP, everything logged."""

import base64
import hashlib
import json
import os
import pathlib
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import serialization

import terminal
from browsers import PASSWORD
from tap import Tap, tls

# The embedded BondMCP tells the person how to sign in to it.
TOLD = re.compile(r"Demo account: .*")
# What BondMCP gives to the server: sessions and keys.
UPSTREAM = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}|bcp_[\w-]{12,}")


class Server:
    def __init__(self, binary, directory, secure=False, flags=()):
        self.binary, self.directory = binary, pathlib.Path(directory)
        self.directory.mkdir()
        self.client_secrets = {}
        context, self.authority = tls(self.directory) if secure else (None, None)
        self.tap = Tap(context)
        self.origin = f"{'https' if secure else 'http'}://localhost:{self.tap.port}"
        self.url = f"{self.origin}/mcp"
        self.log = self.directory / "log"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "BONDMCP_LOG": "trace"}
        command = [binary, "http", "--sandbox", "--public-url", self.origin, "--listen", "127.0.0.1:0", *flags]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not (found := re.search(r"listening on 127\.0\.0\.1:(\d+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        self.tap.target = int(found[1])

    def client_context(self):
        """What trusts the authority of this server, and no other."""
        return self.authority and ssl.create_default_context(cafile=self.authority)

    def spki_hash(self):
        """The hash by which Chromium knows the key of this server's certificate."""
        if not self.authority:
            return None
        certificate = x509.load_pem_x509_certificate((self.directory / "server.pem").read_bytes())
        form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return base64.b64encode(hashlib.sha256(certificate.public_key().public_bytes(*form)).digest()).decode()

    def examine(self):
        """Lets `doctor` look at the server as hosts find it; returns how many checks there were."""
        trusted = {"SSL_CERT_FILE": str(self.authority)} if self.authority else {}
        command = [self.binary, "doctor", "--json", "--public-url", self.origin]
        done = subprocess.run(command, env=self.environment | trusted, capture_output=True, text=True, timeout=120)
        checks = json.loads(done.stdout)["checks"]
        failed = [check for check in checks if check["status"] == "fail"]
        assert done.returncode == 0 and not failed, (failed, done.stderr)
        return len(checks)

    def add_client(self, name, redirect_uri, confidential=False):
        """Adds a client as an operator does; returns its id. A secret is shown on a terminal only, and kept for `credentials`."""
        vault = str(self.directory / ".local/share/bondmcp-server/sandbox")
        command = [self.binary, "--data-dir", vault, "clients", "add", name, "--redirect-uri", redirect_uri,
                   "--public-url", self.origin, *(["--confidential"] if confidential else [])]
        shown = terminal.run(command, self.environment, self.directory)
        client = re.search(r"Client id: (\S+)", shown)[1]
        if confidential:
            self.client_secrets[client] = shown.split()[-1]
        return client

    def credentials(self, client):
        """What a client sends at /token and /revoke in its form."""
        secret = self.client_secrets.get(client)
        return {"client_id": client} | ({"client_secret": secret} if secret else {})

    def post(self, path, body, **headers):
        """Asks the server itself; returns the status and what it answers."""
        url = f"http://127.0.0.1:{self.tap.target}{path}"
        request = urllib.request.Request(url, body, {"host": urllib.parse.urlsplit(self.origin).netloc, **headers})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def live_tokens(self):
        """The access tokens that were given out and are still good."""
        return [token for token in self.tap.access_tokens() if self.is_good(token)]

    def is_good(self, token):
        accept = "application/json, text/event-stream"
        ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
        status, _ = self.post("/mcp", ping, authorization=f"Bearer {token}", accept=accept, **{"content-type": "application/json"})
        return status != 401

    def revoke_all(self):
        """Ends all grants, for clients that do not (RFC 7009)."""
        for token in self.live_tokens():
            claims = token.split(".")[1]
            client = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["client_id"]
            body = urllib.parse.urlencode({"token": token, **self.credentials(client)}).encode()
            assert self.post("/revoke", body)[0] == 200
        assert not self.live_tokens(), "a revoked token is still good"

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.tap.close()

    def search_log(self):
        """No secret that passed is in the log, plain or encoded; returns how many there were, and the lines of the log."""
        log = TOLD.sub("", self.log.read_text())
        assert " DEBUG " in log and "bondmcp_server::hosted::trace" in log, "the log is not a full one"
        secrets = self.tap.secrets() | set(self.client_secrets.values())
        found = UPSTREAM.search(log)
        assert not found, f"a secret of BondMCP's is in the log: {found[0][:8]}…"
        for secret in secrets | {PASSWORD}:
            whole = urllib.parse.unquote(secret).encode()
            encoded = [base64.b64encode(b"x" * shift + whole).decode()[4:-4] for shift in range(3)]
            for form in {secret, urllib.parse.unquote(secret), whole.hex(), *encoded}:
                assert form not in log, f"a secret is in the log: {secret[:6]}…, {log[max(0, log.index(form) - 200):][:200]}"
        return len(secrets), len(log.splitlines())
