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
# Longest time for one command, in seconds.
LIMIT = 120


def run(command, environment, directory, authorize=None, visit=None, addresses=1):
    """Runs a command to its end; returns what it showed. The first `addresses` that begin with `authorize` are visited; without
    `visit`, the command is ended there, and the address returned. What the command has left running ends with it."""
    own, theirs = pty.openpty()
    # Wide, so that no address is broken.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
    process = subprocess.Popen(command, env=environment, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs,
                               start_new_session=True)
    os.close(theirs)
    shown, visited, deadline = b"", set(), time.monotonic() + LIMIT
    try:
        while (part := read(own)) or not has_ended(process):
            assert time.monotonic() < deadline, f"{command[0]} did not end: {plain(shown)}"
            shown += part
            if authorize and len(visited) < addresses:
                for url in set(re.findall(re.escape(authorize) + r"\S+(?=\s)", plain(shown))) - visited:
                    if visit is None:
                        return url
                    visited.add(url)
                    visit(url)
        assert not authorize or len(visited) == addresses, f"{command[0]} showed no address: {plain(shown)}"
    finally:
        # The group is there as long as nobody has waited for its leader.
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        os.close(own)
    assert status == 0, f"{command} ended with {status}: {plain(shown)}"
    return plain(shown)


def read(terminal):
    """What a terminal shows within a moment."""
    if not select.select([terminal], [], [], 0.2)[0]:
        return b""
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Nobody has it open any more.
        time.sleep(0.05)
        return b""


def has_ended(process):
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def plain(shown):
    return ESCAPES.sub("", shown.decode(errors="replace"))
