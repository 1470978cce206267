"""Memory of a process whose helpers come and go."""

import subprocess
import sys

SCRIPT = """
import sys, threading
from llmos_hub.processes import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
def work():
    return [bytes(4000) for _ in range(1000)]
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(line.split("-")[0].endswith("000000") and " rw-p 00000000 00:00 0" in line
          for line in open("/proc/self/maps") if len(line.split()) == 5))
"""


def heaps(how: str) -> int:
    """How many heaps of threads (64 MiB each, aligned to it) the process has."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


def test_threads_share_one_heap():
    assert heaps("own") > heaps("shared") == 0
