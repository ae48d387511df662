"""Numbers that a killed run leaves readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from srflow_plugin.leaderboard.records import Records


def test_records_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = Records(path)
    records.add("Set5", "net tau 0", "a.png", {"psnr": float("inf"), "nll": 1.5})
    records.add("Set5", "net tau 0", "b.png", {"psnr": 20.25})
    records.add("Set5", "net tau 0", "a.png", {"psnr": 30.0})  # the last one counts
    again = Records(path)
    assert again.values == records.values
    assert again.values["Set5", "net tau 0", "a.png"] == {"psnr": 30.0}
    assert again.has("Set5", "net tau 0", "b.png") and not again.has("Set14", "net tau 0", "b.png")


def test_what_others_add_is_seen(tmp_path: Path) -> None:
    one, other = Records(tmp_path / "a.jsonl"), Records(tmp_path / "a.jsonl")
    for number in range(3):
        one.add("Set5", "net", f"one{number}", {"psnr": 1.0})
        other.add("Set5", "net", f"other{number}", {"psnr": 2.0})
    assert one.has("Set5", "net", "other2") and other.has("Set5", "net", "one2")
    assert one.values == other.values == Records(tmp_path / "a.jsonl").values and len(one.values) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    "line", ["5", "null", "[]", '["a", "b", "c"]', '["a", "b", "c", 5]', "\0\0\0", '{"a": 1}', "\udcff"]
)
def test_a_damaged_line_is_forgotten(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Records(path).add("Set5", "net", "a", {"psnr": 1.0})
    path.write_bytes(line.encode(errors="surrogateescape") + b"\n" + path.read_bytes())
    assert Records(path).values == {("Set5", "net", "a"): {"psnr": 1.0}}


def test_half_a_line_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = Records(path)
    for name in "abc":
        records.add("Set5", "net", name, {"psnr": 1.0})
    path.write_bytes(path.read_bytes()[:-5])
    again = Records(path)
    assert [key[2] for key in again.values] == ["a", "b"]
    other = Records(path)
    again.add("Set5", "net", "c", {"psnr": 2.0})
    assert other.has("Set5", "net", "c")
    assert [(key[2], values["psnr"]) for key, values in Records(path).values.items()] == [
        ("a", 1.0),
        ("b", 1.0),
        ("c", 2.0),
    ]
