"""Networks of the Hugging Face Hub, of which a server on this machine has the endpoints that are asked for."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from srflow_plugin import SRFlowNet, load_network, upscale
from srflow_plugin.checkpoints.sealed import HASH_KEY, read_sealed
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.integrations import hub
from tests.helpers import NETWORKS, noise_image, refusal, small_network

huggingface_hub = pytest.importorskip("huggingface_hub", reason="networks of the Hub are fetched by huggingface_hub")

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class FakeHub(ThreadingHTTPServer):
    """Has the files of repositories by revision, ``user/name``; anything else is answered as the Hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.files: dict[tuple[str, str], bytes] = {}  # by revision and name
        self.error: str | None = None
        self.asked: list[str] = []


class Endpoint(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        user, name, _, revision, *rest = self.path.removeprefix("/").split("/")
        content = self.server.files.get((revision, "/".join(rest)))
        error = self.server.error or (None if f"{user}/{name}" == "user/name" else "RepoNotFound")
        error = error or (None if revision in COMMITS else "RevisionNotFound")
        error = error or ("EntryNotFound" if content is None else None)
        if error or content is None:
            self.send_response({"GatedRepo": 403, "RepoNotFound": 401, "Broken": 400}.get(error or "", 404))
            self.send_header("X-Error-Code", str(error))
            self.send_header("Content-Length", "0")
            self.send_header("X-Repo-Commit", COMMITS.get(revision, ""))
            return self.end_headers()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMITS[revision])
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The Hub, an empty cache, and a folder, entered."""
    from huggingface_hub import constants, hf_hub_download

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with FakeHub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", partial(hf_hub_download, endpoint=url))
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What save_pretrained writes of a small network."""
    folder = tmp_path_factory.mktemp("hub") / "name"
    small_network().save_pretrained(folder)
    return folder


def same(first: SRFlowNet, second: SRFlowNet) -> bool:
    weights, others = first.state_dict(), second.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[key], others[key]) for key in weights)


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_is_the_network(name: str, tmp_path: Path) -> None:
    network = small_network(**NETWORKS[name])
    network.save_pretrained(tmp_path / "net")
    again = SRFlowNet.from_pretrained(tmp_path / "net")
    assert same(network, again) and not again.training
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert config["architecture"] == "SRFlowNet" and config["scale"] == network.scale
    assert same(network, load_network(tmp_path / "net" / "model.safetensors"))


@pytest.mark.parametrize("name", ["srflow_x4", "srflow_x8_face"])
def test_the_networks_of_the_package_survive(name: str, tmp_path: Path) -> None:
    network = load_network(name)
    network.save_pretrained(tmp_path)
    assert same(network, SRFlowNet.from_pretrained(tmp_path))


def test_weights_are_sealed(folder: Path) -> None:
    assert HASH_KEY in read_sealed(folder / "model.safetensors")[1]


def test_the_card_is_one_of_the_hub_and_stays(tmp_path: Path) -> None:
    small_network().save_pretrained(tmp_path, name="user/name", license="mit")
    data = huggingface_hub.ModelCard.load(tmp_path / "README.md").data
    assert data.license == "mit" and data.library_name == "srflow_plugin" and data.pipeline_tag == "image-to-image"
    card = (tmp_path / "README.md").read_text()
    assert 'load_network("hf://user/name")' in card and "scale 4" in card and "Not filled in by the author yet" in card
    (tmp_path / "README.md").write_text("mine")
    small_network(num_steps=1).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert same(SRFlowNet.from_pretrained(tmp_path), small_network(num_steps=1))
    with pytest.raises(UserError, match="is a file; name a folder"):
        small_network().save_pretrained(tmp_path / "README.md")


@pytest.mark.parametrize("source", ["nowhere", "./net", "a/b/c", "/no/such", "user/", "http://a/b"])
def test_what_is_neither_a_folder_nor_a_repository(source: str) -> None:
    with pytest.raises(UserError, match="is no folder, and no user/name of the Hub"):
        SRFlowNet.from_pretrained(source)


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_addresses() -> None:
    assert hub.parse("hf://user/name") == ("user/name", None, "model.safetensors")
    assert hub.parse("hf://user/name@v1.0") == ("user/name", "v1.0", "model.safetensors")
    assert hub.parse("hf://user/name/a/b.safetensors") == ("user/name", None, "a/b.safetensors")
    assert hub.parse("hf://user/my.name@main/b.safetensors") == ("user/my.name", "main", "b.safetensors")


@pytest.mark.parametrize(
    "address", ["hf://", "hf://name", "hf://user/", "hf://user/name@", "hf://user/na me", "hf:///a"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match="is no address of the Hub; write hf://user/name"):
        find_checkpoint(address)


@pytest.mark.parametrize(
    "file", ["net.pth", "net.pt", "pytorch_model.bin", "net.pkl", "a.safetensors.pth", "config.json"]
)
def test_only_safetensors_are_fetched(file: str, fake: FakeHub) -> None:
    fake.files["main", file] = b"x"
    with pytest.raises(UserError, match=r"only \.safetensors files are taken from the Hub"):
        load_network(f"hf://user/name/{file}")
    assert fake.asked == []


# -- the Hub -----------------------------------------------------------------------------------------------------------


def test_networks_are_fetched_once_and_kept(fake: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.files["main", "model.safetensors"] = (folder / "model.safetensors").read_bytes()
    assert same(load_network("hf://user/name"), small_network())
    assert same(SRFlowNet.from_pretrained("user/name"), small_network())
    assert len([one for one in fake.asked if one.startswith("GET")]) == 1
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fake.shutdown()
    assert same(load_network("hf://user/name"), small_network())


def test_revisions_and_files(fake: FakeHub, folder: Path, tmp_path: Path) -> None:
    old = small_network(num_steps=1)
    old.save_pretrained(tmp_path / "old")
    fake.files["main", "sub/net.safetensors"] = (folder / "model.safetensors").read_bytes()
    fake.files["v1", "model.safetensors"] = (tmp_path / "old" / "model.safetensors").read_bytes()
    assert same(load_network("hf://user/name@v1"), old)
    assert same(SRFlowNet.from_pretrained("user/name", revision="v1"), old)
    assert same(load_network("hf://user/name/sub/net.safetensors"), small_network())
    assert len(load_network("hf://user/name@v1", precision="bfloat16").flow.levels) == 3


@pytest.mark.parametrize(
    ("address", "error", "line"),
    [
        ("hf://user/nobody", None, "there is no user/nobody on the Hub, or it is private: correct the name, or `hf"),
        ("hf://user/name", "GatedRepo", "asks for consent"),
        ("hf://user/na--me", None, "is no name of a repository; write hf://user/name"),
        ("hf://user/name@v9", None, "has no such revision"),
        ("hf://user/name/other.safetensors", None, "has no such file; name one of its .safetensors files"),
        ("hf://user/name", None, "has no such file"),
        ("hf://user/name", "Broken", "the Hub"),
    ],
)
def test_what_cannot_be_had(
    address: str, error: str | None, line: str, fake: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.error = error
    refused = refusal(capsys, "upscale", "a.png", "-o", "b.png", "--checkpoint", address)
    assert address in refused and line in refused


def test_without_a_network(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.shutdown()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="not in the cache and the Hub cannot be reached"):
        load_network("hf://user/name")


def test_files_that_are_not_whole(fake: FakeHub, folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    missing = next(key for key in weights if key.startswith("flow."))
    save_file({key: value for key, value in weights.items() if key != missing}, tmp_path / "less.safetensors")
    damaged = bytearray((folder / "model.safetensors").read_bytes())
    damaged[-5] ^= 1
    fake.files["main", "less.safetensors"] = (tmp_path / "less.safetensors").read_bytes()
    fake.files["main", "damaged.safetensors"] = bytes(damaged)
    fake.files["main", "pickle.safetensors"] = b"\x80\x02cos\nsystem\n."
    for file, line in [("less", missing), ("damaged", "is damaged"), ("pickle", "is not a readable checkpoint")]:
        with pytest.raises(UserError, match=line):
            load_network(f"hf://user/name/{file}.safetensors")


def test_commands_and_functions_take_addresses(fake: FakeHub, folder: Path) -> None:
    fake.files["main", "model.safetensors"] = (folder / "model.safetensors").read_bytes()
    image = noise_image(5, 6)
    ours, theirs = (
        upscale(image, 0, checkpoint=checkpoint) for checkpoint in (folder / "model.safetensors", "hf://user/name")
    )
    assert (ours == theirs).all()


def test_the_library_is_asked_for_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"hf://user/name needs huggingface_hub, which is not installed: .*\[hub\]"):
        load_network("hf://user/name")


# -- pushing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_card", [False, True])
def test_pushing(has_card: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Api:
        def __init__(self, token: str | None) -> None:
            calls.append(("token", token))

        def create_repo(self, repository: str, **how: Any) -> str:
            calls.append((repository, how))
            return f"https://huggingface.co/{repository}"

        def file_exists(self, repository: str, file: str) -> bool:
            return has_card and file == "README.md"

        def upload_folder(self, folder_path: str, **how: Any) -> None:
            assert same(SRFlowNet.from_pretrained(folder_path), small_network())
            assert "license: mit" in (Path(folder_path) / "README.md").read_text()
            calls.append((how["repo_id"], how["ignore_patterns"]))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    url = small_network().push_to_hub("user/name", private=True, license="mit", token="t")
    assert url == "https://huggingface.co/user/name"
    made = ("user/name", {"private": True, "exist_ok": True})
    assert calls == [("token", "t"), made, ("user/name", ["README.md"] if has_card else None)]
    with pytest.raises(UserError, match="is no address"):
        small_network().push_to_hub("name")
