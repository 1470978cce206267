"""The process in which llama.cpp serves one model: ``python -m llmos_hub.engines.llamacpp_server``.

It runs llama.cpp's own server through `xllamacpp`: this module sets its parameters and its socket, and ends it on
SIGTERM. It is a separate process because llama.cpp ends the whole process on some invalid models. There are few
imports, because they add to the time until a model answers.

Arguments: ``--socket PATH --model PATH [llama.cpp's flags] [-- the user's flags]``; or ``--describe``, which prints
parameters and devices as JSON. In a pod, which has its own network, PATH is ``HOST:PORT``.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from llmos_hub.engines.llamacpp_arguments import BadArgument, parse, schema_of
from llmos_hub.engines.openmp import with_openmp

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["gpu_names", "main"]

_LOGGED = 0.05
"""Seconds for llama.cpp to write the lines that it has logged."""


def _fail(message: str) -> NoReturn:
    """Exit with a last line that says why."""
    sys.stderr.flush()
    time.sleep(_LOGGED)
    # llama.cpp logs from a thread of its own, which must not write after the last line
    last = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.write(last, f"llama.cpp did not start: {message}\n".encode(errors="backslashreplace"))
    os._exit(1)  # not by SystemExit: threads of llama.cpp may keep the interpreter from exiting


def _describe() -> None:
    """Print all parameters with their types, and the GPUs that this build can compute on."""
    import json

    from xllamacpp import CommonParams, get_device_info, ggml_backend_dev_type

    schema = {name: [p.kind, *p.choices] for name, p in schema_of(CommonParams()).items()}
    devices = gpu_names(get_device_info(), ggml_backend_dev_type)
    json.dump({"parameters": schema, "devices": devices}, sys.stdout)


def gpu_names(devices: Sequence[Mapping[str, Any]], kinds: Any) -> list[str]:
    """Return the names of the devices that are GPUs: not CPUs, nor accelerators of CPUs (BLAS, AMX).

    Parameters
    ----------
    devices
        From `xllamacpp.get_device_info`.
    kinds
        The enumeration of their types.
    """
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return [str(device["name"]) for device in devices if device["type"] in gpus]


def _set(parameters: Any, path: str, value: Any) -> None:
    """Set a parameter by its dotted name, and convert the value to its type."""
    *owners, name = path.split(".")
    owner = parameters
    for each in owners:
        owner = getattr(owner, each)
    if isinstance(value, dict) and set(value) == {"file"}:
        with open(value["file"], encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be the slowest import here
            value = file.read()
    kind = type(getattr(owner, name))
    if path == "lora_adapters":
        value = [_adapter(str(item)) for item in value]
    elif path == "speculative.types":
        value = [_member(type(getattr(owner, name)[0]), str(item)) for item in value]
    elif kind is set:
        value = {str(item) for item in value}
    elif hasattr(kind, "__members__"):
        value = _member(kind, value)
    setattr(owner, name, value)


def _member(kind: Any, short: str) -> Any:
    """Return an enumeration's member by its short name."""
    wanted = short.lower().replace("-", "_")
    for name, member in kind.__members__.items():
        if name.lower().endswith("_" + wanted):
            return member
    raise BadArgument(f'"{short[:40]}" is not one of {", ".join(kind.__members__)}')


def _adapter(text: str) -> Any:
    """Return a LoRA adapter that is given as ``PATH`` or ``PATH:SCALE``."""
    from xllamacpp import CommonAdapterLoraInfo

    path, colon, scale = text.rpartition(":")
    adapter = CommonAdapterLoraInfo()
    adapter.path, adapter.scale = (path, float(scale)) if colon else (text, 1.0)
    return adapter


def _parameters(socket: str, ours: Sequence[str], users: Sequence[str]) -> Any:
    from xllamacpp import CommonParams

    parameters = CommonParams()
    host, port = _address(socket) or (socket, 0)
    parameters.hostnames = [host]
    parameters.port = port
    schema = schema_of(parameters)
    values: Mapping[str, Any] = {**parse(ours, schema, trusted=True), **parse(users, schema)}
    for path, value in values.items():
        try:
            _set(parameters, path, value)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise BadArgument(f"{path} can't be {value!r}: {error}") from error
    return parameters


def _address(socket: str) -> tuple[str, int] | None:
    """Return host and port if `socket` is an address; None if it is a path.

    >>> _address("0.0.0.0:8080"), _address("[::]:8080"), _address("/run/a:1.sock")
    (('0.0.0.0', 8080), ('::', 8080), None)
    """
    host, colon, port = socket.rpartition(":")
    if not colon or "/" in socket or not port.isdigit():
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _make_way(socket: str) -> None:
    """Remove a socket that an earlier process left; fail if the path is anything else."""
    if _address(socket) is not None:
        return
    if not socket.endswith(".sock"):
        _fail(f"the socket's name must end in .sock, {socket} doesn't")
    try:
        kind = os.lstat(socket).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        _fail(f"{socket} exists and is not a socket")
    os.unlink(socket)  # noqa: PTH108 - see above


def _serve_until_told(socket: str) -> NoReturn:
    def stop(_number: int, _frame: object) -> NoReturn:
        if os.path.exists(socket):  # noqa: PTH110
            os.unlink(socket)  # noqa: PTH108
        sys.stderr.write("llama.cpp stopped, as asked.\n")
        sys.stderr.flush()
        os._exit(0)  # requests under way are broken off: a replica is taken out of service before it is stopped

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        signal.pause()


def main(argv: Sequence[str]) -> None:
    """Serve until SIGTERM; if the start fails, exit with status 1 and a last line that says why.

    Until the model is loaded, signals have their default effect, which is to end at once.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with_openmp()
    if list(argv) == ["--describe"]:
        _describe()
        return
    if len(argv) < 4 or argv[0] != "--socket" or argv[2] != "--model":
        _fail("usage: --socket PATH --model PATH [flags] [-- flags]")
    socket, model, rest = argv[1], argv[3], list(argv[4:])
    cut = rest.index("--") if "--" in rest else len(rest)
    try:
        import xllamacpp
    except ImportError as error:
        _fail(f"xllamacpp can't be imported: {error}. Is it installed, and the system's libgomp (package libgomp1)?")
    try:
        parameters = _parameters(socket, ["--model.path", model, *rest[:cut]], rest[cut + 1 :])
    except BadArgument as error:
        _fail(f"{error}" if str(error).endswith("?") else f"{error}.")
    _make_way(socket)
    mask = os.umask(0o117)  # the socket is for owner and group; access is restricted by its directory
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError:
        _fail(f"it can't load {model} with these settings; the lines above say why.")
    os.umask(mask)
    if _address(socket) is None and not os.path.exists(socket):  # noqa: PTH110 - see above
        _fail(f"it listens at {server.listening_address} instead of {socket}.")
    _serve_until_told(socket)


if __name__ == "__main__":
    main(sys.argv[1:])
