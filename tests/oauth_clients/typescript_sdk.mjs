// The TypeScript SDK's OAuth client: `typescript_sdk.mjs URL PACKAGE`, where PACKAGE is `sdk` (1.x) or `client` (2.x). It shows the
// address at which its person connects, and waits for the code.

import assert from "node:assert/strict";
import http from "node:http";

const [target, generation] = process.argv.slice(2);
const { Client, StreamableHTTPClientTransport, UnauthorizedError } =
  generation === "client"
    ? await import("@modelcontextprotocol/client")
    : {
        ...(await import("@modelcontextprotocol/sdk/client/index.js")),
        ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
        ...(await import("@modelcontextprotocol/sdk/client/auth.js")),
      };

let arrived;
const callback = new Promise((resolve) => (arrived = resolve));
const listener = http.createServer((request, response) => {
  response.setHeader("connection", "close").end("Back in the app");
  arrived(new URL(request.url, "http://127.0.0.1").searchParams);
});
await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
const redirectUrl = `http://127.0.0.1:${listener.address().port}/callback`;

const kept = { asked: [] };
const provider = {
  redirectUrl,
  clientMetadata: {
    client_name: "TypeScript SDK",
    redirect_uris: [redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => "the-state-of-a-test",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  redirectToAuthorization: (url) => void kept.asked.push(url.href),
  invalidateCredentials: (what) => {
    if (what === "tokens" || what === "all") kept.tokens = undefined;
    if (what === "client" || what === "all") kept.client = undefined;
  },
};

async function connect() {
  const transport = new StreamableHTTPClientTransport(new URL(target), { authProvider: provider });
  const client = new Client({ name: "typescript-sdk", version: "1" }, { versionNegotiation: { mode: "auto" } });
  return { transport, client, connected: client.connect(transport) };
}

async function models(client) {
  const result = await client.callTool({ name: "list_models", arguments: { refresh: true } });
  assert.ok(!result.isError && result.structuredContent.count === 3, JSON.stringify(result));
}

const first = await connect();
await assert.rejects(first.connected, UnauthorizedError);
assert.equal(kept.asked.length, 1);
console.log(kept.asked[0]);
const answer = await callback;
listener.close();
assert.equal(answer.get("state"), provider.state());
assert.equal(answer.get("iss"), new URL(target).origin);
await first.transport.finishAuth(...(generation === "client" ? [answer] : [answer.get("code")]));

const { client, connected } = await connect();
await connected;
const { tools } = await client.listTools();
assert.ok(tools.some((tool) => tool.name === "manage_api_keys"));
await models(client);

// A token that is no longer good: the client refreshes by itself.
const before = kept.tokens;
kept.tokens = { ...before, access_token: `${before.access_token.slice(0, -4)}AAAA` };
await models(client);
assert.notEqual(kept.tokens.access_token, before.access_token);
assert.notEqual(kept.tokens.refresh_token, before.refresh_token);

// The SDK revokes nothing (RFC 7009); afterwards nothing but a new consent helps.
const revoked = await fetch(new URL("/revoke", target), {
  method: "POST",
  body: new URLSearchParams({ token: kept.tokens.refresh_token, client_id: kept.client.client_id }),
});
assert.equal(revoked.status, 200);
await assert.rejects(models(client), UnauthorizedError);
assert.equal(kept.asked.length, 2);
await client.close().catch(() => {});
