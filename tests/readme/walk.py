"""Walks the README as a newcomer: runs the `sh` blocks in order in a clone, and has a client call `list_models` with what
Claude Code was configured with. `walk.py TOOLS [CLONE]`, where TOOLS has the npm packages that .ci/run installs; without
CLONE the repository is cloned. The machine has Rust, a C compiler and Claude Code; what was downloaded and built already is
not made anew."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from newcomer import Newcomer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", readme, re.MULTILINE | re.DOTALL):
        yield from (line.strip() for line in block.splitlines() if line.strip())


def timed(what, step, *arguments):
    began = time.monotonic()
    outcome = step(*arguments)
    print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)
    return outcome


def cloned(directory):
    clone = directory / "bondmcp-server"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    return clone


def main(directory, tools, clone=None):
    home = directory / "home"
    home.mkdir()
    clone = clone or cloned(directory)
    real = pathlib.Path.home()
    cargo = {
        "CARGO_HOME": os.environ.get("CARGO_HOME", str(real / ".cargo")),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(real / ".rustup")),
        "CARGO_INSTALL_ROOT": str(home / ".cargo"),
        "CARGO_TARGET_DIR": str(ROOT / "target"),
    }
    steps = list(commands())
    with Newcomer(home, tools, **cargo) as newcomer:
        install, *others = steps
        timed(install, newcomer.run, install, clone)
        newcomer.start_sandbox()
        for command in others:
            timed(command, newcomer.run, command, clone)
        server = timed("Claude Code connects", newcomer.claude_code)
        timed("list_models is answered", newcomer.list_models, server)
    print(f"README: {len(steps)} commands walked: ok")


with tempfile.TemporaryDirectory() as directory:
    main(pathlib.Path(directory), *(pathlib.Path(argument).resolve() for argument in sys.argv[1:]))
