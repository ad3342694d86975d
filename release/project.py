"""What the release scripts know of the project: its manifest, this machine's target, and the names of the packages."""

import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "release"

# The platforms that packages are made for, by Rust's name, with the names that bundles use.
PLATFORMS = {
    "aarch64-apple-darwin": "darwin",
    "x86_64-pc-windows-msvc": "win32",
    "x86_64-unknown-linux-gnu": "linux",
}


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, **options).stdout


def manifest():
    packages = json.loads(output("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"))["packages"]
    return packages[0]


def host():
    return re.search(r"^host: (\S+)$", output("rustc", "-vV"), re.MULTILINE)[1]


def stem(package, target):
    """The name of a platform's packages, without the ending."""
    return f"{package['name']}-{package['version']}-{target}"


def archive_ending(target):
    return "zip" if "windows" in target else "tar.gz"


def clean_environment(home):
    """An environment with an empty home and nothing else; Windows cannot start a program without SYSTEMROOT."""
    keep = {variable: os.environ[variable] for variable in ["SYSTEMROOT"] if variable in os.environ}
    return keep | {variable: str(home) for variable in ["HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"]}


def tools():
    """The names of the tools with what they do, from the README's table, which a test compares with the server."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- tools -->")[1].split("<!-- /tools -->")[0]
    return re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)
