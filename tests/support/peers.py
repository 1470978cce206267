"""Two programs that know each other: ``python peers.py PORT (HUB | HOST:HUB)``.

With a port, a head: it writes ``I am ID``, with an id of this start, and answers every request there with the id. With
an address, a worker: it asks there again and again, and writes ``met ID`` for each other id. At PORT, both answer
requests with 200; a worker does once it has met a head.
"""

from __future__ import annotations

import http.server
import sys
import threading
import time
import urllib.request
import uuid


class Server(http.server.ThreadingHTTPServer):
    """A server that answers every GET with a text."""

    daemon_threads = True

    def __init__(self, port: int, text: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.text = text.encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_: object) -> None:
        pass


def lead(hub: int) -> None:
    name = uuid.uuid4().hex
    threading.Thread(target=Server(hub, name).serve_forever, daemon=True).start()
    print("I am", name, flush=True)


def follow(address: str, met: threading.Event) -> None:
    last = ""
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
                name = answer.read().decode()
        except OSError:
            name = last
        if name != last:
            print("met", name, flush=True)
            last = name
            met.set()
        time.sleep(0.05)


def main() -> None:
    port, other = sys.argv[1:]
    if ":" in other:
        met = threading.Event()
        threading.Thread(target=follow, args=(other, met), daemon=True).start()
        met.wait()
    else:
        lead(int(other))
    Server(int(port), "ok").serve_forever()


if __name__ == "__main__":
    main()
