"""``llmos-hub``: the platform's own program; each subcommand imports only what it needs.

Options are plain arguments, not traits: the supervisor stays in memory as long as the platform runs,
and the processes it starts read their settings from the environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from llmos.errors import LLMOSError, UsageError
from llmos.trust import trust_site
from llmos_hub.names import (
    DEFAULT_GATEWAY_PORT,
    DEFAULT_PORT,
    ENV_REDIS_URL,
    RECOVERABLE,
    DataDir,
    default_data_dir,
)

__all__ = ["build_parser", "main"]

_PROGRAMS = {"fetch": "llmos_hub.sources.fetch", "mirror": "llmos_hub.mirror", "bundle": "llmos_hub.bundle.command"}
"""Subcommands with arguments of their own, and the modules whose `main` takes them."""
_PROCESSES = {
    "api": "llmos_hub.api.app",
    "gateway": "llmos_hub.gateway.app",
    "controllers": "llmos_hub.controllers.runner",
}
"""Subcommands that only read the environment, and the modules whose `serve` takes its settings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand, and return the exit code: 0 for success, 1 for an error, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    trust_site(os.environ)
    try:
        if arguments and arguments[0] in _PROGRAMS:
            return int(import_module(_PROGRAMS[arguments[0]]).main(arguments[1:]))
        if len(arguments) == 1 and arguments[0] in _PROCESSES:
            return _serve(arguments[0])
        options = build_parser().parse_args(arguments)
        if options.command == "up" and options.detach:
            from llmos_hub.supervisor.detach import detach

            return detach(DataDir(options.data_dir), [word for word in arguments if word != "--detach"])
        return _dispatch(options)
    except UsageError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    except LLMOSError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except (ImportError, AttributeError, SyntaxError, SystemError):  # another version of a package, or a part of one
        from llmos.python.damaged import explain_damage

        if not (damage := explain_damage(sys.prefix)):
            raise
        sys.stderr.write(f"{damage}\n")
        return 1


def _serve(name: str) -> int:
    import asyncio

    from llmos_hub.processes.heap import share_one_heap
    from llmos_hub.settings import ProcessSettings

    share_one_heap()
    settings = ProcessSettings.from_environment()
    serve = import_module(_PROCESSES[name]).serve
    try:
        import uvloop
    except ImportError:  # pragma: no cover - an extra on platforms that have it
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))
    return 0


def _dispatch(options: argparse.Namespace) -> int:
    data_dir = DataDir(options.data_dir)
    if options.command == "up":
        from llmos_hub.supervisor.detach import ENV_DETACHED
        from llmos_hub.supervisor.plan import UpOptions
        from llmos_hub.supervisor.up import up

        return up(
            UpOptions(
                data_dir=data_dir,
                host=options.host,
                port=options.port,
                gateway_port=options.gateway_port,
                redis_url=options.redis_url,
                admin=os.environ.get("LLMOS_ADMIN_USER", "admin").strip().lower() or "admin",
                recover=options.recover,
                detached=bool(os.environ.pop(ENV_DETACHED, "")),
            )
        )
    if options.command == "down":
        from llmos_hub.supervisor.down import down

        return down(data_dir)
    if options.command == "status":
        from llmos_hub.supervisor.status import status

        return status(data_dir, as_json=options.json)
    if options.command == "doctor":
        from llmos_hub.supervisor.doctor import doctor

        return doctor(data_dir, port=options.port, gateway_port=options.gateway_port, host=options.host)
    from llmos_hub.supervisor import account_commands

    if options.command == "token":
        return account_commands.token(
            data_dir, user=options.user, invoke_only=options.invoke_only, expires=options.expires, note=options.note
        )
    if options.command == "group":
        return account_commands.add_group(data_dir, options.name, inherit=options.inherit)
    if options.action == "add":
        return account_commands.add_user(data_dir, options.name, admin=options.admin, inherit=options.inherit)
    if options.action == "list":
        return account_commands.list_users(data_dir, as_json=options.json)
    if options.action == "delete":
        return account_commands.delete_user(data_dir, options.name, yes=options.yes)
    return account_commands.reset_password(data_dir, options.name, stop_servers=options.stop_servers)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f'"{text[:20]}" is not a port (1 to 65535)')
    return int(text)


def _redis_url(text: str) -> str:
    if text and not text.startswith(("unix://", "redis://", "rediss://")):
        raise argparse.ArgumentTypeError("give unix://:PASSWORD@/path.sock or redis://:PASSWORD@host:6379/0")
    return text


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _add_listen_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help=f"the Hub's port (default: {DEFAULT_PORT})")
    parser.add_argument(
        "--gateway-port",
        type=_port,
        default=DEFAULT_GATEWAY_PORT,
        help=f"the models' port (default: {DEFAULT_GATEWAY_PORT})",
    )


def _add_up_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--redis-url",
        type=_redis_url,
        default=os.environ.get(ENV_REDIS_URL, ""),
        help=f"a Valkey or Redis of your own instead of the embedded one (better in {ENV_REDIS_URL}: arguments can be read by others)",
    )
    parser.add_argument(
        "--detach", action="store_true", help="return to the shell once it is ready, and continue in the background"
    )
    parser.add_argument(
        "--recover",
        default="",
        choices=RECOVERABLE,
        help="continue without a lost or damaged part of the data; the message of a refused start names it",
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; people type ``llmos``, which passes the arguments on."""
    parser = argparse.ArgumentParser(
        prog="llmos", description="Runs an LLMOS platform on this machine.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    data_dir = argparse.ArgumentParser(add_help=False)
    data_dir.add_argument(
        "--data-dir",
        type=_path,
        default=default_data_dir(),
        help="directory of all state (default: LLMOS_DATA_DIR, else ~/.local/share/llmos, as root /var/lib/llmos)",
    )

    def add(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=text, epilog=f"example: {example}", parents=[data_dir], allow_abbrev=False
        )

    up = add("up", "Start everything and keep it running until Ctrl-C.", "llmos up --port 8100")
    _add_listen_options(up)
    _add_up_options(up)
    add("down", "Stop everything, servers and models included.", "llmos down")
    status = add("status", "Show the running processes, their start times and memory.", "llmos status --json")
    status.add_argument("--json", action="store_true", help="print JSON")
    doctor = add("doctor", "Check this machine for problems that affect LLMOS.", "llmos doctor")
    _add_listen_options(doctor)
    token = add("token", "Create a token and print it.", "llmos token --invoke-only --expires 30d --note laptop")
    token.add_argument("--user", default="", help="the token's user (default: the first admin)")
    token.add_argument("--invoke-only", action="store_true", help="allow only calls of models")
    token.add_argument("--expires", default="90d", help="lifetime: 12h, 30d, never (default: 90d)")
    token.add_argument("--note", default="", help="a note shown on the Hub's token page")
    _add_user_actions(add("user", "Manage people and their passwords.", "llmos user add ada"))
    group = add("group", "Create a group, whose members share a namespace.", "llmos group add vision")
    groups = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = groups.add_parser("add", help="create a group", parents=[_late()])
    new.add_argument("name")
    new.add_argument("--inherit", action="store_true", help="take over the data of an earlier group of that name")
    return parser


def _late() -> argparse.ArgumentParser:
    """Return a parser for ``--data-dir`` after the action, without a default, which would override an earlier value."""
    late = argparse.ArgumentParser(add_help=False)
    late.add_argument("--data-dir", type=_path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return late


def _add_user_actions(user: argparse.ArgumentParser) -> None:
    actions = user.add_subparsers(dest="action", required=True, metavar="ACTION")
    late = _late()
    new = actions.add_parser("add", help="create a person and print a one-time password", parents=[late])
    new.add_argument("name")
    new.add_argument("--inherit", action="store_true", help="take over the data of an earlier person of that name")
    new.add_argument("--admin", action="store_true", help="make the person an admin")
    password = actions.add_parser(
        "password", help="end sessions and tokens, set a new one-time password and print it", parents=[late]
    )
    password.add_argument("name")
    password.add_argument("--stop-servers", action="store_true", help="stop the person's servers as well")
    people = actions.add_parser("list", help="list people, and who has a password", parents=[late])
    people.add_argument("--json", action="store_true", help="print JSON")
    delete = actions.add_parser("delete", help="delete a person and stop their servers", parents=[late])
    delete.add_argument("name")
    delete.add_argument("--yes", action="store_true", help="don't ask for confirmation")


if __name__ == "__main__":
    sys.exit(main())
