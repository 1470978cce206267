"""A tiny HTTP server in place of a model engine, with faults on demand.

``python fake_engine.py (--socket PATH | --port N) [--start-delay S] [--name TEXT] [--ballast MB]``

GET /health responds with 200, or 503 after /unready; everything else with 200 and the name. Commands by GET:
/unready /ready /hang (no more responses) /leak?MB /crash?CODE /say?TEXT (to the log) /slow?SECONDS
/hold?PATH (logs "holding" and responds once the file exists)
/child (starts a process that leaves the session) /env?NAME.
On SIGTERM it stops listening, completes running responses, and exits with 0.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import unquote

state = {"ready": True, "hang": False, "busy": 0}
hoard: list[bytearray] = []
lock = threading.Lock()


def respond(path: str, name: str) -> tuple[int, str]:
    verb, _, value = path.lstrip("/").partition("?")
    value = unquote(value)
    if verb == "health":
        return (200, "ok") if state["ready"] else (503, "not ready")
    if verb in {"ready", "unready"}:
        state["ready"] = verb == "ready"
    elif verb == "hang":
        state["hang"] = True
    elif verb == "leak":
        hoard.append(bytearray(b"x") * (int(value) * 2**20))
    elif verb == "crash":
        print(f"crashing with {value}", flush=True)
        os._exit(int(value or 1))
    elif verb == "say":
        print(value, flush=True)
    elif verb == "slow":
        time.sleep(float(value))
    elif verb == "hold":
        print("holding", flush=True)
        while not os.path.exists(value):  # noqa: PTH110 - it starts faster without pathlib
            time.sleep(0.005)
    elif verb == "child":
        child = subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(600)"], start_new_session=True)
        child.returncode = 0
        return 200, str(child.pid)
    elif verb == "env":
        return 200, os.environ.get(value, "")
    elif verb == "environ":
        return 200, " ".join(sorted(os.environ))
    return 200, name


def serve(connection: socket.socket, name: str) -> None:
    with connection:
        try:
            data = connection.recv(65536).decode()
            if data:
                while state["hang"]:
                    time.sleep(1)
                status, body = respond(data.split(" ")[1], name)
                connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError:
            pass
        finally:
            with lock:
                state["busy"] -= 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket")
    parser.add_argument("--port", type=int)
    parser.add_argument("--start-delay", type=float, default=0)
    parser.add_argument("--name", default="fake")
    parser.add_argument("--ballast", type=int, default=0)
    options = parser.parse_args()
    ballast = bytearray(b"x") * (options.ballast * 2**20)
    print(f"{options.name} starts", flush=True)
    time.sleep(options.start_delay)
    if options.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(options.socket)
    else:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", options.port))
    server.listen(128)
    stopping = threading.Event()

    def stop(*_: object) -> None:
        print(f"{options.name} stops", flush=True)
        stopping.set()
        server.close()

    signal.signal(signal.SIGTERM, stop)
    while not stopping.is_set():
        try:
            connection, _ = server.accept()
        except OSError:
            break
        with lock:
            state["busy"] += 1
        threading.Thread(target=serve, args=(connection, options.name), daemon=True).start()
    while state["busy"] and not state["hang"]:
        time.sleep(0.01)
    del ballast


if __name__ == "__main__":
    main()
