"""The Python SDK's client against bondmcp-server: `python_sdk.py stdio COMMAND…`, `python_sdk.py http URL TOKEN`, or
`python_sdk.py sign-in COMMAND…`, without a signed-in account, where the client's person uses the page."""

import asyncio
import os
import pathlib
import sys
import tempfile

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.types import ElicitResult

from person import SECRETS, sign_in

# Each tool has a snapshot with such a name in the directory SNAPSHOTS.
SNAPSHOT = "mcp__tool_faces__"


def transport():
    if sys.argv[1] == "http":
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {sys.argv[3]}"})
        return streamable_http_client(sys.argv[2], http_client=http)
    command, *arguments = sys.argv[2:]
    return stdio_client(StdioServerParameters(command=command, args=arguments, env=dict(os.environ)))


async def main(mode):
    async with Client(transport(), mode=mode) as client:
        seen = []

        async def call(tool, **arguments):
            result = await client.call_tool(tool, arguments)
            seen.append(result.model_dump_json())
            assert not result.is_error, seen[-1]
            return result.structured_content

        tools = await client.list_tools()
        seen.append(tools.model_dump_json())
        snapshots = pathlib.Path(os.environ["SNAPSHOTS"]).glob(f"{SNAPSHOT}*.snap")
        assert [tool.name for tool in tools.tools] == sorted(path.stem.removeprefix(SNAPSHOT) for path in snapshots)
        assert (await call("login"))["status"] == "signed_in"
        assert (await call("auth_status"))["signed_in"]
        assert (await call("list_models"))["count"] == 3
        created = await call("manage_api_keys", action="create", name="python")
        key_id = created["keys"][0]["id"]
        listed = await call("manage_api_keys", action="list")
        assert key_id in [key["id"] for key in listed["keys"]]
        await call("manage_api_keys", action="revoke", key_id=key_id, confirm="python")
        checked = await call("medication_check", medications=[{"name": "warfarin"}, {"name": "aspirin"}])
        assert checked["cost"] == 0.03 and len(checked["interactions"]) == 1
        refused = await client.call_tool("login", {"password": "x"})
        assert refused.is_error
        found = SECRETS.search("\n".join(seen))
        assert not found, f"a secret was received: {found}"
    print(f"Python SDK, {sys.argv[1]}, {mode}: ok")


async def signing_in(mode):
    links = []

    async def elicit(context, params):
        assert params.mode == "url", params
        links.append(params.url)
        await asyncio.to_thread(sign_in, params.url)
        return ElicitResult(action="accept")

    with tempfile.TemporaryDirectory() as directory:
        os.environ["BONDMCP_DATA_DIR"] = directory
        async with Client(transport(), mode=mode, elicitation_callback=elicit) as client:
            result = await client.call_tool("list_models", {})
            assert not result.is_error and result.structured_content["count"] == 3, result
            assert len(links) == 1
            assert not SECRETS.search(result.model_dump_json())
    print(f"Python SDK, signing in on the page, {mode}: ok")


for mode in ["auto", "legacy"]:
    asyncio.run(signing_in(mode) if sys.argv[1] == "sign-in" else main(mode))
