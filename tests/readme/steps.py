"""Counts the steps and measures the machine's time from a package at hand to the first answered `list_models`:
`steps.py PACKAGES TOOLS`, with what `release/run` made. The time is the machine's alone: the newcomer types at once."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from newcomer import Newcomer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def claude_code(newcomer, archive):
    newcomer.step(unpack(archive))
    newcomer.start_sandbox()
    newcomer.step("bondmcp-server install claude-code")
    newcomer.step("bondmcp-server login")
    newcomer.list_models(newcomer.claude_code())


def inspector(newcomer, archive):
    newcomer.step(unpack(archive))
    newcomer.start_sandbox()
    newcomer.step("bondmcp-server login")
    newcomer.commands += 1
    newcomer.list_models({"command": "bondmcp-server", "args": ["stdio"]})


def unpack(archive):
    folder = archive.name.removesuffix(".tar.gz")
    return f"mkdir -p ~/.local/bin && tar -xzf {archive} -C ~/.local/bin --strip-components 1 {folder}/bondmcp-server"


class Counting(Newcomer):
    commands = 0

    def step(self, command):
        self.commands += 1
        self.run(command)


def measured(host, steps, archive, tools):
    with tempfile.TemporaryDirectory() as home, Counting(pathlib.Path(home), tools) as newcomer:
        began = time.monotonic()
        steps(newcomer, archive)
        seconds = time.monotonic() - began
        print(f"{host}: {newcomer.commands} commands, {newcomer.questions} answers, {seconds:.1f} s")


def bundle(path, tools):
    """Claude Desktop as far as its files go: the bundle is unpacked and its server run by another client."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        shutil.unpack_archive(path, folder, "zip")
        for binary in pathlib.Path(folder, "server").iterdir():
            binary.chmod(0o755)
        client = [tools / "venv/bin/python", ROOT / "release/bundle_client.py", folder]
        subprocess.run(client, check=True, capture_output=True)
        print(f"MCP bundle: open it, press Install, ask, open the link, sign in; {time.monotonic() - began:.1f} s")


packages, tools = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
(archive,) = packages.glob("*-linux-gnu.tar.gz")
(mcpb,) = packages.glob("*-linux-gnu.mcpb")
measured("Claude Code", claude_code, archive, tools)
measured("MCP Inspector", inspector, archive, tools)
bundle(mcpb, tools)
