"""Runs the server of an unpacked MCP bundle as a host does, with the Python SDK: bundle_client.py FOLDER. The person signs
in on the page, at a sandbox of the same binary; the second configuration takes the defaults."""

import asyncio
import json
import pathlib
import subprocess
import sys
import tempfile

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import ElicitResult

from project import ROOT, clean_environment

sys.path.append(str(ROOT / "tests/clients"))
from person import SECRETS, sign_in  # noqa: E402

folder = pathlib.Path(sys.argv[1]).resolve()
manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def parameters(home, **chosen):
    """The command of the manifest, with its variables replaced as the specification of bundles says."""
    options = {name: option["default"] for name, option in manifest["user_config"].items()} | chosen
    values = {"__dirname": str(folder)} | {f"user_config.{name}": value for name, value in options.items()}

    def replaced(text):
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        return text

    config = manifest["server"]["mcp_config"]
    environment = {name: replaced(value) for name, value in config["env"].items()}
    assert "${" not in json.dumps(environment), environment
    return StdioServerParameters(
        command=replaced(config["command"]), args=config["args"], env=clean_environment(home) | environment
    )


async def main(home, sandbox):
    async def elicit(context, params):
        await asyncio.to_thread(sign_in, params.url)
        return ElicitResult(action="accept")

    server = stdio_client(parameters(home, base_url=sandbox, profile="bundle"))
    async with Client(server, elicitation_callback=elicit) as client:
        tools = await client.list_tools()
        assert [tool.name for tool in tools.tools] == [tool["name"] for tool in manifest["tools"]]
        models = await client.call_tool("list_models", {})
        assert not models.is_error and models.structured_content["count"] == 3, models
        status = await client.call_tool("auth_status", {})
        assert status.structured_content["profile"] == "bundle", status
        assert not SECRETS.search(models.model_dump_json() + status.model_dump_json())
    async with Client(stdio_client(parameters(home))) as client:
        status = (await client.call_tool("auth_status", {})).structured_content
        assert not status["signed_in"] and status["profile"] == "default", status
        assert status["upstream"].startswith("https://"), status


with tempfile.TemporaryDirectory() as home:
    binary = parameters(home).command
    with subprocess.Popen(
        [binary, "sandbox", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True, env=clean_environment(home)
    ) as sandbox:
        try:
            address = sandbox.stdout.readline().split()[-1]
            asyncio.run(main(home, address))
        finally:
            sandbox.terminate()
print("MCP bundle, unpacked and run by the Python SDK: ok")
