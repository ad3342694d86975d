// The TypeScript SDK's client against bondmcp-server: `typescript_sdk.mjs stdio COMMAND…` or
// `typescript_sdk.mjs http URL TOKEN`.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

// Each tool has a snapshot in the directory SNAPSHOTS.
const snapshots = readdirSync(process.env.SNAPSHOTS).map((file) => /^mcp__tool_faces__(\w+)\.snap$/.exec(file)?.[1]);
const TOOLS = snapshots.filter(Boolean).sort();
const SECRETS = /eyJ[\w-]+\.[\w-]+|bcp_[\w-]{12,}|demo-password-1/;

const [kind, target, ...rest] = process.argv.slice(2);
const transport =
  kind === "http"
    ? new StreamableHTTPClientTransport(new URL(target), {
        requestInit: { headers: { Authorization: `Bearer ${rest[0]}` } },
      })
    : new StdioClientTransport({ command: target, args: rest, env: process.env });

const client = new Client({ name: "typescript-sdk", version: "1" });
await client.connect(transport);
const seen = [];

async function call(name, args = {}) {
  const result = await client.callTool({ name, arguments: args });
  seen.push(JSON.stringify(result));
  assert.ok(!result.isError, seen.at(-1));
  return result.structuredContent;
}

const { tools } = await client.listTools();
seen.push(JSON.stringify(tools));
assert.deepEqual(tools.map((tool) => tool.name), TOOLS);
assert.equal((await call("login")).status, "signed_in");
assert.ok((await call("auth_status")).signed_in);
assert.equal((await call("list_models")).count, 3);
const created = await call("manage_api_keys", { action: "create", name: "typescript" });
const key_id = created.keys[0].id;
const listed = await call("manage_api_keys", { action: "list" });
assert.ok(listed.keys.some((key) => key.id === key_id));
await call("manage_api_keys", { action: "revoke", key_id, confirm: "typescript" });
const checked = await call("medication_check", { medications: [{ name: "warfarin" }, { name: "aspirin" }] });
assert.equal(checked.cost, 0.03);
assert.equal(checked.interactions.length, 1);
const refused = await client.callTool({ name: "login", arguments: { password: "x" } });
assert.ok(refused.isError);
assert.ok(!SECRETS.test(seen.join("\n")), "a secret was received");
await client.close();
console.log(`TypeScript SDK, ${kind}: ok`);
