"""Devices of the installed build of llama.cpp, and messages about them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import xllamacpp

from llmos.errors import Unsupported
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.workload import Resources
from llmos_hub.engines.base import Machine
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.engines.llamacpp_build import Build, find_build, gpu_summary
from llmos_hub.engines.llamacpp_server import gpu_names
from llmos_hub.names import DataDir
from llmos_hub.sources.base import Header, ModelFiles
from llmos_hub.supervisor import doctor, up
from llmos_hub.supervisor.first_password import FirstPassword

L4 = Machine(cpus=8, memory=16 * 2**30, gpus=("NVIDIA L4",))
MODEL = ModelFiles("hf://a/b", "c", "/models/m.gguf", "gguf", 10**9, Header(architecture="llama", embedding_length=64))


def test_the_installed_wheel_is_asked_and_has_no_gpu():
    build = find_build()
    assert build.parameters
    kinds = {device["type"] for device in xllamacpp.get_device_info()}
    assert kinds == {xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU}
    assert build.devices == ()


def test_the_installed_wheel_on_a_gpu_box_keeps_to_the_cpus_and_says_so():
    planned = LlamaCpp().plan(ModelServiceSpec(model="hf://a/b"), MODEL, L4)
    assert planned.template.memory_limit is not None
    assert planned.memory_estimate is not None
    assert "--n-gpu-layers" in planned.template.argv
    assert "on 7 threads" in planned.summary
    assert "NVIDIA L4 is not used, since this build of llama.cpp computes on CPUs only" in planned.summary
    with pytest.raises(Unsupported, match="computes on CPUs only"):
        LlamaCpp().plan(ModelServiceSpec(model="hf://a/b", resources=Resources(gpus=1)), MODEL, L4)


@pytest.mark.parametrize(
    ("kind", "counts"), [("CPU", False), ("GPU", True), ("IGPU", True), ("ACCEL", False), ("META", False)]
)
def test_only_gpus_count_as_such(kind: str, counts: bool):
    kinds = xllamacpp.ggml_backend_dev_type
    device = {"name": "X0", "type": kinds.__members__[f"GGML_BACKEND_DEVICE_TYPE_{kind}"]}
    assert gpu_names([device], kinds) == (["X0"] if counts else [])


def test_which_gpu_there_is_and_whether_it_is_used():
    assert gpu_summary((), Build()) == ""
    assert gpu_summary(["NVIDIA L4"], Build({}, ("CUDA0",))) == "NVIDIA L4: llama.cpp computes on it (CUDA0)"
    idle = gpu_summary(["NVIDIA L4", "NVIDIA L4"], Build({}))
    assert idle.startswith("2 × NVIDIA L4: the installed build of llama.cpp computes on CPUs only")
    assert "docs/how-to/use-gpus.md" in idle


def test_the_supervisor_asks_a_process_of_its_own_and_tells_what_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert asyncio.run(up._gpus()) == "", "no NVIDIA driver here"
    monkeypatch.setattr(up, "_NVIDIA_GPUS", tmp_path)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\n[ "$3" = llmos_hub.engines.llamacpp_build ] && exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert asyncio.run(up._gpus()) == "", "the driver's directory is looked at again there, and there is none"
    options = up.UpOptions(DataDir(tmp_path))
    said = gpu_summary(["NVIDIA L4"], Build({}))
    up._announce(options, up.Console(), password=FirstPassword(""), adopted={}, took=1.0, gpus=said)
    assert f"    GPU         {said}\n" in capsys.readouterr().out


def test_doctor_says_that_a_gpu_lies_idle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "detect", lambda: L4)
    finding = doctor._gpus()
    assert (finding.level, finding.what) == ("warn", "GPU")
    assert finding.detail.startswith("NVIDIA L4: ")
    assert "docs/how-to/use-gpus.md" in finding.advice
    monkeypatch.setattr(doctor, "find_build", lambda: Build({}, ("CUDA0",)))
    assert doctor._gpus().level == "ok"
    monkeypatch.setattr(doctor, "detect", lambda: Machine(8, 2**30))
    assert doctor._gpus().detail == "none found; models compute on the CPUs"
