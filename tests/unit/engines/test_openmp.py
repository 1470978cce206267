"""llama.cpp on a machine without libgomp: the packaged OpenMP runtime takes its place."""

import subprocess
import sys

PROGRAM = """
import os, sys
from llmos_hub.engines.openmp import with_openmp
with_openmp(sys.argv[1])
import xllamacpp
print([line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line][0], sys.argv[1:], "LLMOS_OPENMP" in os.environ)
"""


def run(library):
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, library, "more"], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_a_system_that_has_it_is_left_alone():
    assert run("libc.so.6").endswith("['libc.so.6', 'more'] False\n")


def test_llama_cpp_loads_with_the_packaged_runtime_and_keeps_its_arguments():
    shown = run("lib-that-is-nowhere.so.1")
    assert "cmeel.prefix" in shown
    assert shown.endswith("['lib-that-is-nowhere.so.1', 'more'] True\n")
