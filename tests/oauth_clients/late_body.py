"""A client whose request arrives in two parts, as those of the Python SDK do: the challenge may be there before its body."""

import json
import re
import select
import socket
import urllib.parse

# What is sent after the challenge, on the same connection.
METADATA = "/.well-known/oauth-protected-resource/mcp"


def connect(server, *_):
    """The challenge is read to its end, and the connection goes on to the metadata (RFC 9112, sections 9.3 and 9.6)."""
    authority = urllib.parse.urlsplit(server.origin).netloc
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    head = f"POST /mcp HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n" \
           f"accept: application/json, text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    follow = f"GET {METADATA} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.tap.target), 30) as connection:
        connection.sendall(head.encode())
        # Time for a server that does not wait for the body.
        select.select([connection], [], [], 1)
        try:
            connection.sendall(body + follow.encode())
            answers = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            raise AssertionError(f"the connection was closed with the challenge, unannounced: {error!r}") from None
    # A body ends without a line break.
    found = re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)
    assert found == [b"401", b"200"], f"the connection was closed with the challenge, unannounced: {found}"
