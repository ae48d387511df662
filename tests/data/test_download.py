"""Large files from the network: here, from a server on this machine that behaves badly."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.data import download as download_module
from srflow_plugin.data.download import check_free, download, verify
from srflow_plugin.errors import UserError
from tests.helpers import UNIX, Server

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def content(server: Server) -> None:
    server.contents["/file.bin"] = CONTENT


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


def test_no_more_is_fetched_than_is_expected(server: Server, tmp_path: Path) -> None:
    server.contents["/file.bin"] = bytes(50_000_000)
    for server.length in (None, "abc", "-1", "9" * 5000):
        with pytest.raises(UserError, match=r"has [1-5]\d{6} bytes, 3000000 are expected"):
            download(f"{server.url}/file.bin", tmp_path / "file.bin", 3_000_000, SHA256)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,abc", "gopher://127.0.0.1/"])
def test_nothing_but_the_web_is_asked(server: Server, tmp_path: Path, address: str) -> None:
    server.redirects["/file.bin"] = address
    start = time.monotonic()
    for first in (f"{server.url}/file.bin", address):
        with pytest.raises(UserError, match=r"cannot be fetched"):
            download(first, tmp_path / "file.bin")
    assert not list(tmp_path.iterdir()) and len(server.starts) == 1 and time.monotonic() - start < 1
    server.redirects["/file.bin"] = f"{server.url}/other.bin"
    server.contents["/other.bin"] = CONTENT
    download(f"{server.url}/file.bin", tmp_path / "file.bin", len(CONTENT), SHA256)


@UNIX
def test_a_link_in_place_of_what_is_fetched_is_not_written_through(server: Server, tmp_path: Path) -> None:
    for target in (tmp_path / "victim", tmp_path / "none"):
        (tmp_path / "victim").write_bytes(b"precious")
        (tmp_path / "file.bin.part").symlink_to(target)
        with pytest.raises(UserError, match=r"file\.bin\.part is a link; delete it"):
            download(f"{server.url}/file.bin", tmp_path / "file.bin", len(CONTENT), SHA256)
        (tmp_path / "file.bin.part").unlink()
    assert (tmp_path / "victim").read_bytes() == b"precious" and not (tmp_path / "none").exists()


def test_a_disk_that_is_too_small_is_named(tmp_path: Path) -> None:
    check_free(tmp_path / "not" / "there", 1, "it needs", "")
    with pytest.raises(
        UserError, match=rf"{tmp_path} has .* GB free, a\.zip needs about 1000000000\.0 GB; make room, or x"
    ):
        check_free(tmp_path / "not" / "there", 1e18, "a.zip needs", "x")
