"""Describes the packages in a directory, of whichever platforms: describe.py DIRECTORY URL. Writes SHA256SUMS, the entry
for the MCP registry, the Homebrew formula and the winget manifests. URL is the address below which they are published."""

import hashlib
import json
import pathlib
import sys

from project import PLATFORMS, RELEASE, archive_ending, manifest, stem

packages, url = pathlib.Path(sys.argv[1]), sys.argv[2].rstrip("/")
package = manifest()
DESCRIPTIONS = ["SHA256SUMS", "server.json", "bondmcp-server.rb", "winget"]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filled(template, **values):
    text = (RELEASE / template).read_text(encoding="utf-8").replace("@VERSION@", package["version"])
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def present(ending):
    """The packages with this ending that are there, by platform."""
    paths = {target: packages / f"{stem(package, target)}.{ending(target)}" for target in PLATFORMS}
    return {target: path for target, path in paths.items() if path.exists()}


def registry_entry():
    entry = json.loads((RELEASE / "server.json").read_text(encoding="utf-8"))
    options = json.loads((RELEASE / "bundle.json").read_text(encoding="utf-8"))["user_config"]
    entry["version"] = package["version"]
    entry["packages"] = [
        {
            "registryType": "mcpb",
            "identifier": f"{url}/{bundle.name}",
            "version": package["version"],
            "fileSha256": sha256(bundle),
            "transport": {"type": "stdio"},
            "environmentVariables": [
                {
                    "name": f"BONDMCP_{name.upper()}",
                    "description": option["description"],
                    "default": option["default"],
                    "isRequired": False,
                    "isSecret": False,
                }
                for name, option in options.items()
            ],
        }
        for bundle in present(lambda target: "mcpb").values()
    ]
    return json.dumps(entry, indent=2) + "\n"


def formula(archives):
    lines = []
    for system, part in [("macos", "apple"), ("linux", "linux")]:
        targets = [target for target in archives if part in target]
        if not targets:
            continue
        lines.append(f"  on_{system} do")
        for target in targets:
            processor = "arm" if target.startswith("aarch64") else "intel"
            lines += [
                f"    on_{processor} do",
                f'      url "{url}/{archives[target].name}"',
                f'      sha256 "{sha256(archives[target])}"',
                "    end",
            ]
        lines.append("  end")
    return filled("homebrew.rb", DOWNLOADS="\n".join(lines))


archives = present(archive_ending)
files = sorted(path for path in packages.iterdir() if path.name not in DESCRIPTIONS)
sums = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
(packages / "SHA256SUMS").write_text(sums, encoding="utf-8", newline="\n")
(packages / "server.json").write_text(registry_entry(), encoding="utf-8")
(packages / "bondmcp-server.rb").write_text(formula(archives), encoding="utf-8")
if windows := archives.get("x86_64-pc-windows-msvc"):
    (packages / "winget").mkdir(exist_ok=True)
    for template in sorted((RELEASE / "winget").iterdir()):
        text = filled(
            template, FOLDER=windows.name.removesuffix(".zip"), URL=f"{url}/{windows.name}", SHA256=sha256(windows).upper()
        )
        (packages / "winget" / template.name).write_text(text, encoding="utf-8")
