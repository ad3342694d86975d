"""Frameworks for agents against the server, signed out at first: `frameworks.py BINARY BASE_URL [FRAMEWORK…]`. Each
lists the tools, is told to sign in, and calls again when the person has done so."""

import asyncio
import json
import logging
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))

from person import SECRETS, link_in, sign_in, sign_in_by_command

TOOLS = 12
os.environ |= {"MCP_USE_ANONYMIZED_TELEMETRY": "false", "OPENAI_AGENTS_DISABLE_TRACING": "1"}


class Server:
    """How a framework starts the server, with a data directory of its own."""

    def __init__(self, directory):
        self.command = sys.argv[1]
        self.args = ["--base-url", sys.argv[2], "--data-dir", directory, "stdio"]
        self.env = {"PATH": os.environ["PATH"], "HOME": directory, "BONDMCP_LOG": "error"}


class Client:
    """Checks what a framework shows to an agent."""

    def __init__(self, server, names, call):
        assert len(names) == TOOLS and "list_models" in names, names
        self.server, self.call, self.seen = server, call, []

    async def told(self, tool, **arguments):
        self.seen.append(str(await self.call(tool, arguments)))
        return self.seen[-1]

    async def session(self, sign_in_with):
        told = await self.told("list_models")
        assert "Not signed in to BondMCP" in told, told
        await asyncio.to_thread(sign_in_with, told, self.server.env)
        assert "sandbox-general-1" in await self.told("list_models"), self.seen[-1]
        # A tool whose arguments are nested.
        checked = await self.told("medication_check", medications=[{"name": "warfarin"}, {"name": "aspirin"}])
        assert "0.03" in checked, checked
        assert not SECRETS.search("".join(self.seen))


def by_link(told, _):
    sign_in(link_in(told))


async def langchain(server):
    from langchain_core.tools import ToolException
    from langchain_mcp_adapters.client import MultiServerMCPClient

    # It starts a process for each call, so there is no page when the answer is read.
    entry = {"transport": "stdio", "command": server.command, "args": server.args, "env": server.env}
    tools = {tool.name: tool for tool in await MultiServerMCPClient({"bondmcp": entry}).get_tools()}

    async def call(tool, arguments):
        try:
            return await tools[tool].ainvoke(arguments)
        except ToolException as failure:
            return failure

    await Client(server, list(tools), call).session(sign_in_by_command)


async def mcp_use(server):
    from mcp_use import MCPClient
    from mcp_use.agents.adapters import LangChainAdapter

    # It logs what it shows to an agent.
    logging.getLogger("mcp_use").setLevel(logging.CRITICAL)
    entry = {"command": server.command, "args": server.args, "env": server.env}
    client = MCPClient.from_dict({"mcpServers": {"bondmcp": entry}})
    try:
        tools = {tool.name: tool for tool in await LangChainAdapter().create_tools(client)}

        async def call(tool, arguments):
            return await tools[tool].ainvoke(arguments)

        # It makes tools of resources and prompts too.
        names = [tool.name for tool in await client.get_session("bondmcp").list_tools()]
        assert set(names) <= set(tools), tools
        await Client(server, names, call).session(by_link)
    finally:
        await client.close_all_sessions()


async def openai_agents(server):
    from agents import Agent, RunContextWrapper
    from agents.mcp import MCPServerStdio, MCPUtil
    from agents.tool_context import ToolContext

    params = {"command": server.command, "args": server.args, "env": server.env}
    async with MCPServerStdio(params=params, client_session_timeout_seconds=30) as started:
        agent = Agent(name="agent", mcp_servers=[started])
        tools = await MCPUtil.get_function_tools(started, True, RunContextWrapper(None), agent)
        tools = {tool.name: tool for tool in tools}

        async def call(tool, arguments):
            written = json.dumps(arguments)
            context = ToolContext(context=None, tool_name=tool, tool_call_id="1", tool_arguments=written)
            return await tools[tool].on_invoke_tool(context, written)

        await Client(server, list(tools), call).session(by_link)


async def pydantic_ai(server):
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.exceptions import ModelRetry

    async with MCPToolset(StdioTransport(server.command, server.args, env=server.env)) as toolset:
        names = [tool.name for tool in await toolset.list_tools()]

        async def call(tool, arguments):
            try:
                return await toolset.direct_call_tool(tool, arguments)
            except ModelRetry as failure:
                return failure

        await Client(server, names, call).session(by_link)


async def fastmcp(server):
    from fastmcp import Client as FastMcp
    from fastmcp.client.transports import StdioTransport

    async with FastMcp(StdioTransport(server.command, server.args, env=server.env)) as client:
        names = [tool.name for tool in await client.list_tools()]

        async def call(tool, arguments):
            return await client.call_tool(tool, arguments, raise_on_error=False)

        await Client(server, names, call).session(by_link)


FRAMEWORKS = [langchain, mcp_use, openai_agents, pydantic_ai, fastmcp]

for framework in FRAMEWORKS:
    if not sys.argv[3:] or framework.__name__ in sys.argv[3:]:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(framework(Server(directory)))
        print(f"{framework.__name__}: ok")
