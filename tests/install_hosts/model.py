"""A model's API on loopback that answers one word and records the tools that it is offered: model.py RECORD.

Continue connects to MCP servers only when it asks a model. Prints its port.
"""

import http.server
import json
import sys

CHUNK = {
    "id": "1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "stub",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "done"}, "finish_reason": "stop"}],
}


class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open(sys.argv[1], "a", encoding="utf-8") as record:
            for tool in request.get("tools", []):
                print(tool["function"]["name"], file=record)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n".encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
print(server.server_port, flush=True)
server.serve_forever()
