"""Where an app is sent its code. It sends the browser on to another origin, as claude.ai does to its desktop app."""

import http.server
import threading
import urllib.parse

ARRIVED = "Back in the app"


class Callback:
    def __init__(self):
        self.came, self.query = threading.Event(), None
        callback = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                parts = urllib.parse.urlsplit(self.path)
                if parts.path != "/callback":
                    return self.send_error(404)
                callback.query = dict(urllib.parse.parse_qsl(parts.query))
                self.send_response(302)
                self.send_header("location", f"http://127.0.0.1:{callback.app.server_port}/")
                self.send_header("content-length", "0")
                self.end_headers()
                callback.came.set()

        class App(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(ARRIVED)))
                self.end_headers()
                self.wfile.write(ARRIVED.encode())

        self.app, self.own = (http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (App, Handler))
        for server in (self.app, self.own):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.own.server_port}/callback"

    def close(self):
        for server in (self.app, self.own):
            server.shutdown()
            server.server_close()
