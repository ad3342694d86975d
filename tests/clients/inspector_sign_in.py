"""The MCP Inspector's `mcpdo` against a server without a signed-in account: `inspector_sign_in.py BINARY`."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from person import SECRETS, sign_in

seen = []


def mcpdo(*arguments):
    run = subprocess.run(["mcpdo", *arguments, "--format", "json"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 0, run
    seen.append(run.stdout)
    return json.loads(run.stdout)


for revision in ["legacy", "modern"]:
    with tempfile.TemporaryDirectory() as directory:
        server = {"command": sys.argv[1], "args": ["stdio", "--sandbox"], "env": {"BONDMCP_DATA_DIR": f"{directory}/data"}}
        catalog = pathlib.Path(directory, "catalog.json")
        catalog.write_text(json.dumps({"mcpServers": {"bondmcp": server}}))
        os.environ |= {"HOME": directory, "MCP_CATALOG_PATH": str(catalog)}
        try:
            mcpdo("connect", "bondmcp", "--era", revision)
            asked = mcpdo("@bondmcp", "tools/call", "list_models")["elicitationPending"]
            assert asked["mode"] == "url", asked
            sign_in(asked["url"])
            result = mcpdo("@bondmcp", "elicitation/respond", asked["elicitationId"], "--done")
            assert "sandbox-general-1" in json.dumps(result), result
        finally:
            subprocess.run(["mcpdo", "daemon", "stop"], check=True, capture_output=True)
    assert not SECRETS.search("".join(seen))
    print(f"Inspector, signing in on the page, {revision}: ok")
