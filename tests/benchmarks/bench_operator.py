"""Our controllers at scale, beside a minimal kopf operator that does the same.

``python -m tests.benchmarks.bench_operator [--services 1000] [--people 500] [--rounds 1] [--only llmos|kopf] [--kopf-python PATH]``

Each run has a control plane of its own (`control_plane`: real etcd, API server, controller manager and scheduler of
Kubernetes; the machines are made up, see `fake_kubelet`) and ends with it. In turn, with each operator:

- ``namespaces``: so many people's namespaces are made; until all are filled (quota, limits, network policies, account,
  role binding) and marked so. Then each person's notebook server is put there: Secret, claim and pod.
- ``create``: so many ModelServices; until each has its objects, its pod is ready and its status says so.
- ``change``: all of them get another variable, which rolls each Deployment out anew; until the same again.
- ``restart``: the operator is ended and started; until it is quiet. Nothing is to be done.

Requests are those in the API server's audit log. Memory is the proportional set size when all is quiet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from llmos_hub.kubernetes.connection import KubernetesAPI, path_of
from tests.benchmarks import operator_load as load
from tests.benchmarks.control_plane import OPERATOR, Audit, ControlPlane, counted, running, what_of
from tests.support.cluster import ClusterMissing

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = ("llmos", "kopf")
QUIET = 4.0
"""Seconds without a request after which nothing more is coming."""
BUSY = 0.2
"""Seconds of CPU time in these that mean that it isn't quiet."""
PATIENCE = 300.0
NODES = 3
READS = ("get", "list", "watch")


@dataclass
class Phase:
    """The time and requests of a part of a run."""

    count: int
    seconds: float
    cpu: float
    requests: Counter[tuple[str, str]]

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    def per_object(self, *verbs: str) -> float:
        return sum(n for (verb, _), n in self.requests.items() if not verbs or verb in verbs) / self.count

    @property
    def writes(self) -> int:
        return sum(n for (verb, _), n in self.requests.items() if verb not in READS)


@dataclass
class Run:
    """One operator's."""

    phases: dict[str, Phase] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    """MiB when it was quiet, by when; ``peak`` is the largest resident set."""


# the operator


class Operator:
    """The process that is measured."""

    def __init__(self, name: str, plane: ControlPlane, options: argparse.Namespace) -> None:
        self.name, self._plane = name, plane
        self._kopf_python: str = options.kopf_python
        self._profile: bool = options.profile
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        here = self._plane.directory
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(here),
            "KUBECONFIG": str(self._plane.kubeconfig(OPERATOR)),
            "PYTHONUNBUFFERED": "1",
        }
        if self.name == "llmos":
            settings = here / "namespaces.json"
            settings.write_text(load.OPTIONS.model_dump_json(by_alias=True))
            environment |= {
                "PYTHONPATH": str(ROOT),
                "LLMOS_STORE": "kubernetes",
                "LLMOS_BACKEND": "kubernetes",
                "LLMOS_POD_NAMESPACE": load.RELEASE,
                "LLMOS_DATA_DIR": str(here / "data"),
                "LLMOS_NAMESPACE_SETTINGS": str(settings),
            }
            profile = ["-m", "cProfile", "-o", str(here / "profile")] if self._profile else []
            command = [sys.executable, "-P", *profile, "-m", "llmos_hub.app", "controllers"]
        else:
            templates = here / "templates.json"
            templates.write_text(json.dumps(load.make_templates()))
            environment["KOPF_TEMPLATES"] = str(templates)
            program = ROOT / "tests" / "benchmarks" / "kopf_operator.py"
            command = [self._kopf_python, "-m", "kopf", "run", "--all-namespaces", "--standalone", str(program)]
        log = (here / f"{self.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(command, env=environment, cwd=here, stdout=log, stderr=log)

    def stop(self) -> None:
        if self._process is not None:
            self._profile = False
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def check(self) -> None:
        """Fail unless it runs."""
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._plane.directory / f"{self.name}.log").read_text(errors="replace")
            message = f"{self.name} has ended:\n{log[-3000:]}"
            raise RuntimeError(message)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Proportional set size, in MiB."""
        return _kib(Path(f"/proc/{self.pid}/smaps_rollup"), "Pss:") / 1024

    def peak(self) -> float:
        """The largest resident set there was, in MiB."""
        return _kib(Path(f"/proc/{self.pid}/status"), "VmHWM:") / 1024


def _kib(path: Path, what: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(what))


# one run


class Measure:
    """Parts of a run."""

    def __init__(self, operator: Operator, plane: ControlPlane) -> None:
        self._operator = operator
        self._audit = Audit(plane.audit)
        self.last = 0.0
        """When the last request was answered (time.time)."""

    async def quiet(self, *wanted: tuple[load.Watched, int], begun: bool = True) -> Counter[tuple[str, str]]:
        """Wait until all is as it should be and nothing is asked any more; the requests since the last time.

        Parameters
        ----------
        wanted
            What should be, and of how many.
        begun
            Whether the operator has asked for anything yet; else the first request is waited for.
        """
        requests: Counter[tuple[str, str]] = Counter()
        calm_since = began = time.monotonic()
        cpu = self._operator.cpu()
        while time.monotonic() - calm_since < QUIET:
            await asyncio.sleep(0.2)
            self._operator.check()
            events = [event for event in self._audit.read() if what_of(event)[1] != "leases"]
            requests += counted(events)
            if events:
                begun = True
                self.last = max(datetime.fromisoformat(event["stageTimestamp"]).timestamp() for event in events)
            if self._operator.cpu() - cpu > BUSY:  # it may think for long before it asks
                cpu, calm_since = self._operator.cpu(), time.monotonic()
            if events or not begun or any(watched.done < count for watched, count in wanted):
                calm_since = time.monotonic()
            if time.monotonic() - began > PATIENCE:
                states = ", ".join(f"{watched.done} of {count}" for watched, count in wanted)
                message = f"{self._operator.name}: not done within {PATIENCE:.0f} s: {states}"
                raise RuntimeError(message)
        return requests

    async def phase(self, count: int, work: Any, *wanted: tuple[load.Watched, int]) -> Phase:
        """Give out work and wait until it is done."""
        began, cpu = time.monotonic(), self._operator.cpu()
        await work
        requests = await self.quiet(*wanted)
        seconds = max(watched.since for watched, _ in wanted) - began
        return Phase(count, seconds, self._operator.cpu() - cpu, requests)

    async def restart(self, count: int) -> Phase:
        """End it and start it with everything there."""
        self._operator.stop()
        self._audit.read()
        began = time.time()
        self._operator.start()
        requests = await self.quiet(begun=False)
        return Phase(count, self.last - began, self._operator.cpu(), requests)


async def measure(name: str, options: argparse.Namespace) -> Run:
    """One operator on a new control plane."""
    with running() as plane, contextlib.ExitStack() as stack:
        stack.enter_context(_kubelets(plane))
        operator = Operator(name, plane, options)
        if options.keep_logs:
            stack.callback(shutil.copytree, plane.directory, options.keep_logs, dirs_exist_ok=True,
                           ignore=shutil.ignore_patterns("etcd", "data"))  # fmt: skip
        stack.callback(operator.stop)
        api = KubernetesAPI(kubeconfig=plane.kubeconfig("bench"), timeout=60)
        try:
            return await _parts(operator, Measure(operator, plane), api, options)
        finally:
            await api.close()


async def _parts(operator: Operator, measured: Measure, api: KubernetesAPI, options: argparse.Namespace) -> Run:
    run, people, services = Run(), options.people, options.services
    work = load.Load(api, people, services)
    await work.prepare()
    operator.start()
    await measured.quiet(begun=False)
    run.memory["empty"] = operator.memory()
    ours = {"labelSelector": "app.kubernetes.io/managed-by=llmos"}
    async with contextlib.AsyncExitStack() as stack:

        async def follow(path: str, done: load.Done, params: dict[str, str] | None = None) -> load.Watched:
            return await stack.enter_async_context(load.Watched(api, path, done, params).following())

        namespaces = await follow(path_of("v1", "namespaces"), load.is_prepared, ours)
        run.phases["namespaces"] = await measured.phase(people, work.create_namespaces(), (namespaces, people))
        await work.create_servers()
        await measured.quiet()
        run.memory["people"] = operator.memory()
        ready = await follow(path_of(load.GROUP, "modelservices"), load.is_ready)
        rolled_out = await follow(path_of("apps/v1", "deployments"), load.is_rolled_out, ours)
        both = ((ready, services), (rolled_out, services))
        run.phases["create"] = await measured.phase(services, work.create_services(), *both)
        run.memory["created"] = operator.memory()
        run.phases["change"] = await measured.phase(services, work.change_services(1), *both)
        run.memory["changed"], run.memory["peak"] = operator.memory(), operator.peak()
        run.phases["restart"] = await measured.restart(services)
        run.memory["restarted"] = operator.memory()
    return run


@contextlib.contextmanager
def _kubelets(plane: ControlPlane) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.benchmarks.fake_kubelet", str(plane.kubeconfig("kubelet")), str(NODES)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


# what is told


def _columns(runs: dict[str, list[Run]], value: Any, form: str) -> str:
    cells = []
    for results in runs.values():
        values = [value(run) for run in results]
        text = format(statistics.median(values), form)
        if len(values) > 1:
            text += f" ({min(values):{form}} – {max(values):{form}})"
        cells.append(text)
    return " | ".join(cells)


def report(runs: dict[str, list[Run]], options: argparse.Namespace) -> None:
    """Tables as in docs/benchmarks.md."""
    names = " | ".join("**controllers**" if name == "llmos" else name for name in runs)
    rounds = max(len(results) for results in runs.values())
    print(f"\n{options.services} ModelServices, {options.people} people with a server each; "
          f"{'median of ' + str(rounds) + ' runs (range)' if rounds > 1 else 'one run'}\n")  # fmt: skip
    print(f"| | {names} |\n|{' --- |' * (len(runs) + 1)}")

    def row(title: str, value: Any, form: str) -> None:
        print(f"| {title} | {_columns(runs, value, form)} |", flush=True)

    for phase, title, noun in (
        ("namespaces", "people's namespaces made and filled", "namespace"),
        ("create", "ModelServices created, to Ready", "service"),
        ("change", "all of them changed, rolled out and Ready again", "service"),
    ):
        row(f"{title}: a second", lambda run, p=phase: run.phases[p].rate, ".1f")
        row(f"CPU per {noun}, ms", lambda run, p=phase: run.phases[p].cpu / run.phases[p].count * 1e3, ".1f")
        row(f"requests per {noun}", lambda run, p=phase: run.phases[p].per_object(), ".2f")
    row("restart with all of them there: s until quiet", lambda run: run.phases["restart"].seconds, ".1f")
    row("its CPU, s", lambda run: run.phases["restart"].cpu, ".1f")
    row("its requests, all", lambda run: sum(run.phases["restart"].requests.values()), ".0f")
    row("of these writes", lambda run: run.phases["restart"].writes, ".0f")
    for when, title in (
        ("empty", "with nothing there"),
        ("people", f"with {options.people} namespaces and servers"),
        ("created", f"and {options.services} ModelServices"),
        ("changed", "after the change of all"),
        ("restarted", "after the restart"),
        ("peak", "largest resident set until the restart"),
    ):
        row(f"memory {title}, MiB" if when != "peak" else f"{title}, MiB", lambda run, w=when: run.memory[w], ".0f")


def details(run: Run) -> None:
    """Each kind of request."""
    for name, phase in run.phases.items():
        print(f"  {name}: {phase.seconds:.1f} s, CPU {phase.cpu:.1f} s")
        for (verb, resource), count in sorted(phase.requests.items(), key=lambda item: -item[1]):
            print(f"    {count / phase.count:8.3f}  {count:6}  {verb} {resource}")


def _has_kopf(python: str) -> bool:
    done = subprocess.run([python, "-c", "import kopf, aiohttp"], check=False, capture_output=True, timeout=60)
    return done.returncode == 0


async def main(options: argparse.Namespace) -> int:
    names = [name for name in OPERATORS if options.only in (None, name)]
    if "kopf" in names and not _has_kopf(options.kopf_python):
        print("kopf is not installed, so there is nothing to compare with: pip install kopf, or name the Python that has "
              "it: --kopf-python PATH", file=sys.stderr)  # fmt: skip
        names.remove("kopf")
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            began = time.monotonic()
            try:
                run = await measure(name, options)
            except ClusterMissing as error:
                print(error, file=sys.stderr)
                return 2
            runs[name].append(run)
            print(f"{name}, run {number + 1}: {time.monotonic() - began:.0f} s", flush=True)
            details(run)
    report(runs, options)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=OPERATORS)
    parser.add_argument("--kopf-python", default=sys.executable)
    parser.add_argument(
        "--profile", action="store_true", help="of ours, the part before the restart; needs --keep-logs"
    )
    parser.add_argument("--keep-logs", help="a directory for the logs of all processes")
    sys.exit(uvloop.run(main(parser.parse_args())))
