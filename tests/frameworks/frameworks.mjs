// Clients of npm against the server, signed out at first: `frameworks.mjs BINARY BASE_URL PERSON`, where PERSON is the
// path of person.py. Each lists the tools, is told to sign in, and calls again when the person has done so.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { createMCPClient } from "@ai-sdk/mcp";
import { Experimental_StdioMCPTransport as Stdio } from "@ai-sdk/mcp/mcp-stdio";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const [binary, baseUrl, person] = process.argv.slice(2);
const SECRETS = /eyJ[\w-]+\.[\w-]+|bcp_[\w-]{12,}|demo-password-1/;
const TOOLS = 12;
const run = promisify(execFile);

/** Signs in as an answer says: `sign_in_by_link` or `sign_in_by_command`. */
async function signIn(how, told, env) {
  const script = `import json, os, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); import person
told, env = json.loads(sys.argv[2]), json.loads(sys.argv[3])
person.sign_in(person.link_in(told)) if sys.argv[4] == "link" else person.sign_in_by_command(told, env)`;
  await run("python3", ["-c", script, person, JSON.stringify(told), JSON.stringify(env), how]);
}

/** A data directory, and how a client starts the server with it. */
function server() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "frameworks-"));
  const env = { PATH: process.env.PATH, HOME: directory, BONDMCP_LOG: "error" };
  return { directory, env, command: binary, args: ["--base-url", baseUrl, "--data-dir", directory] };
}

async function session(name, how, { directory, env }, names, call) {
  const seen = [];
  const told = async (tool, args = {}) => {
    seen.push(JSON.stringify(await call(tool, args)));
    return seen.at(-1);
  };
  assert.ok(names.length === TOOLS && names.includes("list_models"), `${name}: ${names}`);
  const asked = await told("list_models");
  assert.match(asked, /Not signed in to BondMCP/);
  await signIn(how, asked, env);
  assert.match(await told("list_models"), /sandbox-general-1/);
  const medications = [{ name: "warfarin" }, { name: "aspirin" }];
  assert.match(await told("medication_check", { medications }), /0\.03/);
  assert.ok(!SECRETS.test(seen.join("\n")), `${name} received a secret`);
  fs.rmSync(directory, { recursive: true });
  console.log(`${name}: ok`);
}

async function aiSdk() {
  const { command, args, env, ...rest } = server();
  const client = await createMCPClient({ transport: new Stdio({ command, args: [...args, "stdio"], env }) });
  const tools = await client.tools();
  const call = (tool, input) => tools[tool].execute(input, { toolCallId: "1", messages: [] });
  await session("AI SDK", "link", { env, ...rest }, Object.keys(tools), call);
  await client.close();
}

/** Each of its commands starts a server of its own. */
async function mcporter() {
  const { command, args, env, directory } = server();
  const config = path.join(directory, "mcporter.json");
  const entry = { command, args: [...args, "stdio"], env };
  fs.writeFileSync(config, JSON.stringify({ mcpServers: { bondmcp: entry } }));
  const commandLine = async (...words) => {
    const done = await run("mcporter", ["--config", config, ...words], { env }).catch((failure) => failure);
    return `${done.stdout}${done.stderr}`;
  };
  const listed = JSON.parse(await commandLine("list", "bondmcp", "--schema", "--json"));
  const call = (tool, input) => commandLine("call", `bondmcp.${tool}`, "--args", JSON.stringify(input));
  await session("mcporter", "command", { directory, env }, listed.tools.map((tool) => tool.name), call);
}

/** Bridges stdio to a server on HTTP. */
async function mcpRemote() {
  const { command, args, env, directory } = server();
  const token = "a-token-for-the-clients-only";
  const serving = spawn(command, [...args, "http", "--listen", "127.0.0.1:0"], { env: { ...env, BONDMCP_HTTP_TOKEN: token } });
  try {
    const url = await new Promise((resolve, reject) => {
      let log = "";
      serving.stderr.on("data", (data) => {
        log += data;
        const found = log.match(/http:\/\/127\.0\.0\.1:\d+\/mcp$/m);
        if (found) resolve(found[0]);
      });
      serving.on("exit", () => reject(new Error(log)));
    });
    const header = ["--header", `Authorization: Bearer ${token}`];
    const remote = { command: "mcp-remote", args: [url, ...header, "--allow-http"], env };
    const client = new Client({ name: "a-client", version: "1" });
    await client.connect(new StdioClientTransport({ ...remote, stderr: "ignore" }));
    const { tools } = await client.listTools();
    const call = (name, input) => client.callTool({ name, arguments: input });
    await session("mcp-remote", "link", { env, directory }, tools.map((tool) => tool.name), call);
    await client.close();
  } finally {
    serving.kill();
  }
}

await aiSdk();
await mcporter();
await mcpRemote();
process.exit(0);
