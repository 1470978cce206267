"""A full disk: writes are refused in time and with a message, reads continue, and it recovers by itself."""

import contextlib
import itertools
import os
import subprocess
from pathlib import Path

import httpx
import pytest

import llmos
from tests.support.platform import Platform, running_platform, wait_until

MB = 1024**2


@pytest.fixture
def disk(tmp_path):
    """Yield a small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m,nr_inodes=4000", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs root and the right to mount (CAP_SYS_ADMIN): {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, leave: int) -> None:
    """Fill the disk except for this many bytes."""
    with (disk / "filler").open("ab") as file:
        while (missing := free(disk) - leave) > 0:
            try:
                file.write(b"x" * min(MB, missing))
                file.flush()
            except OSError:
                break


serial = itertools.count()


def credential(name):
    """Return a resource with a new value each time, as an unchanged one would not be written."""
    return {"kind": "Credential", "metadata": {"name": name}, "spec": {"data": {"A": str(next(serial))}}}


def answers(platform):
    headers = {"Authorization": f"Bearer {platform.client['token']}"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    return httpx.post(f"{platform.gateway_url}/v1/chat/completions", headers=headers, json=body, timeout=60)


def saves(client, name):
    try:
        client.credentials.apply(credential(name))
    except llmos.LLMOSError:
        return False
    return True


def stopped_saving(platform):
    return "is nearly full" in platform.output.rpartition("there is room")[2]


def test_saving_stops_before_the_disk_is_full_and_goes_on_by_itself(disk, tmp_path):
    with running_platform(disk / "data") as platform:
        url, token = platform.api_url, platform.client["token"]
        with llmos.Client(url=url, token=token, gateway_url=f"{platform.gateway_url}/v1") as client:
            client.serve("demo://tiny", name="tiny", timeout=60)
            client.credentials.apply(credential("before"))
            fill(disk, 30 * MB)
            wait_until(lambda: not saves(client, "probe"), 30, "saving stops")
            with pytest.raises(llmos.errors.Unavailable, match="its disk is nearly full"):
                client.credentials.apply(credential("refused"))
            assert "before" in [found.metadata.name for found in client.credentials.list()]
            assert answers(platform).status_code == 200
            status = platform.run("status").stdout
            assert "is nearly full" in status
            assert "nothing more is saved" in status

            fill(disk, 0)  # to the last byte
            old = platform.kill("valkey")
            wait_until(lambda: readable(client), 60, "it reads again")
            assert not old.alive
            wait_until(
                lambda: platform.status()["processes"][0]["state"] == "Ready", 60, "the status is of the new one"
            )
            refused = platform.run("user", "add", "bob")
            assert refused.returncode == 1
            assert "is full" in refused.stderr
            assert answers(platform).status_code == 200
            another = Platform(disk / "another").run("up")
            assert another.returncode == 1
            assert [line for line in another.stderr.splitlines() if line] == another.stderr.splitlines()[:1]
            assert "is full" in another.stderr or "No space left" in another.stderr

            (disk / "filler").unlink()
            wait_until(lambda: saves(client, "after"), 30, "saving goes on")
            assert {"before", "after"} <= {found.metadata.name for found in client.credentials.list()}
            wait_until(lambda: "there is room on the disk again" in platform.output, 30, "the console says so")
            assert platform.status()["processes"][0]["state"] == "Ready"


def readable(client):
    with contextlib.suppress(llmos.LLMOSError):
        return bool(list(client.credentials.list()))
    return False


def test_a_disk_without_inodes_is_as_full(disk):
    with (
        running_platform(disk / "data") as platform,
        llmos.Client(url=platform.api_url, token=platform.client["token"]) as client,
    ):
        (disk / "many").mkdir()
        with contextlib.suppress(OSError):
            for number in range(10_000):
                (disk / "many" / str(number)).touch()
        wait_until(lambda: not saves(client, "probe"), 30, "saving stops")
        assert "more files" in platform.run("status").stdout
        for path in (disk / "many").iterdir():
            path.unlink()
        wait_until(lambda: saves(client, "after"), 30, "saving goes on")
