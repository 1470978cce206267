"""``hf://org/repo[@revision][:file]``: models of the Hugging Face Hub, or of a server with the same API.

Repositories are looked up with ``huggingface_hub``. Files are fetched by `download`, since that library starts a file
from the beginning after an interruption, and a model may have 40 GB. ``HF_ENDPOINT`` and ``HF_TOKEN`` are used, but not
a token in the home directory, since it isn't that of the person who requests the model.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import httpx
import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llmos.errors import Invalid, SourceFailed
from llmos.proxies import proxy_advice
from llmos_hub.failures import reason
from llmos_hub.sources.base import FetchProgress, Header, ModelFiles, Reporter
from llmos_hub.sources.cache import Cache, hash_of
from llmos_hub.sources.download import Meter, Remote, RequestRefused, download, download_beginning, new_client
from llmos_hub.sources.gguf_files import Candidate, candidates, choose, reads_like_a_companion
from llmos_hub.sources.gguf_header import Outline, read_header, read_outline

__all__ = ["ModelHub", "fetch", "parse"]

_TIMEOUT: Final = 10.0
_LARGEST_BY_HTTP: Final = 50 * 10**9
"""Maximum size in bytes of a file that the Hub's CDN serves by plain HTTP, where a transfer can be resumed."""
_BEGINNING: Final = 64 * 2**10
"""Number of bytes of a file that are read before it is chosen: type and sizes come before the long lists."""
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_URI = re.compile(r"^hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>.+))?$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a repository at one commit."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class _Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: dict[str, _File]


def parse(uri: str) -> tuple[str, str | None, str | None]:
    """Return repository, revision and file (or quantization) of a URI.

    >>> parse("hf://ada/tiny-GGUF@main:tiny-Q8_0.gguf")
    ('ada/tiny-GGUF', 'main', 'tiny-Q8_0.gguf')

    Raises
    ------
    SourceFailed
        The URI is malformed.
    """
    found = _URI.match(uri)
    if found is None:
        raise SourceFailed(
            f'"{uri[:120]}" should read hf://org/repo, hf://org/repo:file.gguf or hf://org/repo@revision:file.gguf'
        )
    return found["repo"], found["revision"], found["file"]


def _token(text: str) -> str | None:
    """Return the token in a form that can be sent; None if there is none.

    Raises
    ------
    SourceFailed
        It can't be sent. (The library's own error would quote the token.)
    """
    token = text.strip()
    if not (token.isascii() and token.isprintable()):
        raise SourceFailed(
            "HF_TOKEN holds characters that can't be sent, such as a line end in the middle. Enter the token again: "
            "one line with its letters and digits only."
        )
    return token or None


def _endpoint(address: str) -> str:
    """Return the hub's address without a slash at its end.

    Raises
    ------
    SourceFailed
        It is not an HTTP address. The message does not quote it, since it may hold a password.
    """
    address = address.rstrip("/")
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise SourceFailed("HF_ENDPOINT is not an address of a model hub. Write one such as https://models.example.org")
    return address


def fetch(uri: str, directory: Path, report: Reporter) -> ModelFiles:
    """Fetch a model of the hub in ``HF_ENDPOINT`` with the token in ``HF_TOKEN``; see `ModelHub.fetch`."""
    return ModelHub().fetch(uri, directory, report)


class ModelHub:
    """A model hub, and the token for it."""

    def __init__(self) -> None:
        self._endpoint = _endpoint(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)
        self._token = _token(os.environ.get("HF_TOKEN", ""))

    @property
    def _host(self) -> str:
        return httpx2.URL(self._endpoint).host

    def fetch(self, uri: str, directory: Path, report: Reporter) -> ModelFiles:
        """Fetch a model into the cache, at the commit that its revision points to now.

        If the hub can't be reached, files that were fetched before under the same URI are used, and the note says so.

        Raises
        ------
        SourceFailed
            There is no such repository or file, it is gated, or the transfer failed.
        Invalid
            The repository has no file that an engine here can read, or the file is damaged.
        """
        repo, revision, wanted = parse(uri)
        cache = Cache(directory)
        known = cache.recorded(uri)
        if known and revision and known.revision == revision and _COMMIT.match(revision):
            return known  # a commit never changes
        with cache.exclusively(uri, report) as tell:
            try:
                repository = self._look_up(repo, revision)
            except _Unreachable as unreachable:
                known = cache.recorded(uri)
                if known is None:
                    raise SourceFailed(str(unreachable)) from unreachable
                note = f"{self._host} can't be reached; this is commit {known.revision[:8]}, fetched before"
                return ModelFiles.load({**known.dump(), "note": note})
            known = cache.recorded(uri)  # perhaps fetched by the process that had the lock
            if known and known.revision == repository.commit and not _is_to_be_chosen_again(known, wanted):
                return known
            chosen, reason = self._choose(repository, wanted, cache)
            tell(FetchProgress("", 0, message=f"{reason}."))
            path, size, header = self._fetch_files(repository, chosen, cache, tell)
            return cache.record(ModelFiles(uri, repository.commit, str(path), "gguf", size, header, note=reason))

    def _look_up(self, repo: str, revision: str | None) -> _Repository:
        """Return the repository's commit and files."""
        api = HfApi(endpoint=self._endpoint, token=self._token or False)
        try:
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT)
        except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise self._refusal(repo, revision, error) from error
        except HFValidationError as error:
            raise SourceFailed(
                f'"{repo}" is not the name of a repository: letters, digits, "-", "_" and ".", at most 96.'
            ) from error
        except OfflineModeIsEnabled as error:
            raise _Unreachable(f"{repo} can't be looked up: HF_HUB_OFFLINE is set on this machine.") from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status >= 500 or status == 429:
                raise _Unreachable(f"{self._host} has trouble (HTTP {status}). Try again in a minute.") from error
            raise SourceFailed(
                f"{self._host} answered HTTP {status} for {repo}."
                + (" Is the token in HF_TOKEN still valid?" if status == 401 else "")
            ) from error
        except httpx2.HTTPError as error:
            raise _Unreachable(self._no_connection(repo, error)) from error
        files = {
            s.rfilename: _File(
                s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs and _SHA256.match(s.lfs.sha256) else None
            )
            for s in info.siblings or ()
        }
        if not info.sha or not _COMMIT.match(info.sha):  # it becomes part of a file name
            raise SourceFailed(f"{self._host} names no commit for {repo}. Is HF_ENDPOINT a model hub?")
        return _Repository(repo, info.sha, files)

    def _no_connection(self, repo: str, error: Exception) -> str:
        return (
            f"{repo} can't be looked up: no connection to {self._host} ({reason(error)}). Is this machine "
            f"online? {proxy_advice(os.environ)}; for a mirror, HF_ENDPOINT. Without a network, use "
            "demo://smollm2, demo://tiny or file:///path/model.gguf."
        )

    def _refusal(self, repo: str, revision: str | None, error: Exception) -> SourceFailed:
        if isinstance(error, GatedRepoError):
            return SourceFailed(self._gated(repo))
        if isinstance(error, RevisionNotFoundError):
            return SourceFailed(f'{repo} has no revision "{revision}". Leave it out for the newest: hf://{repo}')
        with_token = "or the token in HF_TOKEN may not see it" if self._token else "or it is private"
        return SourceFailed(
            f'There is no repository "{repo}" on {self._host}, {with_token}. Check the spelling at '
            f"{self._endpoint}/{repo}; for a private one name a Credential with HF_TOKEN in spec.credentialRef."
        )

    def _gated(self, repo: str) -> str:
        if self._token:
            return (
                f"{repo} is gated, and the token in HF_TOKEN does not open it. Accept its terms at "
                f"{self._endpoint}/{repo} with the account that the token belongs to, then try again."
            )
        return (
            f"{repo} is gated. Accept its terms at {self._endpoint}/{repo}, make a token at "
            f"{self._endpoint}/settings/tokens, keep it in a Credential with the key HF_TOKEN, and name that in spec.credentialRef."
        )

    def _fetch_files(
        self, repository: _Repository, chosen: Candidate, cache: Cache, report: Reporter
    ) -> tuple[Path, int, Header]:
        """Fetch all files of the model; return the first one's path, the total size, and the header."""
        files = [repository.files[path] for path in chosen.files]
        here = {f.path for f in files if f.sha256 and cache.blob(f.sha256).exists()}
        missing = sum(f.size - _begun(cache, repository, f) for f in files if f.path not in here)
        cache.check_space(missing, chosen.title)
        blobs, before = [], 0
        for file in files:
            name = PurePosixPath(file.path).name
            # another URI may have the same file
            with cache.exclusively(_partial_name(repository, file), report, title=name) as tell:
                meter = Meter(tell, name, chosen.size, before=before)
                blobs.append((name, self._fetch_file(repository, file, cache, meter)))
            before += file.size
        paths = cache.name(blobs)
        return paths[0], sum(path.stat().st_size for path in paths), read_header(*paths)

    def _choose(self, repository: _Repository, wanted: str | None, cache: Cache) -> tuple[Candidate, str]:
        """Choose the model in the repository; return it with the reason."""
        models = candidates({path: file.size for path, file in repository.files.items()})
        if not models:
            raise self._nothing_to_serve(repository)
        unreachable = False

        def read(path: str) -> Outline | None:
            nonlocal unreachable
            try:
                return None if unreachable else self._look_at(repository, path, cache, client)
            except httpx.TransportError:
                unreachable = True  # wait for one timeout, not for eight
                return None

        with new_client() as client:
            choice = choose(models, wanted, read)
        if choice.candidate is None:
            raise SourceFailed(f"{repository.name}: {choice.reason}.")
        return choice.candidate, choice.reason

    def _look_at(self, repository: _Repository, path: str, cache: Cache, client: httpx.Client) -> Outline | None:
        """Return the outline of a file; None if it can't be read, so that only the name can be used.

        Raises
        ------
        httpx.TransportError
            The hub doesn't answer.
        """
        file = repository.files[path]
        if file.sha256 and (blob := cache.blob(file.sha256)).exists():
            with blob.open("rb") as content:
                return read_outline(content.read(_BEGINNING), path)
        try:
            beginning = download_beginning(self._remote(repository, file), _BEGINNING, client)
        except RequestRefused:
            return None
        return read_outline(beginning, path)

    def _remote(self, repository: _Repository, file: _File) -> Remote:
        url = hf_hub_url(repository.name, file.path, revision=repository.commit, endpoint=self._endpoint)
        headers = {"User-Agent": "llmos"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        return Remote(url, PurePosixPath(file.path).name, file.size or None, file.sha256, headers)

    def _nothing_to_serve(self, repository: _Repository) -> Invalid:
        base = repository.name.rpartition("/")[2]
        if base.lower().endswith("gguf"):  # it is a conversion itself
            hint = f"Look at what it holds: {self._endpoint}/{repository.name}"
        else:
            hint = (
                f'Look for a conversion, usually called "{base}-GGUF" (of the same or another organisation), '
                f"and serve that: hf://…/{base}-GGUF"
            )
        if any(path.endswith((".safetensors", ".bin", ".pt")) for path in repository.files):
            return Invalid(
                f"{repository.name} holds weights as safetensors or PyTorch files; the engine here, llama.cpp, reads GGUF. {hint}"
            )
        return Invalid(f"{repository.name} holds no GGUF model. {hint}")

    def _fetch_file(self, repository: _Repository, file: _File, cache: Cache, meter: Meter) -> str:
        """Fetch one file into the cache; return its hash."""
        if file.sha256 and cache.blob(file.sha256).exists():
            return file.sha256
        if file.size > _LARGEST_BY_HTTP:
            return self._fetch_huge_file(repository, file, cache, meter)
        remote = self._remote(repository, file)
        partial = cache.partial(_partial_name(repository, file))
        try:
            with new_client() as client:
                digest = download(remote, partial, meter, client)
        except RequestRefused as refused:
            raise self._refused(repository.name, file, refused) from refused
        cache.publish(partial, digest)
        return digest

    def _fetch_huge_file(self, repository: _Repository, file: _File, cache: Cache, meter: Meter) -> str:
        """Fetch a file that is too large for the Hub's CDN, by the Hub's own client and protocol; return its hash."""
        folder = cache.partial(_partial_name(repository, file)).with_suffix(".d")
        try:
            path = hf_hub_download(
                repository.name,
                file.path,
                revision=repository.commit,
                local_dir=folder,
                token=self._token or False,
                endpoint=self._endpoint,
                tqdm_class=_bar(meter),
            )
        except (HfHubHTTPError, httpx2.HTTPError, RuntimeError, ValueError) as error:
            raise SourceFailed(
                f"{file.path} of {repository.name} could not be fetched: {reason(error)}. Try again."
            ) from error
        meter.say(f"Checking {file.size / 1e9:.0f} GB.")
        digest = hash_of(Path(path))
        if file.sha256 not in (None, digest):
            shutil.rmtree(folder, ignore_errors=True)
            raise SourceFailed(
                f"{file.path} of {repository.name} does not have the expected SHA-256. It was deleted; try again."
            )
        cache.publish(Path(path), digest)
        shutil.rmtree(folder, ignore_errors=True)
        return digest

    def _refused(self, repo: str, file: _File, refused: RequestRefused) -> SourceFailed:
        if refused.status == 401 or refused.headers.get("x-error-code") == "GatedRepo":
            return SourceFailed(self._gated(repo))
        if refused.status == 403:
            said = refused.headers.get("x-error-message", "HTTP 403")[:300]
            if self._token:
                said = said.replace(self._token, "***")  # a server may return what it was sent
            return SourceFailed(f"{self._host} refuses {file.path} of {repo}: {said}.")
        return SourceFailed(f"{self._host} answered HTTP {refused.status} for {file.path} of {repo}.")


def _is_to_be_chosen_again(known: ModelFiles, wanted: str | None) -> bool:
    """Return whether a model that was chosen automatically has a name like a draft's."""
    # Earlier versions chose by names and sizes alone, and may have taken a draft for the model.
    return wanted is None and reads_like_a_companion(PurePosixPath(known.path).name)


class _Unreachable(Exception):
    """The hub doesn't answer; files that were fetched before may be used."""


def _bar(meter: Meter) -> Any:
    """Return a class of progress bars that show nothing and report to the meter."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # it comes without types

    class Bar(tqdm):  # type: ignore[misc]  # see above
        """A progress bar that counts."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self.count = int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.count += int(n or 0)
            meter.at(self.count)

    return Bar


def _partial_name(repository: _Repository, file: _File) -> str:
    """Return the name of a partial file: its hash, otherwise commit and name."""
    return file.sha256 or f"{repository.commit}-{PurePosixPath(file.path).name}"


def _begun(cache: Cache, repository: _Repository, file: _File) -> int:
    partial = cache.partial(_partial_name(repository, file))
    return min(file.size, partial.stat().st_size) if partial.exists() else 0
