"""The Python SDK's OAuth client: registration, consent, a call, refresh, and what it does when its grant has ended."""

import asyncio
import json
import logging
import urllib.parse

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

from callback import ARRIVED, Callback


class Storage:
    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class AskedAgain(Exception):
    """The client asks its person to connect once more."""


async def connect(server, browser, mode, method="none"):
    """`method` is how the client authenticates at /token. With a secret, an operator has added it; else it registers itself."""
    callback, storage, asked = Callback(), Storage(), []
    if method != "none":
        client = server.add_client("Ward assistant", callback.url, confidential=True)
        storage.client = OAuthClientInformationFull(redirect_uris=[callback.url], token_endpoint_auth_method=method,
                                                    **server.credentials(client))

    async def redirect(url):
        asked.append(url)
        if len(asked) > 1:
            raise AskedAgain
        assert ARRIVED in await asyncio.to_thread(browser.visit, url)

    async def code():
        assert await asyncio.to_thread(callback.came.wait, 60)
        found = callback.query
        return AuthorizationCodeResult(code=found["code"], state=found["state"], iss=found["iss"])

    # It tells at length that it was not allowed to connect again.
    logging.disable()
    metadata = OAuthClientMetadata(client_name="Python SDK", redirect_uris=[callback.url])
    provider = OAuthClientProvider(server.url, metadata, storage, redirect, code)
    verify = server.client_context() or True
    try:
        async with httpx2.AsyncClient(auth=provider, verify=verify, timeout=60) as http:
            async with Client(streamable_http_client(server.url, http_client=http), mode=mode) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert {"list_models", "medication_check", "manage_api_keys"} <= names, names
                await models(client)
                checked = await client.call_tool("medication_check", {"medications": [{"name": "warfarin"}, {"name": "aspirin"}]})
                assert checked.structured_content["cost"] == 0.03, checked
                first = storage.tokens
                provider.context.token_expiry_time = 1
                await models(client)
                assert storage.tokens.access_token != first.access_token
                assert storage.tokens.refresh_token != first.refresh_token
                assert set(storage.tokens.scope.split()) == {"models", "health", "keys"}
                assert server.live_tokens()
                server.revoke_all()
                fields = {"grant_type": "refresh_token", "refresh_token": storage.tokens.refresh_token,
                          **server.credentials(storage.client.client_id)}
                status, refused = server.post("/token", urllib.parse.urlencode(fields).encode())
                assert status == 400 and json.loads(refused)["error"] == "invalid_grant", refused
                # Nothing but a new consent helps from now on.
                await models(client)
    except Exception:
        if len(asked) < 2:
            raise
    else:
        raise AssertionError("a grant that has ended still works")
    finally:
        callback.close()


async def models(client):
    result = await client.call_tool("list_models", {"refresh": True})
    assert not result.is_error and result.structured_content["count"] == 3, result

