"""``llmos up``: check the machine and the data directory, start the platform, print its addresses, keep it running."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from llmos import __version__
from llmos.errors import Conflict, LLMOSError, Unavailable
from llmos_hub.names import ENV_DATA_DIR, ENV_REDIS_URL, default_data_dir
from llmos_hub.processes.http import http_request
from llmos_hub.supervisor.binaries import find_node, find_proxy
from llmos_hub.supervisor.console import Console, llmos_command, tilde
from llmos_hub.supervisor.database_files import refuse_lost_files
from llmos_hub.supervisor.detach import DETACHED_LOG
from llmos_hub.supervisor.disk import refuse_full
from llmos_hub.supervisor.first_password import FirstPassword, prepare_first_password
from llmos_hub.supervisor.hub_api import ensure_client_file
from llmos_hub.supervisor.notebook import complete_notebook
from llmos_hub.supervisor.plan import INTERNAL_PORTS, Binaries, UpOptions, make_plan
from llmos_hub.supervisor.platform_mark import is_copy, location_of
from llmos_hub.supervisor.ports import find_free_port, is_loopback, taken_by
from llmos_hub.supervisor.probes import RedisProbe
from llmos_hub.supervisor.recovery import check_people, check_secrets, recover
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.state import ProcessRecord, StateFiles
from llmos_hub.supervisor.store_check import database_id, refuse_newer_layout
from llmos_hub.supervisor.supervisor import Supervisor, adoptable, base_environment, stop_recorded
from llmos_hub.tasks import cancel
from llmos_hub.valkey.server import ServerConfig, find_valkey

__all__ = ["up"]

_NVIDIA_GPUS: Final = Path("/proc/driver/nvidia/gpus")


def up(options: UpOptions) -> int:
    """Run a platform in the foreground until it is stopped; return the exit code."""
    os.umask(0o077)
    console = Console()
    files = StateFiles(options.data_dir)
    try:
        return asyncio.run(_up(options, files, console))
    except LLMOSError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 1
    except OSError as exc:
        where = exc.filename or options.data_dir.root
        sys.stderr.write(f"{where} can't be used: {exc.strerror or exc}. Look: {llmos_command()} doctor\n")
        return 1
    finally:
        files.unlock()


async def _up(options: UpOptions, files: StateFiles, console: Console) -> int:
    began = time.monotonic()
    new = files.prepare()
    await files.lock_after_stop(
        lambda: console.event(f"LLMOS on {tilde(options.data_dir.root)} is being stopped; starting once it is")
    )
    refuse_full(options.data_dir.root)
    files.migrate()
    _settle(options, files, console)
    # the admin's name is stored only after all checks: a start that fails, say by a used port, must not fix the name
    options = replace(options, admin=files.admin or options.admin, known_database=files.database)
    secrets = Secrets.load(options.data_dir.secrets)
    running = files.records()
    binaries = _binaries(options, secrets, files, running)
    _check_public_ports(options, running)
    if options.redis_url:
        await _check_redis(options.redis_url)
    password = prepare_first_password(options.data_dir, options.admin)
    files.note(admin=options.admin)
    ports = _internal_ports(files, running)
    programs = make_plan(options, secrets, ports, binaries, files.mark)
    adopted = adoptable(programs, running)
    console.step("Data directory", f"{tilde(options.data_dir.root)}{'  (new)' if new else ''}")
    await stop_recorded(
        {name: record for name, record in running.items() if name not in adopted},
        [program.name for program in programs],
        signals={},
    )
    supervisor = Supervisor(
        programs,
        files,
        console,
        about={
            "url": f"{options.hub_url}/",
            "gateway": f"{options.gateway_url}/v1",
            "port": options.port,
            "version": __version__,
        },
        refresh_routes=(
            f"http://127.0.0.1:{ports['hub']}/hub/api/proxy",
            {"Authorization": f"Bearer {secrets.supervisor_token}"},
        ),
        valkey_url=binaries.valkey_url,
    )
    try:
        await supervisor.start(adopted)
        if not supervisor.stop_requested.is_set():
            await _log_in_page(options)
            names = " · ".join(program.name for program in programs)
            console.step("Starting", names, took=time.monotonic() - began)
            await ensure_client_file(options, secrets)
            took = time.monotonic() - began
            _announce(options, console, password=password, adopted=adopted, took=took, gpus=await _gpus())
            await _until_stopped(supervisor, files, console, binaries)
        console.line("Stopping. Servers and models are stopped as well; nothing that was saved is lost.")
    finally:
        await supervisor.stop()
    console.line(f"Stopped. Start again with: {_start_command(options)}")
    return 0


async def _until_stopped(supervisor: Supervisor, files: StateFiles, console: Console, binaries: Binaries) -> None:
    """Record that the platform is ready, and complete the notebook environment, until a stop is requested."""
    supervisor.announced()
    files.note(announced=True)
    fetching = asyncio.create_task(complete_notebook(base_environment(os.environ), console.event))
    if binaries.valkey:
        files.note(database=await database_id(binaries.valkey_url))
    await supervisor.stop_requested.wait()
    await cancel(fetching)


def _settle(options: UpOptions, files: StateFiles, console: Console) -> None:
    """Recover or check the parts of the data directory, and find out whether it is a copy."""
    data_dir = options.data_dir
    recover(options.recover, data_dir, files, console.event)
    check_secrets(data_dir, files)
    check_people(data_dir, files)
    before, now = files.place, location_of(data_dir.root)
    if is_copy(before, now):
        original = before["path"]
        said = "was restored" if original == str(data_dir.root) else f"is a copy of {original}"
        console.event(
            f"this data directory {said}: it is a platform of its own now, and what may still run elsewhere is left alone"
        )
    files.note(place=now)


async def _check_redis(url: str) -> None:
    scheme, _, rest = url.partition("://")
    name = f"{scheme}://{rest.rpartition('@')[2]}"  # without the password
    if trouble := await RedisProbe(url).check():
        raise Unavailable(f"The Redis at {name} does not answer: {trouble}.")
    await refuse_newer_layout(url, name)


def _binaries(
    options: UpOptions, secrets: Secrets, files: StateFiles, running: Mapping[str, ProcessRecord]
) -> Binaries:
    node, proxy = find_node(), find_proxy()
    if options.redis_url:
        return Binaries(sys.executable, node, proxy)
    if files.database and "valkey" not in running:
        refuse_lost_files(options.data_dir.valkey)
    binary = find_valkey()
    # in a directory of its own: the sockets in `run` are those of models, and are deleted by the controllers
    place = options.data_dir.run / "valkey"
    for directory in (options.data_dir.valkey, place):
        directory.mkdir(mode=0o700, exist_ok=True)
    config = ServerConfig(
        socket=place / "valkey.sock",
        directory=options.data_dir.valkey,
        password=secrets.valkey_password,
    )
    (place / "valkey.conf").unlink(missing_ok=True)  # of earlier versions
    return Binaries(sys.executable, node, proxy, tuple(binary.command()), config.render(), config.url)


def _check_public_ports(options: UpOptions, running: Mapping[str, ProcessRecord]) -> None:
    """Check the Hub's and the gateway's port before anything is started.

    Raises
    ------
    Conflict
        A port is used by another process, or both are the same.
    """
    if options.port == options.gateway_port:
        raise Conflict(f"The Hub and the gateway can't both use port {options.port}. Give --gateway-port another.")
    ours = {record.pid for record in running.values()}
    for port, option in ((options.port, "--port"), (options.gateway_port, "--gateway-port")):
        if owner := taken_by(options.host, port, ours):
            another = port + 100 if port + 100 <= 65535 else port - 100
            changed = replace(options, port=another) if option == "--port" else replace(options, gateway_port=another)
            raise Conflict(f"Port {port} is taken by {owner}. Use another: {_start_command(changed)}")


def _start_command(options: UpOptions) -> str:
    """Return the command that starts the platform with these options, without an external Redis's URL and password."""
    arguments = []
    if options.data_dir.root != default_data_dir():
        arguments += ["--data-dir", str(options.data_dir.root)]
    for option in ("host", "port", "gateway_port"):
        value = getattr(options, option)
        if value != getattr(UpOptions, option):
            arguments += [f"--{option.replace('_', '-')}", str(value)]
    if not os.environ.get("LLMOS_MAKE"):
        return f"{llmos_command()} up {shlex.join(arguments)}".rstrip()
    return f'make up ARGS="{shlex.join(arguments)}"' if arguments else "make up"


def _internal_ports(files: StateFiles, running: Mapping[str, ProcessRecord]) -> dict[str, int]:
    """Return the internal ports of the last start; those now used by other processes are replaced."""
    ports = files.ports
    ours = {record.pid for record in running.values()}
    for name in INTERNAL_PORTS:
        if not ports.get(name) or taken_by("127.0.0.1", ports[name], ours):
            ports[name] = find_free_port(ports.values())
    files.note(ports=ports)
    return ports


async def _log_in_page(options: UpOptions) -> None:
    """Wait until the log-in page opens through the proxy.

    Raises
    ------
    Unavailable
        It doesn't open in time.
    """
    trouble = ""
    for _ in range(100):
        try:
            status = (await http_request(f"{options.hub_url}/hub/login")).status
        except OSError as exc:
            trouble = str(exc)
        else:
            if status in (200, 302):
                return
            trouble = f"HTTP {status}"
        await asyncio.sleep(0.05)
    raise Unavailable(f"The log-in page at {options.hub_url}/hub/login does not open: {trouble}.")


async def _gpus() -> str:
    """Return a sentence about the GPUs and whether models use them; empty if there are none."""
    if not _NVIDIA_GPUS.is_dir():
        return ""
    # in another process, as the libraries that this loads would stay in the supervisor's memory
    command = (sys.executable, "-I", "-m", "llmos_hub.engines.llamacpp_build")
    try:
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""  # `llmos doctor` looks again
    return done.stdout


def _announce(
    options: UpOptions,
    console: Console,
    *,
    password: FirstPassword,
    adopted: Mapping[str, ProcessRecord],
    took: float,
    gpus: str = "",
) -> None:
    if adopted:
        console.event(f"took over what still ran: {', '.join(adopted)}")
    who = f"log in as {options.admin}{password.login}"
    gateway = f"{options.gateway_url}/v1"
    width = max(len(options.hub_url) + 1, len(gateway))
    lines = ["", "  LLMOS is ready."]
    lines.append(f"    Notebooks   {options.hub_url + '/':<{width}}   {who}")
    lines.append(
        f"    Models      {gateway:<{width}}   (OpenAI-compatible; make a key with: {llmos_command()} token --invoke-only)"
    )
    if gpus:
        lines.append(f"    GPU         {gpus}")
    if options.data_dir.root != default_data_dir():
        place = shlex.quote(str(options.data_dir.root))
        lines.append(f"    Commands    find it with: export {ENV_DATA_DIR}={place}")
    lines += (f"  {note}" for note in password.notes)
    account = "as root" if os.geteuid() == 0 else "as your own user"
    lines.append(f"  Everyone who logs in runs {account} on this machine and can read all that it can.")
    lines.append('  What that means for whom you let in: README, "Many people".')
    if not is_loopback(options.host):
        lines.append(
            f"  Warning: {options.host} is open to the network without TLS: passwords and tokens can be read on the way. "
            "Put a TLS proxy in front, or leave --host out."
        )
    if options.redis_url and not os.environ.get(ENV_REDIS_URL):
        lines.append(
            f"  Others on this machine can read --redis-url's password in the list of processes; {ENV_REDIS_URL} hides it."
        )
    following = "" if adopted else f"; the next start takes about {max(1, round(took))} s"
    if options.detached:
        log = tilde(options.data_dir.logs / DETACHED_LOG)
        lines.append(
            f"  It runs without this terminal. Stop it with: {llmos_command()} down. What happens is in {log}."
        )
    else:
        lines.append(f"  Ctrl-C stops everything{following}; to run without a terminal: {llmos_command()} up --detach")
    console.line("\n".join([*lines, ""]))  # at once, so that who waits for the first line finds all
