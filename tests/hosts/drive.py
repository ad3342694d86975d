"""Drives whole hosts with a scripted model: `drive.py BINARY BASE_URL [HOST…]`. In each the agent is signed out; the
person signs in as the answer says; then there is a billed call, and a key is created and revoked with confirmation.
Nothing that the host, its model or its user saw may contain a secret."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))

from hosts import HOSTS, environment
from model import DONE, Model
from person import SECRETS, link_in, run, sign_in, sign_in_by_command

HERE = pathlib.Path(__file__).parent
TIME = 120


class Person:
    """Does what the agent passes on, in a browser or in a terminal."""

    def __init__(self, variables):
        self.variables = variables
        self.told = None
        self.did = []

    def signs_in(self, told):
        self.told = told
        if link := link_in(told):
            sign_in(link)
            self.did.append("link")
        else:
            sign_in_by_command(told, self.variables)
            self.did.append("command")

    def confirms(self, told):
        run(told, self.variables, "--yes")
        self.did.append("confirmed in a terminal")


def session(person):
    """What the model calls, and what it must be told."""
    told = yield "list_models", {}
    assert "sign_in_required" in told and "Not signed in to BondMCP" in told, told
    person.signs_in(told)
    told = yield "list_models", {}
    assert "sandbox-general-1" in told, told
    told = yield "medication_check", {"medications": [{"name": "warfarin"}, {"name": "aspirin"}]}
    assert "0.03" in told, told
    told = yield "manage_api_keys", {"action": "create", "name": "of a host"}
    key_id = re.search(r"key_\w+", told)[0]
    told = yield "manage_api_keys", {"action": "revoke", "key_id": key_id}
    if "`confirm`" in told:
        told = yield "manage_api_keys", {"action": "revoke", "key_id": key_id, "confirm": "of a host"}
        assert "The key is revoked" in told, told
        person.did.append("confirm")
    else:
        assert "did not confirm" in told, told
        person.confirms(told)
        told = yield "manage_api_keys", {"action": "list"}
        assert key_id not in told, told


def drive(kind, binary, base_url):
    with tempfile.TemporaryDirectory() as home:
        kept = pathlib.Path(home, "protocol")
        person = Person(environment(home))
        model = Model(session(person))
        host = kind(home, model.url)
        host.install(binary, ["--base-url", base_url, "--data-dir", f"{home}/data"], kept)
        command, variables = host.command()
        try:
            done = subprocess.run(
                command,
                cwd=home,
                env={**environment(home), **variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIME,
            )
        except subprocess.TimeoutExpired as late:
            sys.exit(f"{kind.__name__} did not end: {late.stdout} {late.stderr} {model.failure}")
        finally:
            model.close()
        protocol = kept.read_text() if kept.exists() else ""
        if os.environ.get("KEEP"):
            pathlib.Path(os.environ["KEEP"], kind.__name__).write_text(protocol + "\n".join(model.told))
        if model.failure or not model.finished:
            sys.exit(f"{kind.__name__}: {model.failure}\n{done.stdout}\n{done.stderr}")
        assert DONE in done.stdout, done
        everything = "\n".join([protocol, done.stdout, done.stderr, *model.told])
        found = SECRETS.search(everything)
        assert not found, f"{kind.__name__} saw a secret: {found}"
        print(f"{host.title}: {', '.join(person.did)}: ok")
        return host.row(spoken(protocol), person.told)


def spoken(protocol):
    """The revision that the host speaks, and what it declares."""
    for line in protocol.splitlines():
        if line.startswith(">") and ("tools/call" in line or '"initialize"' in line):
            params = json.loads(line[1:])["params"]
            meta = {key.rsplit("/", 1)[-1]: value for key, value in params.get("_meta", {}).items()}
            capabilities = params.get("capabilities", meta.get("clientCapabilities", {}))
            return {"revision": params.get("protocolVersion", meta.get("protocolVersion")), "capabilities": capabilities}


wanted = sys.argv[3:]
rows = [drive(kind, sys.argv[1], sys.argv[2]) for kind in HOSTS if not wanted or kind.__name__ in wanted]
documented = (HERE.parent.parent / "docs" / "hosts.md").read_text()
for row in rows:
    if row not in documented:
        sys.exit("docs/hosts.md differs; the table is:\n" + "\n".join(rows))
