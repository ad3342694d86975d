"""Claude Code's dialog in a terminal of 80 columns: `dialog.py BINARY BASE_URL`. It must show the code and the link; a
person who says too early that they are done is shown both again; and the call ends by itself once they are."""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import struct
import sys
import tempfile
import termios
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))

from hosts import ClaudeCode, environment
from model import DONE, Model
from person import SECRETS, sign_in

TIME = 60
TRIES = 12
ENTER = b"\r"


def session():
    told = yield "list_models", {}
    assert "sandbox-general-1" in told, told


class Interactive(ClaudeCode):
    def configure(self):
        # What its first start asks the person.
        trusted = {str(self.home): {"hasTrustDialogAccepted": True}}
        key = {"approved": ["none"], "rejected": []}
        self.write({"hasCompletedOnboarding": True, "customApiKeyResponses": key, "projects": trusted})


class Terminal:
    def __init__(self, command, environment, directory):
        self.screen, self.seen = "", 0
        self.child, self.file = pty.fork()
        if self.child == 0:
            os.chdir(directory)
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))

    def type(self, keys, pattern):
        """Types until it has the effect: a dialog that has just appeared takes no keys yet."""
        for _ in range(TRIES):
            os.write(self.file, keys)
            try:
                return self.wait_for(pattern, TIME / TRIES)
            except TimeoutError as late:
                failure = late
        raise failure

    def wait_for(self, pattern, at_most=TIME):
        """Waits for a text after what was waited for last; blanks do not count, since the cursor skips them."""
        until = time.monotonic() + at_most
        while not (found := re.search(pattern, self.screen[self.seen :])):
            if time.monotonic() > until:
                raise TimeoutError(f"{pattern} does not appear: {self.screen[-3000:]}")
            if select.select([self.file], [], [], 1)[0]:
                text = os.read(self.file, 1 << 16).decode(errors="replace")
                text = re.sub(r"\x1b\[[0-9;?<>=]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b.", "", text)
                self.screen += re.sub(r"\s", "", text)
        self.seen += found.end()
        return found

    def close(self):
        os.kill(self.child, 9)
        os.waitpid(self.child, 0)
        os.close(self.file)


with tempfile.TemporaryDirectory() as home:
    model, kept = Model(session()), pathlib.Path(home, "protocol")
    host = Interactive(home, model.url)
    host.install(sys.argv[1], ["--base-url", sys.argv[2], "--data-dir", f"{home}/data"], kept)
    _, variables = host.command()
    variables = {**environment(home), **variables, "TERM": "xterm-256color", "DISABLE_AUTOUPDATER": "1"}
    del variables["CI"]
    terminal = Terminal(["claude", "--allowedTools", "mcp__bondmcp"], variables, home)
    try:
        terminal.wait_for("automodeon")
        terminal.type(b"go", "go")
        first = terminal.type(ENTER, r"Code(\w{3}-\w{3}):.*?(http://127\.0\.0\.1:\d+/[\w-]{43}).*?I'mdone")
        terminal.type(ENTER, "Openagain")
        again = terminal.type(ENTER, r"Code(\w{3}-\w{3}):youarenot.*?(http://127\.0\.0\.1:\d+/[\w-]{43}).*?I'mdone")
        assert again.groups() == first.groups()
        sign_in(first[2])
        terminal.type(ENTER, "Openagain")
        terminal.type(ENTER, DONE)
    finally:
        terminal.close()
        model.close()
    if model.failure:
        raise model.failure
    assert model.finished
    found = SECRETS.search("\n".join([kept.read_text(), terminal.screen, json.dumps(model.told)]))
    assert not found, f"a secret was seen: {found}"
    print("Claude Code, its dialog: ok")
