"""A proxy that adds a token to every request: the conformance suite for servers cannot send one."""

import asyncio


async def start(target_port, token):
    """Starts the proxy on a free port; returns its server."""

    async def serve(reader, writer):
        try:
            await forward(reader, writer, target_port, token)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def forward(reader, writer, port, token):
    """Forwards one request, unchanged but for the token, and its answer as it comes. Then the connection ends."""
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    kept = [line for line in head if not line.lower().startswith((b"connection:", b"authorization:"))]
    theirs, ours = await asyncio.open_connection("127.0.0.1", port)
    try:
        added = [b"connection: close", b"authorization: Bearer " + token.encode(), b"", b""]
        ours.write(b"\r\n".join(kept + added))
        # The client ends its side when it has gone, which cancels a call.
        upload = asyncio.create_task(pipe(reader, ours))
        try:
            await pipe(theirs, writer)
        finally:
            upload.cancel()
    finally:
        ours.close()


async def pipe(reader, writer):
    while part := await reader.read(65536):
        writer.write(part)
        await writer.drain()
    writer.close()
