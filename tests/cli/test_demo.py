"""srflow demo: what it says before there is a page."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest

from srflow_plugin.cli.demo import labels, password
from srflow_plugin.errors import UserError
from tests.helpers import refusal


@pytest.mark.slow
@pytest.mark.usefixtures("studio")
def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refusal(capsys, "demo", "--port", port, "--checkpoint", "net.pth")
    assert f"port {port} of 127.0.0.1 cannot be had" in line and "choose another with --port" in line


@pytest.mark.usefixtures("studio")
def test_networks_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.pth does not exist" in refusal(capsys, "demo", "--checkpoint", "net.pth", "nowhere.pth")
    Path("text.pth").write_text("text")
    assert "text.pth is not a readable checkpoint" in refusal(capsys, "demo", "--checkpoint", "text.pth")
    assert "device 'gpu' is not known" in refusal(capsys, "demo", "--checkpoint", "net.pth", "--device", "gpu")


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("option", "values"),
    {
        "--port": ["99999", "0", "-1", "x", "7860.5", "65536"],
        "--max-pixels": ["-5", "0", "x", "nan", "1e3", "99999999999"],
        "--max-file-size": ["abc", "", "0", "-1mb", "20 miles", "nan", "1e3", "99999999999gb", "0.0001kb"],
        "--host": ["no.such.host.invalid", "300.1.1.1", "", "a b", "127.0.0.1:80"],
    }.items(),
)
def test_options_that_cannot_be(option: str, values: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for value in values:
        line = refusal(capsys, "demo", "--checkpoint", "net.pth", f"{option}={value}")
        assert option in line, (value, line)


@pytest.mark.usefixtures("studio")
def test_a_password_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.delenv("SRFLOW_PASSWORD", raising=False)
    line = refusal(capsys, "demo", "--checkpoint", "net.pth", "--password")
    assert "--password needs one" in line and "SRFLOW_PASSWORD" in line
    monkeypatch.setenv("SRFLOW_PASSWORD", "secret")
    assert password("") == "secret" and password("other") == "other" and password(None) is None
    monkeypatch.setenv("SRFLOW_PASSWORD", " ")
    with pytest.raises(UserError):
        password("")


def test_networks_have_names_that_differ() -> None:
    table = {
        ("net.pth",): ["net"],
        ("a/net.pth", "b/net.pth"): ["a/net.pth", "b/net.pth"],
        ("/home/me/a/net.pth", "/home/me/b/net.pth", "x.pth"): ["a/net.pth", "b/net.pth", "x"],
        ("a/c/net.pth", "b/c/net.pth", "b/c/net.safetensors"): ["a/c/net.pth", "b/c/net.pth", "net.safetensors"],
        ("net.pth", "a/net.pth"): ["net.pth", "a/net.pth"],
        ("srflow_x4", "srflow_x4.pth"): ["srflow_x4", "srflow_x4.pth"],
    }
    for names, expected in table.items():
        assert labels(names) == expected
