"""llama.cpp on a machine without libgomp: the packaged OpenMP runtime takes its place."""

import os
import subprocess
import sys

from llmos_hub.engines.openmp import openmp_environment


def test_a_system_that_has_it_is_left_alone():
    assert openmp_environment("libc.so.6") == {}


def test_llama_cpp_loads_with_the_packaged_runtime():
    environment = openmp_environment("lib-that-is-nowhere.so.1")
    code = "import xllamacpp; print([line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line][0])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "cmeel.prefix" in done.stdout
