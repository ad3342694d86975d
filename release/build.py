"""Makes the packages of this platform from the built binary: build.py PROFILE DIRECTORY."""

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from project import PLATFORMS, RELEASE, ROOT, archive_ending, host, manifest, output, stem, tools

profile, packages = sys.argv[1], pathlib.Path(sys.argv[2])
package, target = manifest(), host()
name = stem(package, target)
suffix = ".exe" if "windows" in target else ""
binary = ROOT / "target" / profile / f"{package['name']}{suffix}"
documents = ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT", "mcp.json.example"]
# All files are as old as the commit, so that the same commit gives the same archive.
epoch = int(output("git", "log", "-1", "--format=%ct"))


def run(*command):
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)})


def help_files():
    """Has the binary write its man pages and completions to target/share, from where the Debian package takes them."""
    share = ROOT / "target/share"
    shutil.rmtree(share, ignore_errors=True)
    (share / "completions").mkdir(parents=True)
    run(str(binary), "man", str(share / "man"))
    for shell, file in [("bash", f"{package['name']}.bash"), ("fish", f"{package['name']}.fish"), ("zsh", f"_{package['name']}")]:
        (share / "completions" / file).write_text(output(binary, "completions", shell), encoding="utf-8", newline="\n")
    return share


def archive(folder):
    """Packs `folder` as a .zip for Windows and as a .tar.gz elsewhere."""
    path = packages / f"{name}.{archive_ending(target)}"
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, file.relative_to(folder.parent))
        return

    def normal(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = epoch
        return entry

    with open(path, "wb") as raw, gzip.GzipFile("", "wb", mtime=epoch, fileobj=raw) as packed:
        with tarfile.open(mode="w", fileobj=packed) as entries:
            for file in files:
                entries.add(file, file.relative_to(folder.parent), filter=normal)


def bundle(folder):
    """Packs an MCP bundle with the official tool."""
    manifest = json.loads((RELEASE / "bundle.json").read_text(encoding="utf-8"))
    manifest["version"] = package["version"]
    manifest["compatibility"]["platforms"] = [PLATFORMS[target]]
    manifest["server"]["entry_point"] += suffix
    manifest["server"]["mcp_config"]["command"] += suffix
    manifest["tools"] = [{"name": tool, "description": does} for tool, does in tools()]
    (folder / "server").mkdir()
    shutil.copy(binary, folder / "server")
    for document in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"]:
        shutil.copy(ROOT / document, folder)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    mcpb = shutil.which("mcpb")
    run(mcpb, "validate", str(folder / "manifest.json"))
    run(mcpb, "pack", str(folder), str(packages / f"{name}.mcpb"))


share = help_files()
packages.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory, name)
    folder.mkdir()
    shutil.copy(binary, folder)
    for document in documents:
        shutil.copy(ROOT / document, folder)
    shutil.copytree(share, folder, dirs_exist_ok=True)
    archive(folder)
with tempfile.TemporaryDirectory() as directory:
    bundle(pathlib.Path(directory))

# The bill of materials is written beside Cargo.toml, and names this folder.
run("cargo", "cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--target", target, "--override-filename", name)
bill = ROOT / f"{name}.json"
text = bill.read_text(encoding="utf-8").replace(f"path+{ROOT.as_uri()}#", "")
(packages / f"{name}.cdx.json").write_text(text, encoding="utf-8")
bill.unlink()

if "linux" in target:
    run("cargo", "deb", "--quiet", "--locked", "--no-build", "--no-strip", "--profile", profile, "--output", f"{packages}/")
    run("cargo", "package", "--quiet", "--locked", "--no-verify")
    shutil.copy(ROOT / "target/package" / f"{package['name']}-{package['version']}.crate", packages)
