"""Stands between a host and a server on stdio and keeps what both write: `tap.py FILE COMMAND…`. Each line of FILE is
`>` and a message of the host, or `<` and one of the server."""

import subprocess
import sys
import threading

path, *command = sys.argv[1:]
server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
with open(path, "ab", buffering=0) as kept:

    def pass_on(source, sink, mark):
        for line in source:
            kept.write(mark + line)
            sink.write(line)
            sink.flush()
        sink.close()

    threading.Thread(target=pass_on, args=(sys.stdin.buffer, server.stdin, b">"), daemon=True).start()
    pass_on(server.stdout, sys.stdout.buffer, b"<")
    sys.exit(server.wait())
