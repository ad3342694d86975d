"""Installs each package of this platform into a clean place and runs it there: try.py DIRECTORY."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import jsonschema
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from project import PLATFORMS, RELEASE, ROOT, archive_ending, clean_environment, host, manifest, output, stem

packages = pathlib.Path(sys.argv[1]).resolve()
package, target = manifest(), host()
name = stem(package, target)
suffix = ".exe" if "windows" in target else ""
binary_name = f"{package['name']}{suffix}"


def run(*command, **options):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, **options)


def demo(binary):
    """Runs the offline demo with an empty home and nothing else in the environment."""
    with tempfile.TemporaryDirectory() as home:
        environment = clean_environment(home)
        version = subprocess.run([binary, "--version"], check=True, stdout=subprocess.PIPE, text=True, env=environment)
        assert version.stdout.split() == [package["name"], package["version"]], version.stdout
        run(binary, "demo", env=environment)


def check_help_files(man_pages, bash_completion):
    """There is a page for the program and for its commands, and bash completes it."""
    names = {page.name.removesuffix(".gz").removesuffix(".1") for page in man_pages.iterdir()}
    assert {package["name"], f"{package['name']}-login", f"{package['name']}-keys-run"} <= names, names
    run("bash", "-c", f'. "{bash_completion}" && complete -p {package["name"]}')


def try_archive(clean):
    path = packages / f"{name}.{archive_ending(target)}"
    if path.suffix == ".zip":
        zipfile.ZipFile(path).extractall(clean)
    else:
        with tarfile.open(path) as packed:
            packed.extractall(clean, filter="data")
    demo(clean / name / binary_name)
    if not suffix:
        check_help_files(clean / name / "man", clean / name / f"completions/{package['name']}.bash")


def try_debian(clean):
    """Installs, runs and removes the package with dpkg, below a root of its own."""
    (path,) = packages.glob("*.deb")
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates"]:
        (clean / folder).mkdir(parents=True)
    (clean / "var/lib/dpkg/status").touch()
    dpkg = ["dpkg", f"--root={clean}", "--force-depends", "--force-not-root", f"--log={clean}/dpkg.log"]
    # The root has no other package, so what this one needs is held against the machine instead.
    for needed in output("dpkg-deb", "--field", path, "Depends").split(","):
        run("dpkg-query", "--status", needed.split()[0])
    run(*dpkg, "--install", path, stderr=subprocess.DEVNULL)
    demo(clean / "usr/bin" / binary_name)
    share = clean / "usr/share"
    check_help_files(share / "man/man1", share / "bash-completion/completions" / package["name"])
    run(*dpkg, "--purge", package["name"])
    left = [file for file in (clean / "usr").rglob("*") if file.is_file()] if (clean / "usr").exists() else []
    assert not left, left


def try_formula(clean):
    """Homebrew itself is not to be had everywhere; what it does with our formula is done by Ruby."""
    run("ruby", RELEASE / "try_formula.rb", packages / "bondmcp-server.rb", packages, clean)
    files = [clean / "bin" / binary_name, clean / "bash" / package["name"], clean / "zsh" / f"_{package['name']}"]
    assert all(file.exists() for file in files), list(clean.rglob("*"))
    check_help_files(clean / "man/man1", clean / "bash" / package["name"])
    demo(files[0])


def try_bundle(clean):
    run(shutil.which("mcpb"), "unpack", packages / f"{name}.mcpb", clean)
    demo(clean / "server" / binary_name)
    subprocess.run([sys.executable, RELEASE / "bundle_client.py", clean], check=True)


def try_crate(clean):
    """Installs the crate as `cargo install` does, from what would be uploaded, without optimisation."""
    with tarfile.open(packages / f"{package['name']}-{package['version']}.crate") as packed:
        packed.extractall(clean, filter="data")
    source = clean / f"{package['name']}-{package['version']}"
    run(
        "cargo", "install", "--quiet", "--locked", "--profile", "release", "--path", source, "--root", clean / "root",
        env=os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target")},
    )
    demo(clean / "root/bin" / binary_name)


def check_sums():
    for line in (packages / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, file = line.split()
        assert hashlib.sha256((packages / file).read_bytes()).hexdigest() == digest, file


def check_bill_of_materials():
    """Holds the bill against the crates that the binary is linked from."""
    text = (packages / f"{name}.cdx.json").read_text(encoding="utf-8")
    assert str(ROOT) not in text, "the bill of materials names the folder that it was made in"
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    assert fault is None, fault
    bill = json.loads(text)
    listed = {(component["name"], component["version"]) for component in bill["components"]}
    tree = output("cargo", "tree", "--locked", "--edges", "normal", "--target", target, "--prefix", "none", "--format", "{p}")
    linked = {(line.split()[0], line.split()[1].removeprefix("v")) for line in tree.splitlines() if line}
    linked.discard((package["name"], package["version"]))
    assert len(linked) > 100 and linked <= listed, linked - listed


def check_registry_entry(directory):
    entry = json.loads((directory / "server.json").read_text(encoding="utf-8"))
    schema = json.loads((RELEASE / "server.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(entry)
    assert entry["packages"]
    for bundle in entry["packages"]:
        file = directory / bundle["identifier"].rsplit("/", 1)[1]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == bundle["fileSha256"], file


def check_binstall(clean):
    """Follows the metadata for `cargo binstall` to the archive and the binary in it."""
    metadata = package["metadata"]["binstall"]
    metadata |= metadata.get("overrides", {}).get(target, {})

    def filled(template):
        values = {"repo": "", "name": package["name"], "version": package["version"], "target": target,
                  "bin": package["name"], "binary-ext": suffix}
        for word, value in values.items():
            template = template.replace(f"{{ {word} }}", value)
        return template

    shutil.unpack_archive(packages / filled(metadata["pkg-url"]).rsplit("/", 1)[1], clean)
    demo(clean / filled(metadata["bin-dir"]))


def check_descriptions(clean):
    """Describes made-up packages of all platforms, since only this platform's are there."""
    for platform in PLATFORMS:
        for ending in [archive_ending(platform), "mcpb"]:
            (clean / f"{stem(package, platform)}.{ending}").write_text(f"{platform} {ending}", encoding="utf-8")
    run(sys.executable, RELEASE / "describe.py", clean, "https://packages.example/v1")
    check_registry_entry(clean)
    manifests = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (clean / "winget").iterdir()}
    assert sorted(entry["ManifestType"] for entry in manifests.values()) == ["defaultLocale", "installer", "version"]
    (installer,) = manifests["BondMCP.Server.installer.yaml"]["Installers"]
    archive = clean / installer["InstallerUrl"].rsplit("/", 1)[1]
    assert hashlib.sha256(archive.read_bytes()).hexdigest().upper() == installer["InstallerSha256"]
    formula = (clean / "bondmcp-server.rb").read_text(encoding="utf-8")
    assert formula.count("sha256 ") == 2 and "@" not in formula, formula


def trying(what, *steps):
    for step in steps:
        with tempfile.TemporaryDirectory() as clean:
            step(pathlib.Path(clean))
    print(f"{what}: ok", flush=True)


trying("archive", try_archive, check_binstall)
trying("MCP bundle", try_bundle)
if "linux" in target:
    trying("Debian package", try_debian)
    trying("Homebrew formula", try_formula)
    trying("crate", try_crate)
check_sums()
check_registry_entry(packages)
check_bill_of_materials()
trying("checksums, registry entry, bill of materials, winget manifests", check_descriptions)
