"""A user's own packages: a small environment in their home directory, in front of the shared one.

It looks like a virtual environment, so that pip and uv install packages into it; the last entry of its ``sys.path`` is
the notebook environment. There is one per minor version of Python, since packages are built for one: after an upgrade
of Python a new one is made next to the old.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmos.files import replace_file

__all__ = ["ENV_BASE", "Layer"]

ENV_BASE = "LLMOS_NOTEBOOK_ENVIRONMENT"
"""Environment variable with the shared environment behind users' own packages."""
_FOLDER = ".llmos"
_LINK = "_llmos.pth"
_OURS = frozenset({_LINK, "__pycache__"})
_PROGRAMS = {"pip": "pip", "pip3": "pip", "ipython": "IPython"}
"""Commands that must see the user's own packages, with their modules; all others on PATH run without them."""


@dataclass(frozen=True)
class Layer:
    """A user's own packages in front of a shared environment.

    Attributes
    ----------
    root
        Its directory: ``~/.llmos/python3.11``.
    base
        Prefix of the shared environment.
    """

    root: Path
    base: Path

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Layer:
        """Return the layer of the current user; the shared environment is by default that of this interpreter."""
        base = Path(environ.get(ENV_BASE) or sys.prefix)
        home = Path(environ.get("HOME") or Path.home())
        return cls(home / _FOLDER / f"python{_version(base)}", base)

    @property
    def site(self) -> Path:
        """The directory of its packages."""
        return self.root / "lib" / self.root.name / "site-packages"

    @property
    def python(self) -> Path:
        """The path of its interpreter."""
        return self.root / "bin" / "python"

    @property
    def untouched(self) -> bool:
        """True if nothing was ever installed, so that nothing can be wrong with it."""
        try:
            return _OURS.issuperset(path.name for path in self.site.iterdir())
        except OSError:
            return True

    @property
    def fingerprint(self) -> str:
        """A text that changes when packages are installed or removed."""
        found = [f"{entry.name} {entry.stat(follow_symlinks=False).st_mtime_ns}" for entry in os.scandir(self.site)]
        return "\n".join([str(self.base), *sorted(found)])

    def packages(self) -> list[tuple[str, str]]:
        """Return names and versions of its packages."""
        from importlib.metadata import distributions  # takes three times as long as the rest of a kernel's start

        found = ((d.metadata["Name"] or "?", d.version) for d in distributions(path=[str(self.site)]))
        return sorted(set(found), key=lambda one: one[0].lower())

    def size(self) -> int:
        """Return its size on disk in bytes."""
        return sum(file.lstat().st_size for file in self.root.rglob("*") if not file.is_dir())

    def others(self) -> list[Layer]:
        """Return the layers of other Python versions that have packages."""
        found = [Layer(path, self.base) for path in sorted(self.root.parent.glob("python3.*")) if path != self.root]
        return [layer for layer in found if not layer.untouched]

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment variables with which kernels, terminals and their child processes find it."""
        first = [str(self.root / "bin"), str(self.base / "bin")]
        path = [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if part not in first]
        data = [str(Path(__file__).parent / "jupyter"), str(self.root / "share" / "jupyter")]
        others = [part for part in environ.get("JUPYTER_PATH", "").split(os.pathsep) if part and part not in data]
        return {
            ENV_BASE: str(self.base),
            "VIRTUAL_ENV": str(self.root),
            "PATH": os.pathsep.join([*first, *path]),
            "JUPYTER_PATH": os.pathsep.join([*data, *others]),
            "LLMOS_PATH": os.pathsep.join(first),
        }

    def ensure(self) -> bool:
        """Create all missing parts of it; return whether it is new.

        Raises
        ------
        OSError
            The home directory can't be written.
        """
        new = not self.site.is_dir()
        self.site.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.root / "bin").mkdir(exist_ok=True)
        (self.root / "etc").mkdir(exist_ok=True)
        executable = _interpreter(self.base)
        for name in ("python", "python3", self.root.name):
            _link(self.root / "bin" / name, executable)
        _link(self.root / "lib64", Path("lib"), keep=True)
        _link(self.root / "etc" / "ipython", self.base / "etc" / "ipython", keep=True)
        for name, module in _PROGRAMS.items():
            script = f'#!/bin/sh\nexec {shlex.quote(str(self.python))} -m {module} "$@"\n'
            _write(self.root / "bin" / name, script, keep=True, mode=0o755)
        # a site's or a user's own setting `user = yes` would make pip install elsewhere
        _write(self.root / "pip.conf", "[install]\nuser = no\n", keep=True)
        behind = [f"site.addsitedir({str(path)!r})" for path in _sites(self.base)]
        _write(self.site / _LINK, f"import site; {'; '.join(behind)}\n")
        # written last, because it makes the directory an environment
        version = self.root.name.removeprefix("python")
        configuration = f"home = {executable.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
        _write(self.root / "pyvenv.cfg", configuration)
        return new

    def reset(self) -> None:
        """Remove all packages; running programs keep what they have loaded."""
        import shutil

        # moved away first, since a half-deleted environment would be taken for a complete one
        aside = self.root.with_name(f"{self.root.name}.{os.getpid()}.removed")
        with contextlib.suppress(FileNotFoundError):
            self.root.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _version(base: Path) -> str:
    """Return the minor version of an environment's Python; this interpreter's if it is unknown."""
    found = [path.parent.name for path in base.glob("lib/python3.*/site-packages")]
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return (own if own in found or not found else found[0]).removeprefix("python")


def _sites(base: Path) -> list[Path]:
    """Return the directories with an environment's packages."""
    # ``lib64`` may be a symbolic link to ``lib``
    name = f"python{_version(base)}"
    places = [base / lib / name / "site-packages" for lib in ("lib", "lib64")]
    return [places[0]] if not places[1].is_dir() or places[1].samefile(places[0]) else places


def _interpreter(base: Path) -> Path:
    """Return the interpreter that an environment was made with."""
    name = f"python{_version(base)}"
    with contextlib.suppress(OSError):
        for line in (base / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                for candidate in (Path(value.strip()) / name, Path(value.strip()) / "python3"):
                    if candidate.exists():
                        return candidate
    return (base / "bin" / "python").resolve()


def _link(path: Path, target: Path, *, keep: bool = False) -> None:
    """Make a symbolic link unless it exists; with `keep`, another file in its place isn't replaced."""
    with contextlib.suppress(OSError):
        if path.readlink() == target:
            return
    if keep and path.exists():
        return
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _write(path: Path, text: str, *, keep: bool = False, mode: int = 0o644) -> None:
    """Write a file atomically unless it has this content; with `keep`, an existing file isn't changed."""
    with contextlib.suppress(OSError, ValueError):
        if (keep and path.exists()) or path.read_text(encoding="utf-8") == text:
            return
    replace_file(path, text, mode=mode)
