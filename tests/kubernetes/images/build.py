#!/usr/bin/env python3
"""build.py [hub] [notebook] [engine-cpu] [hub-5]: the images of the test cluster, without any container engine.

As root on Debian with debootstrap. A small Debian is the base, and ``images/install.sh`` runs in it step by step
as the Containerfiles do; each step is one layer, cached by what went into it, so that a change to LLMOS' own code
takes seconds. The images are written as OCI archives to ``$TESTCLUSTER_DIR/images``, where every node finds them
when it starts, and imported into the nodes that run. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oci import Config, Layer, write_archive, write_layer

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = Path(os.environ.get("TESTCLUSTER_DIR") or Path.home() / ".cache" / "llmos-testcluster")
CACHE = CLUSTER / "llmos"
TAG = "0.1.0-test"
EPOCH = 1767225600  # 2026-01-01: the time of every file, so that the same input makes the same image
SUITE = "bookworm"
BASE_PACKAGES = "python3,python3-venv,tini,ca-certificates"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
IMAGES = ("hub", "notebook", "engine-cpu")
OLDER = "hub-5"  # the Hub's image with JupyterHub 5.5, as other people's Hubs have it; for tests alone
LOCKS = {"hub": "hub", "notebook": "notebook", "engine-cpu": "engine"}
PATH = "/opt/llmos/bin:/usr/local/bin:/usr/bin:/bin"
# What a build may know of this machine's way to the package registries; none of it stays in a layer.
PASSED = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "NPM_CONFIG_REGISTRY", "npm_config_registry"),
)
CONFIGS = {"PIP_CONFIG_FILE": ("/etc/pip.conf", "~/.config/pip/pip.conf"), "UV_CONFIG_FILE": ("~/.config/uv/uv.toml",)}
CONFIGS["NPM_CONFIG_USERCONFIG"] = ("~/.npmrc",)


@dataclass(frozen=True)
class Step:
    """One layer: what runs, and what its result depends on."""

    name: str
    image: str
    inputs: tuple[Path, ...]
    script: str = "images/install.sh"


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"[{time.strftime('%T')}] images: {text}\n")
    sys.stdout.flush()


def fingerprint(parts: Iterable[str | Path]) -> str:
    """A hash over texts and over the names, modes and contents of files."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(b"text\0" + part.encode() + b"\0")
            continue
        mode = part.stat().st_mode & 0o111
        digest.update(f"file\0{part.relative_to(ROOT)}\0{mode}\0".encode())
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()[:24]


def source_files() -> tuple[Path, ...]:
    """Return the files that the wheel is made of."""
    folders = ("llmos", "llmos_hub", "llmos_server_ext", "llmos_widgets", "spawners")
    found = [ROOT / name for name in ("README.md", "LICENSE", "pyproject.toml")]
    for folder in folders:
        found += [path for path in sorted((ROOT / folder).rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return tuple(found)


def steps(image: str) -> tuple[Step, ...]:
    """The layers on top of the base."""
    if image == OLDER:
        here = Path(__file__).parent
        inputs = (here / "jupyterhub5.sh", here / "jupyterhub5.txt")
        return (*steps("hub"), Step("jupyterhub5", "hub", inputs, "tests/kubernetes/images/jupyterhub5.sh"))
    script = ROOT / "images" / "install.sh"
    locks = tuple(ROOT / "requirements" / f"{name}.txt" for name in ("build", LOCKS[image]))
    proxy = ROOT / "llmos_hub" / "supervisor" / "proxy"
    packages = (script, *locks, *([proxy / "package.json", proxy / "package-lock.json"] if image == "hub" else []))
    return (
        Step("system", image, (script,)),
        Step("packages", image, packages),
        Step("llmos", image, (script, ROOT / "requirements" / "build.txt", *source_files())),
    )


def config(image: str) -> Config:
    """Return the settings in the Containerfile after its last RUN."""
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    notebook = {"SHELL": "/bin/bash", "HOME": "/home/llmos", "JUPYTER_PATH": "/opt/llmos/share/llmos/jupyter"}
    environment |= notebook if image == "notebook" else {"PYTHONUNBUFFERED": "1"}
    commands = {
        "hub": ("llmos-hub", "--help"),
        OLDER: ("llmos-hub", "--help"),
        "notebook": ("/opt/llmos/bin/python", "-s", "-P", "-m", "llmos_spawners.singleuser"),
        "engine-cpu": ("llmos-hub", "fetch"),
    }
    return Config(
        architecture=ARCHITECTURE,
        environment=environment,
        entrypoint=("/usr/bin/tini", "-g", "--"),
        command=commands[image],
        user="1000:1000",
        directory="/home/llmos",
        created=EPOCH,
    )


class Builder:
    """Makes layers in a directory of cached ones."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.used: set[str] = set()

    def base(self) -> tuple[str, Path]:
        """A small Debian; its key and its root file system."""
        mirror = os.environ.get("DEBIAN_MIRROR")  # unset, debootstrap's own default
        key = "base-" + fingerprint([SUITE, BASE_PACKAGES, ARCHITECTURE])
        root = self.cache / key / "root"
        self.used.add(key)
        if not (self.cache / key / "done").exists():
            shutil.rmtree(self.cache / key, ignore_errors=True)
            root.mkdir(parents=True)
            say(f"debootstrap {SUITE}")
            command = [
                "debootstrap",
                "--variant=minbase",
                f"--include={BASE_PACKAGES}",
                SUITE,
                str(root),
                *([mirror] if mirror else []),
            ]
            with (self.cache / key / "log").open("wb") as log:
                run(command, log=log)
            for pattern in (
                "var/cache/apt/archives/*.deb",
                "var/lib/apt/lists/*",
                "var/log/*.log",
                "var/cache/apt/*.bin",
            ):
                for path in root.glob(pattern):
                    if path.is_file():
                        path.unlink()
            (root / "etc/resolv.conf").write_text("")  # this machine's is none of theirs; the kubelet mounts one
            (root / "etc/hostname").write_text("llmos\n")
            (self.cache / key / "done").touch()
        return key, root

    def layer(self, step: Step, below: list[tuple[str, Path]]) -> tuple[str, Path]:
        """One step on top of others; its key and the directory of what it changed."""
        key = f"{step.image}-{step.name}-" + fingerprint([below[-1][0], str(EPOCH), *step.inputs])
        self.used.add(key)
        place = self.cache / key
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            (place / "root").mkdir(parents=True)
            (place / "work").mkdir()
            began = time.monotonic()
            with (place / "log").open("wb") as log:
                in_chroot(step, place, [path for _, path in reversed(below)], self.cache / "work", log)
            shutil.rmtree(place / "work", ignore_errors=True)
            (place / "done").touch()
            say(f"{step.image}: {step.name} in {time.monotonic() - began:.0f} s")
        return key, place / "root"

    def archive(self, key: str, root: Path) -> Layer:
        """The layer as a tar, made once."""
        path = self.cache / key / "layer.tar"
        note = self.cache / key / "layer.json"
        if not note.exists():
            note.write_text(json.dumps(write_layer(root, path, EPOCH)))
        data = json.loads(note.read_text())
        return Layer(path, data["digest"], data["size"])

    def prune(self, images: Iterable[str]) -> None:
        """Drop what a build of these images no longer uses."""
        prefixes = tuple({f"{step.image}-{step.name}-" for image in images for step in steps(image)})
        for path in self.cache.iterdir():
            if path.name.startswith(prefixes) and path.name not in self.used:
                shutil.rmtree(path, ignore_errors=True)


def run(command: list[str], *, log: object, env: dict[str, str] | None = None) -> None:
    """Run it, output into the log; the log's end is shown when it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, timeout=1800, check=False
    )
    if done.returncode:
        lines = Path(log.name).read_text(errors="replace").splitlines()[-25:]
        raise SystemExit(f"{' '.join(command)[:200]} failed ({done.returncode}):\n" + "\n".join(lines))


# In a mount namespace of its own, so that nothing is left mounted however this ends. /mnt and /tmp are not the image's.
ENTER = r"""
set -eu
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$PLACE/root,workdir=$PLACE/work" "$TARGET"
mount -t tmpfs tmpfs "$TARGET/mnt"; mount -t tmpfs tmpfs "$TARGET/tmp"; chmod 1777 "$TARGET/tmp"
mkdir "$TARGET/mnt/src" "$TARGET/mnt/work" "$TARGET/mnt/etc"
mount --bind -o ro "$SOURCE" "$TARGET/mnt/src"; mount --bind "$WORK" "$TARGET/mnt/work"
cp -r "$ETC/." "$TARGET/mnt/etc/"
mount -t proc proc "$TARGET/proc"; mount --rbind /dev "$TARGET/dev"
mount --bind /etc/resolv.conf "$TARGET/etc/resolv.conf"
exec chroot "$TARGET" /usr/bin/env -i $CHROOT_ENV sh "/mnt/src/$SCRIPT" "$STEP" "$IMAGE"
"""


def in_chroot(step: Step, place: Path, lower: list[Path], work: Path, log: object) -> None:
    """Run one step of install.sh; what it changes is in ``place/root`` afterwards."""
    work.mkdir(exist_ok=True)
    target, etc = place / "target", place / "etc"
    target.mkdir()
    etc.mkdir()
    inside = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    inside |= {"LLMOS_WORK": "/mnt/work", "SOURCE_DATE_EPOCH": str(EPOCH)}
    inside |= {name: os.environ[name] for name in PASSED if os.environ.get(name)}
    bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    shutil.copyfile(bundle, etc / "ca.crt")
    inside |= dict.fromkeys(
        ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"), "/mnt/etc/ca.crt"
    )
    for variable, candidates in CONFIGS.items():
        for candidate in candidates:
            path = Path(os.environ.get(variable) or candidate).expanduser()
            if path.is_file():
                shutil.copyfile(path, etc / variable)
                inside[variable] = f"/mnt/etc/{variable}"
                break
    outside = {
        **os.environ,
        "LOWER": ":".join(map(str, lower)),
        "PLACE": str(place),
        "TARGET": str(target),
        "SOURCE": str(ROOT),
        "WORK": str(work),
        "ETC": str(etc),
        "STEP": step.name,
        "IMAGE": step.image,
        "SCRIPT": step.script,
        "CHROOT_ENV": " ".join(f"{name}={value}" for name, value in inside.items()),
    }
    run(["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER], log=log, env=outside)
    shutil.rmtree(etc)
    target.rmdir()


def reference(image: str) -> str:
    """Its name in the cluster."""
    return f"registry.local/llmos-{image}:{TAG}"


def build(image: str, builder: Builder) -> tuple[Path, list[Layer]]:
    """The image's archive, written again only when it has changed, and its layers."""
    stack = [builder.base()]
    for step in steps(image):
        stack.append(builder.layer(step, stack))
    out = CLUSTER / "images" / f"llmos-{image}.tar"
    mark = CACHE / f"{image}.key"
    key = fingerprint([stack[-1][0], repr(config(image)), TAG, (Path(__file__).parent / "oci.py")])
    layers = [builder.archive(key, root) for key, root in stack]
    if out.exists() and mark.exists() and mark.read_text() == key:
        return out, layers
    out.parent.mkdir(parents=True, exist_ok=True)
    write_archive(reference(image), out, layers, config(image))
    mark.write_text(key)
    say(f"{reference(image)}  {out.stat().st_size / 2**20:.0f} MiB")
    return out, layers


def import_into_nodes(image: str, archive: Path, layers: list[Layer]) -> None:
    """Into every node that runs and doesn't have this one; later nodes take what lies in ``images`` themselves."""
    for node in sorted((CLUSTER / "state").glob("node*")):
        mark = node / f"imported.{archive.stem}"
        fresh = mark.exists() and mark.stat().st_mtime > archive.stat().st_mtime
        if fresh or not (node / "box.ready").exists():
            continue
        began = time.monotonic()
        ctr = ["ctr", "-a", str(node / "run" / "containerd.sock"), "-n", "k8s.io"]
        listed = subprocess.run([*ctr, "content", "ls", "-q"], check=True, capture_output=True, text=True, timeout=60)
        there = set(listed.stdout.split())
        # what a node has already needn't be read again: after a change to the code that is all but 10 MB
        thin = CACHE / f"thin-{archive.name}"
        write_archive(reference(image), thin, layers, config(image), leave_out=there)
        command = [*ctr, "images", "import", str(thin)]
        try:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=600)
        finally:
            thin.unlink()
        mark.touch()
        say(f"{archive.stem} into {node.name} in {time.monotonic() - began:.0f} s")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One build at a time: two would make the same layers."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Build what is named, by default all, and import it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("images", nargs="*", help="hub, notebook, engine-cpu (by default all three), hub-5")
    parser.add_argument("--no-import", action="store_true", help="only write the archives")
    options = parser.parse_args()
    wanted = options.images or IMAGES
    known = (*IMAGES, OLDER)
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"there is no image {unknown[0]}: {', '.join(known)}")
    if os.geteuid() != 0:
        parser.error("root is needed: debootstrap and chroot")
    with alone():
        builder = Builder(CACHE)
        for image in wanted:
            archive, layers = build(image, builder)
            if not options.no_import:
                import_into_nodes(image, archive, layers)
        builder.prune(wanted)


if __name__ == "__main__":
    main()
