"""A command in a terminal of its own, whose person opens the addresses that it shows."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

# Escape sequences: of colours and cursors, and of links and titles.
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def run(command, environment, directory, authorize=None, visit=None, limit=120):
    """Runs a command to its end; returns what it showed. The first address that
    begins with `authorize` is visited; without `visit`, the command is ended there, and the address returned."""
    own, theirs = pty.openpty()
    # Wide, so that no address is broken.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
    process = subprocess.Popen(command, env=environment, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs,
                               start_new_session=True)
    os.close(theirs)
    shown, visited, deadline = b"", False, time.monotonic() + limit
    try:
        while True:
            assert time.monotonic() < deadline, f"{command[0]} did not end: {plain(shown)}"
            if select.select([own], [], [], 0.2)[0]:
                try:
                    part = os.read(own, 65536)
                except OSError:
                    part = b""
                if not part:
                    break
                shown += part
            elif process.poll() is not None:
                break
            if authorize and not visited and (url := re.search(re.escape(authorize) + r"\S+(?=\s)", plain(shown))):
                if visit is None:
                    return url[0]
                visited = True
                visit(url[0])
        status = process.wait(timeout=max(1, deadline - time.monotonic()))
        assert status == 0, f"{command} ended with {status}: {plain(shown)}"
        assert visited or not authorize, f"{command[0]} showed no address: {plain(shown)}"
        return plain(shown)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(own)


def plain(shown):
    return ESCAPES.sub("", shown.decode(errors="replace"))
