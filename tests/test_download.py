"""Data sets from archives and from the network: here, from a server on this machine that behaves badly."""

from __future__ import annotations

import hashlib
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from srflow_plugin import bicubic_downscale
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.data import download as download_module
from srflow_plugin.data.archives import unpack
from srflow_plugin.data.download import download, verify
from srflow_plugin.data.known_sets import KNOWN_SETS, Archive, KnownSet
from srflow_plugin.errors import UserError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves ``contents``; may stop each answer after so many bytes, not know ranges, or fail the first requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.break_after: int | None = None
        self.ranges = True
        self.failures = 0
        self.starts: list[int] = []  # first bytes that were asked for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.contents.get(self.path)
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        self.server.starts.append(start)
        if self.server.failures:
            self.server.failures -= 1
            return self.send_error(503)
        if content is None:
            return self.send_error(404)
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content) if self.server.break_after is None else start + self.server.break_after
        self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download_module, "PAUSE", 0.0)
    with Server() as server:
        server.contents["/file.bin"] = CONTENT
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_broken_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.break_after = 1_100_000
    download(f"{server.url}/file.bin", tmp_path / "file.bin", len(CONTENT), SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.starts) == 3 and server.starts[0] == 0 < server.starts[1] < server.starts[2]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_the_next_call_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:123_456])
    download(f"{server.url}/file.bin", tmp_path / "file.bin", len(CONTENT), SHA256)
    assert server.starts == [123_456] and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_is_complete_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(f"{server.url}/file.bin", tmp_path / "file.bin", len(CONTENT), SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_servers_that_know_no_ranges_or_fail_at_first(server: Server, tmp_path: Path) -> None:
    server.ranges, server.failures = False, 2
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    download(f"{server.url}/file.bin", tmp_path / "file.bin", len(CONTENT), SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_what_cannot_be_had_or_is_not_right(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(UserError, match=r"404.*put it at"):
        download(f"{server.url}/gone.bin", target)
    with pytest.raises(UserError, match="cannot be fetched"):
        download("http://127.0.0.1:9/file.bin", target)  # nobody listens
    server.failures = 100
    with pytest.raises(UserError, match="503"):
        download(f"{server.url}/file.bin", target)
    assert len(server.starts) == 1 + download_module.ATTEMPTS
    server.failures = 0
    with pytest.raises(UserError, match="3000000 bytes, 3000001 are expected"):
        download(f"{server.url}/file.bin", target, len(CONTENT) + 1)
    with pytest.raises(UserError, match="another sha256 than expected"):
        download(f"{server.url}/file.bin", target, len(CONTENT), f"sha256:{64 * '0'}")
    assert not list(tmp_path.iterdir())  # what is known to be wrong is not gone on with
    target.write_bytes(CONTENT)
    verify(target, len(CONTENT), f"md5:{hashlib.md5(CONTENT).hexdigest()}")


def png(seed: int) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (17, 22, 3), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def make_archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, data in members.items():
                zipped.writestr(name, data)
        return path
    folder = path.with_name("members")
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tarred:
        tarred.add(folder, ".")
    return path


MEMBERS = {"top/HR/a.png": png(0), "top/HR/b.png": png(1), "top/LR/a.png": png(2), "top/readme.txt": b"text"}


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_a_folder_of_an_archive(name: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / name, {**MEMBERS, "__MACOSX/top/HR/._a.png": b"hidden", "top/HR/.b.png": b""})
    for _ in range(2):
        target = unpack(archive, "HR", tmp_path / "out" / "HR")
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {"a.png": png(0), "b.png": png(1)}
    with pytest.raises(UserError, match=r"images in 2 folders \(top/HR, top/LR\); name one: .*/top/HR"):
        unpack(archive, "", tmp_path / "out" / "all")
    with pytest.raises(UserError, match=r"R of .* has no images"):
        unpack(archive, "R", tmp_path / "out" / "R")  # a folder's name, not the end of one


def test_unpacking_goes_on_where_it_was_killed_and_sees_another_archive(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "set.zip", MEMBERS)
    unfinished = tmp_path / "HR.unfinished"
    unfinished.mkdir()
    (unfinished / "a.png").write_bytes(bytes(len(png(0))))  # the right size: taken for done
    (unfinished / "b.png").write_bytes(b"begun")
    target = unpack(archive, "HR", tmp_path / "HR")
    assert (target / "a.png").read_bytes() == bytes(len(png(0))) and (target / "b.png").read_bytes() == png(1)
    make_archive(archive, {"HR/c.png": png(3)})
    with pytest.raises(UserError, match="holds other images than"):
        unpack(archive, "HR", tmp_path / "HR")


def test_archives_cannot_write_elsewhere(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "set.zip", {"../../evil.png": png(0), f"{tmp_path}/evil.png": png(1)})
    unpack(archive, "", tmp_path / "a" / "b")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == ["a/b/evil.png"]


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_damaged_archives(name: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / name, MEMBERS)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(UserError, match=r"set.* cannot be unpacked"):
        unpack(archive, "HR", tmp_path / "HR")
    assert not (tmp_path / "HR").exists()


def test_prepare_takes_archives_and_writes_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_archive(tmp_path / "set.tar.gz", MEMBERS)
    command = ["prepare", "set.tar.gz/HR", "-o", "out", "--format", "png", "--crop-size", "8", "--downloads", "d"]
    for _ in range(2):
        assert srflow_command(command) == 0
        assert "12 pairs from 2 images" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["HR", "LRx4", "prepared.json"]
    for kind in ("HR", "LRx4"):
        assert {path.name for path in Path("out", kind).iterdir()} == {
            f"{k}_s{n:03d}.png" for k in "ab" for n in range(1, 7)
        }
    image = cv2.imdecode(np.frombuffer(png(0), np.uint8), cv2.IMREAD_COLOR)[:16, :20]
    assert np.array_equal(cv2.imread("out/HR/a_s006.png"), image[8:16, 12:20])
    assert np.array_equal(cv2.imread("out/LRx4/a_s006.png"), bicubic_downscale(image, 4)[2:4, 3:5])

    Path("out/LRx4/b_s001.png").unlink()  # made again
    assert srflow_command(command) == 0 and Path("out/LRx4/b_s001.png").exists()
    with pytest.raises(SystemExit) as stop:
        srflow_command([*command, "--crop-size", "4"])
    assert stop.value.code == 2 and "holds something else, or images made otherwise" in capsys.readouterr().err


def test_data_sets_by_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_archive(tmp_path / "small.zip", MEMBERS).read_bytes()
    server.contents["/small.zip"], server.break_after = data, 2000
    archive = Archive(
        "small.zip", len(data), f"sha256:{hashlib.sha256(data).hexdigest()}", f"{server.url}/small.zip", ""
    )
    small = KnownSet(archive, "HR", 2, 2, 2, center_crop=8, border="replicate", kind="png")
    monkeypatch.setitem(KNOWN_SETS, "Small", [small])
    monkeypatch.setitem(KNOWN_SETS, "Both", [small, small._replace(first=1, last=1, border="symmetric")])
    for _ in range(2):
        assert srflow_command(["prepare", "Small", "-o", "datasets/Small"]) == 0
    assert server.starts[0] == 0 and len(server.starts) == -(-len(data) // 2000)  # fetched once, in parts
    assert sorted(str(path.relative_to("datasets/Small")) for path in Path("datasets/Small").rglob("*.png")) == [
        "HR/b.png",
        "LRx4/b.png",
    ]
    image = cv2.imdecode(np.frombuffer(png(1), np.uint8), cv2.IMREAD_COLOR)[4:12, 7:15]
    assert np.array_equal(cv2.imread("datasets/Small/HR/b.png"), image)
    assert np.array_equal(cv2.imread("datasets/Small/LRx4/b.png"), bicubic_downscale(image, 4, "replicate"))

    def refusal(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            srflow_command(["prepare", *arguments])
        assert stop.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("srflow")]
        assert len(lines) == 1
        return lines[0]

    assert "not prepared alike; say --border" in refusal("Both", "-o", "both")
    assert srflow_command(["prepare", "Both", "-o", "both", "--border", "symmetric"]) == 0
    assert "get img_align_celeba.zip from https://mmlab" in refusal("CelebA", "-o", "faces")
    Path("datasets/downloads/img_align_celeba.zip").write_bytes(b"something else")
    assert "another md5 than expected" in refusal("CelebA", "-o", "faces")
    Path("datasets/downloads/small/HR/a.png").unlink()
    assert "has 1 images, 2 are expected" in refusal("Small", "-o", "more")
    assert "Smal is no folder, archive" in refusal("Smal", "-o", "more")


def test_the_table_of_data_sets() -> None:
    assert {"DIV2K", "Flickr2K", "DF2K", "CelebA", "Set5", "Set14", "BSD100", "Urban100", "Manga109"} <= set(KNOWN_SETS)
    assert KNOWN_SETS["DF2K"] == KNOWN_SETS["DIV2K"] + KNOWN_SETS["Flickr2K"]
    for parts in KNOWN_SETS.values():
        for part in parts:
            assert 1 <= part.first <= part.last <= part.in_folder
            digits = (part.archive.checksum or "").partition(":")[2]
            assert len(digits) in (0, 32, 64) and (digits or part.archive.url is None)
