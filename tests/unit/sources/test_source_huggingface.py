"""``hf://`` against a hub of our own, through the real client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from llmos.errors import Invalid, SourceFailed
from llmos_hub.engines.base import Machine
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.sources import download, huggingface, source_of
from llmos_hub.sources.base import FetchProgress, ModelFiles
from llmos_hub.sources.cache import Cache
from tests.support.gguf_builder import build_gguf
from tests.support.hub_endpoint import HubEndpoint, HubRepository, hub_endpoint
from tests.support.waiting import wait_until

# large enough that it comes in several pieces
MODEL = build_gguf(tensors=[("token_embd.weight", (256, 8192), 12)])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubEndpoint]:
    with hub_endpoint() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(download, "_PAUSE", 0.01)
        hub.repositories["ada/tiny-GGUF"] = HubRepository(
            {"README.md": b"# tiny", "tiny-Q4_K_M.gguf": MODEL, "tiny-Q8_0.gguf": build_gguf()}
        )
        yield hub
        huggingface_hub.close_session()


def fetch(uri: str, tmp_path: Path, seen: list[FetchProgress] | None = None) -> ModelFiles:
    seen = [] if seen is None else seen
    return source_of(uri).fetch(uri, tmp_path / "cache", seen.append)


def test_a_model_comes_whole_with_progress_and_the_commit(hub: HubEndpoint, tmp_path: Path):
    seen: list[FetchProgress] = []
    model = fetch("hf://ada/tiny-GGUF", tmp_path, seen)
    assert Path(model.path).read_bytes() == MODEL
    assert Path(model.path).name == "tiny-Q4_K_M.gguf"
    assert model.revision == "c" * 40
    assert "Q4_K_M" in model.note
    assert model.header.parameters == 256 * 8192
    counts = [p for p in seen if not p.message]
    assert (counts[-1].done, counts[-1].total) == (len(MODEL), len(MODEL))
    assert [p.done for p in counts] == sorted(p.done for p in counts)


def test_what_is_there_is_not_fetched_again(hub: HubEndpoint, tmp_path: Path):
    first = fetch("hf://ada/tiny-GGUF", tmp_path)
    sent = hub.sent
    assert fetch("hf://ada/tiny-GGUF", tmp_path) == first
    assert Path(fetch("hf://ada/tiny-GGUF:tiny-Q4_K_M.gguf", tmp_path).path).read_bytes() == MODEL
    assert hub.sent == sent


def test_a_commit_that_is_there_needs_no_hub(hub: HubEndpoint, tmp_path: Path):
    uri = f"hf://ada/tiny-GGUF@{'c' * 40}"
    first = fetch(uri, tmp_path)
    requests = len(hub.requests)
    assert fetch(uri, tmp_path) == first
    assert len(hub.requests) == requests


def test_a_new_commit_is_fetched(hub: HubEndpoint, tmp_path: Path):
    fetch("hf://ada/tiny-GGUF:Q8_0", tmp_path)
    changed = build_gguf({"general.architecture": "llama", "general.name": "newer"})
    hub.repositories["ada/tiny-GGUF"] = HubRepository({"tiny-Q8_0.gguf": changed}, commit="d" * 40)
    model = fetch("hf://ada/tiny-GGUF:Q8_0", tmp_path)
    assert (model.revision, model.header.name) == ("d" * 40, "newer")


def test_a_revision_can_be_named(hub: HubEndpoint, tmp_path: Path):
    hub.repositories["ada/tiny-GGUF"].revisions["v1"] = "c" * 40
    assert fetch("hf://ada/tiny-GGUF@v1:Q8_0", tmp_path).revision == "c" * 40
    with pytest.raises(SourceFailed, match='has no revision "v2"'):
        fetch("hf://ada/tiny-GGUF@v2", tmp_path)


def test_all_parts_of_a_model_come_side_by_side(hub: HubEndpoint, tmp_path: Path):
    parts = {f"q4/m-Q4_K_M-0000{i}-of-00002.gguf": build_gguf(tensors=[(f"t{i}", (256, 4), 12)]) for i in (1, 2)}
    hub.repositories["ada/big-GGUF"] = HubRepository(dict(parts))
    seen: list[FetchProgress] = []
    model = fetch("hf://ada/big-GGUF", tmp_path, seen)
    folder = Path(model.path).parent
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {k.rpartition("/")[2]: v for k, v in parts.items()}
    assert model.header.parameters == 2048
    assert seen[-1].done == seen[-1].total == model.size


def test_a_broken_transfer_goes_on_where_it_broke(hub: HubEndpoint, tmp_path: Path):
    hub.break_after, hub.breaks = 400_000, 2
    model = fetch("hf://ada/tiny-GGUF", tmp_path)
    assert Path(model.path).read_bytes() == MODEL
    assert hub.sent == len(MODEL)
    assert hub.ranges[0] is None
    assert [int(r.removeprefix("bytes=").rstrip("-")) for r in hub.ranges[1:]] == [400_000, 800_000]


def test_what_a_broken_fetch_left_is_gone_on_with(hub: HubEndpoint, tmp_path: Path):
    digest = hashlib.sha256(MODEL).hexdigest()
    partial = tmp_path / "cache" / "partial" / f"{digest}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(MODEL[:700_000])
    assert Path(fetch("hf://ada/tiny-GGUF", tmp_path).path).read_bytes() == MODEL
    assert hub.ranges == ["bytes=700000-"]
    assert hub.sent == len(MODEL) - 700_000
    assert not partial.exists()


def test_two_uris_of_one_file_do_not_spoil_each_other(hub: HubEndpoint, tmp_path: Path):
    hub.break_after = 400_000
    hub.gate.clear()
    uris = ["hf://ada/tiny-GGUF", "hf://ada/tiny-GGUF:Q4_K_M", "hf://ada/tiny-GGUF@main"]
    with ThreadPoolExecutor(3) as pool:
        fetches = [pool.submit(fetch, uri, tmp_path) for uri in uris]
        wait_until(lambda: hub.ranges)
        hub.gate.set()
        paths = {fetched.result(60).path for fetched in fetches}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == MODEL
    assert hub.sent == len(MODEL)


def test_a_file_too_large_for_the_cdn_comes_by_the_hubs_own_client(
    hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(huggingface, "_LARGEST_BY_HTTP", 1000)
    seen: list[FetchProgress] = []
    model = fetch("hf://ada/tiny-GGUF", tmp_path, seen)
    assert Path(model.path).read_bytes() == MODEL
    assert max(p.done for p in seen) == len(MODEL)
    assert not list((tmp_path / "cache" / "partial").iterdir())


def test_a_hub_that_names_files_by_paths_is_not_followed(hub: HubEndpoint, tmp_path: Path):
    hub.repositories["ada/tiny-GGUF"].commit = "../../../outside"
    with pytest.raises(SourceFailed, match="names no commit"):
        fetch("hf://ada/tiny-GGUF", tmp_path)


def test_a_server_without_ranges_begins_anew(hub: HubEndpoint, tmp_path: Path):
    hub.break_after, hub.breaks, hub.ignore_ranges = 400_000, 1, True
    assert Path(fetch("hf://ada/tiny-GGUF", tmp_path).path).read_bytes() == MODEL


def test_trouble_that_passes_is_waited_out(hub: HubEndpoint, tmp_path: Path):
    hub.errors = [503, 429]
    assert Path(fetch("hf://ada/tiny-GGUF", tmp_path).path).read_bytes() == MODEL


def test_trouble_that_stays_is_given_up(hub: HubEndpoint, tmp_path: Path):
    hub.errors = [503] * 20
    with pytest.raises(SourceFailed, match="503"):
        fetch("hf://ada/tiny-GGUF", tmp_path)
    assert len(hub.errors) > 10


def test_a_file_that_is_not_what_the_hub_says_is_thrown_away(hub: HubEndpoint, tmp_path: Path):
    hub.corrupt = True
    with pytest.raises(SourceFailed, match="SHA-256"):
        fetch("hf://ada/tiny-GGUF", tmp_path)
    assert not list((tmp_path / "cache" / "blobs").iterdir())
    assert not list((tmp_path / "cache" / "partial").iterdir())
    hub.corrupt = False
    assert Path(fetch("hf://ada/tiny-GGUF", tmp_path).path).read_bytes() == MODEL


def test_a_gated_model_says_how_to_open_it(hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["ada/tiny-GGUF"].gated = True
    hub.tokens = {"hf_good"}
    with pytest.raises(SourceFailed, match=r"gated.*HF_TOKEN.*spec\.credentialRef"):
        fetch("hf://ada/tiny-GGUF", tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(SourceFailed, match="does not open it"):
        fetch("hf://ada/tiny-GGUF", tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert Path(fetch("hf://ada/tiny-GGUF", tmp_path).path).read_bytes() == MODEL


def test_the_token_is_not_shown_to_the_host_that_the_hub_sends_to(
    hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    fetch("hf://ada/tiny-GGUF:Q8_0", tmp_path)
    tokens = {path.split("/")[1]: authorization for _, path, _, authorization in hub.requests}
    assert tokens["api"] == tokens["ada"] == "Bearer hf_good"
    assert tokens["cdn"] is None


def test_a_token_from_the_home_directory_is_not_used(hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "token").write_text("hf_somebody")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    fetch("hf://ada/tiny-GGUF:Q8_0", tmp_path)
    assert {authorization for *_, authorization in hub.requests} == {None}


def test_a_repository_that_is_not_there_says_what_to_check(hub: HubEndpoint, tmp_path: Path):
    with pytest.raises(SourceFailed, match=r'no repository "ada/tony".*private.*Check the spelling'):
        fetch("hf://ada/tony", tmp_path)


def test_safetensors_alone_are_answered_with_where_to_look(hub: HubEndpoint, tmp_path: Path):
    hub.repositories["ada/tiny"] = HubRepository({"config.json": b"{}", "model.safetensors": b"\0" * 64})
    with pytest.raises(Invalid, match=r"llama\.cpp, reads GGUF.*tiny-GGUF"):
        fetch("hf://ada/tiny", tmp_path)


def test_a_file_that_is_not_there_is_answered_with_those_that_are(hub: HubEndpoint, tmp_path: Path):
    with pytest.raises(SourceFailed, match=r'Did you mean "tiny-Q8_0\.gguf"'):
        fetch("hf://ada/tiny-GGUF:tiny-Q8_1.gguf", tmp_path)


def test_a_damaged_model_is_refused(hub: HubEndpoint, tmp_path: Path):
    hub.repositories["ada/bad-GGUF"] = HubRepository({"bad.gguf": b"GGUF" + b"\xff" * 100})
    with pytest.raises(Invalid, match=r"bad\.gguf is not a GGUF model"):
        fetch("hf://ada/bad-GGUF", tmp_path)


def test_what_does_not_fit_the_disk_is_refused_before_it_is_fetched(
    hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(SourceFailed, match=r"needs 1\.2 MB more on the disk.*0\.0 MB free"):
        fetch("hf://ada/tiny-GGUF", tmp_path)
    assert hub.sent == 0


def test_without_a_hub_it_says_so_or_uses_what_is_here(hub: HubEndpoint, tmp_path: Path):
    first = fetch("hf://ada/tiny-GGUF", tmp_path)
    hub.stop()
    huggingface_hub.close_session()  # with its open connections
    again = fetch("hf://ada/tiny-GGUF", tmp_path)
    assert (again.path, again.revision) == (first.path, first.revision)
    assert "can't be reached" in again.note
    with pytest.raises(SourceFailed, match="Is this machine online"):
        fetch("hf://ada/other-GGUF", tmp_path)


def gguf(*, tensors: int, blocks: int = 4, name: str = "m", **keys: object) -> bytes:
    """A model with a number of tensors, whose long lists of tokens are beyond the bytes that are read."""
    head = {"general.architecture": "llama", "general.name": name, "llama.block_count": blocks, **keys}
    tokens = {"tokenizer.ggml.tokens": [f"token{number}" for number in range(8000)]}
    return build_gguf({**head, **tokens}, [(f"blk.{number}.weight", (256, 1), 12) for number in range(tensors)])


@pytest.mark.parametrize("sidecar", ["mtp-X.gguf", "MTP/X-Q4_K_M.gguf", "helper-Q4_K_M.gguf"])
def test_a_draft_model_beside_a_model_is_not_served_in_its_place(hub: HubEndpoint, tmp_path: Path, sidecar: str):
    model = gguf(tensors=40, name="the model")
    draft = gguf(tensors=3, name="the draft")
    hub.repositories["ada/X-GGUF"] = HubRepository({"X-UD-Q4_K_XL.gguf": model, sidecar: draft})
    seen: list[FetchProgress] = []
    found = fetch("hf://ada/X-GGUF", tmp_path, seen)
    assert found.header.name == "the model"
    assert found.note.startswith("X-UD-Q4_K_XL.gguf")
    assert "not " + sidecar.rpartition("/")[2] in found.note
    assert found.note + "." in [p.message for p in seen]
    assert hub.sent == len(model)  # nothing but beginnings of the other
    assert fetch(f"hf://ada/X-GGUF:{sidecar}", tmp_path).header.name == "the draft"


def test_a_model_called_lora_is_served_and_an_adapter_called_model_is_not(hub: HubEndpoint, tmp_path: Path):
    model = gguf(tensors=40, name="merged")
    adapter = gguf(tensors=80, name="adapter", **{"general.type": "adapter"})
    hub.repositories["ada/X-lora-GGUF"] = HubRepository({"X-lora-Q8_0.gguf": model, "X-Q4_K_M.gguf": adapter})
    assert fetch("hf://ada/X-lora-GGUF", tmp_path).header.name == "merged"
    exact = fetch("hf://ada/X-lora-GGUF:X-Q4_K_M.gguf", tmp_path)
    assert exact.header.type == "adapter"
    assert "not a model" in LlamaCpp().accepts(exact, Machine(cpus=2, memory=2**33)).reason


def test_names_have_to_do_where_beginnings_can_not_be_had(hub: HubEndpoint, tmp_path: Path):
    model = gguf(tensors=40, name="the model")
    hub.repositories["ada/X-GGUF"] = HubRepository({"X-Q8_0.gguf": model, "eagle3-X-Q4_K_M.gguf": b"not GGUF"})
    assert fetch("hf://ada/X-GGUF", tmp_path).header.name == "the model"


def test_a_server_that_ignores_ranges_is_not_read_to_the_end(hub: HubEndpoint, tmp_path: Path):
    hub.ignore_ranges = True
    hub.repositories["ada/X-GGUF"] = HubRepository(
        {"X-Q8_0.gguf": gguf(tensors=40, name="the model"), "mtp-X-Q4_K_M.gguf": gguf(tensors=3)}
    )
    assert fetch("hf://ada/X-GGUF", tmp_path).header.name == "the model"


def test_no_conversion_of_a_conversion_is_recommended(hub: HubEndpoint, tmp_path: Path):
    hub.repositories["ada/X-GGUF"] = HubRepository({"README.md": b"soon"})
    with pytest.raises(Invalid) as caught:
        fetch("hf://ada/X-GGUF", tmp_path)
    assert "GGUF-GGUF" not in caught.value.message
    assert f"{hub.url}/ada/X-GGUF" in caught.value.message


def test_a_pointer_or_a_page_in_a_repository_is_named(hub: HubEndpoint, tmp_path: Path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 2500000000\n"
    hub.repositories["ada/X-GGUF"] = HubRepository({"X.gguf": pointer, "page.gguf": b"<!doctype html><html>"})
    with pytest.raises(Invalid, match="is a Git LFS pointer to the model"):
        fetch("hf://ada/X-GGUF:X.gguf", tmp_path)
    with pytest.raises(Invalid, match="is a web page"):
        fetch("hf://ada/X-GGUF:page.gguf", tmp_path)


@pytest.mark.parametrize("written", ["my model (v1) + [x], a=b.gguf", "my%20model%20(v1)%20+%20[x],%20a=b.gguf"])
def test_a_name_with_blanks_and_brackets(hub: HubEndpoint, tmp_path: Path, written: str):
    name = "my model (v1) + [x], a=b.gguf"
    hub.repositories["ada/odd-GGUF"] = HubRepository({f"sub/{name}": MODEL, "other.gguf": build_gguf()})
    model = fetch(f"hf://ada/odd-GGUF:sub/{written}", tmp_path)
    assert Path(model.path).name == name
    assert Path(model.path).read_bytes() == MODEL


@pytest.mark.parametrize("token", ["hf_secret-of-ada\n", " hf_secret-of-ada \r\n"])
def test_blanks_around_a_token_do_no_harm(
    hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
):
    hub.repositories["ada/tiny-GGUF"].gated = True
    hub.tokens = {"hf_secret-of-ada"}
    monkeypatch.setenv("HF_TOKEN", token)
    assert Path(fetch("hf://ada/tiny-GGUF", tmp_path).path).read_bytes() == MODEL


@pytest.mark.parametrize("token", ["hf_secret\nof-ada", "hf_secrét", "hf_\x7fsecret"])
def test_a_token_that_no_header_can_hold_is_not_quoted(
    hub: HubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SourceFailed, match="HF_TOKEN holds characters") as raised:
        fetch("hf://ada/tiny-GGUF", tmp_path)
    assert "secr" not in str(raised.value)
    assert hub.requests == []


def test_a_draft_that_an_earlier_version_took_is_not_kept(hub: HubEndpoint, tmp_path: Path):
    files = {"X-UD-Q4_K_XL.gguf": gguf(tensors=40, name="the model"), "mtp-X.gguf": gguf(tensors=3, name="the draft")}
    hub.repositories["ada/X-GGUF"] = HubRepository(files)
    draft = fetch("hf://ada/X-GGUF:mtp-X.gguf", tmp_path)
    Cache(tmp_path / "cache").record(replace(draft, uri="hf://ada/X-GGUF", note="it is the smallest"))
    assert fetch("hf://ada/X-GGUF", tmp_path).header.name == "the model"
