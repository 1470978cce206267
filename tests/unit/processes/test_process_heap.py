"""Memory of a process whose threads come and go."""

import subprocess
import sys

SCRIPT = """
import ctypes, sys, threading
from llmos_hub.processes.heap import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
def work():
    return [bytes(4000) for _ in range(1000)]
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def heaps(how: str) -> int:
    """Return the number of the C library's heaps in such a process, from malloc_stats(3)."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr.count("Arena ")


def test_threads_share_one_heap():
    assert heaps("own") > heaps("shared") == 1
