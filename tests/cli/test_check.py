"""basicsr check: a line for each file, and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from srflow_plugin.cli.main import basicsr_command
from tests.helpers import BIN, ROOT, TINY, run, untrained_network

SHIPPED = sorted((ROOT / "options").glob("*.yml"))


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Checked:
    return Checked(capsys)


class Checked:
    """Runs ``basicsr check`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, list[str]]:
        """Return the exit code, and the lines on standard output; on standard error there are none."""
        self.capsys.readouterr()
        code = basicsr_command(["check", *arguments])
        captured = self.capsys.readouterr()
        assert captured.err == ""
        return code, captured.out.splitlines()


def write(name: str, *, without: str = "", **changes: object) -> None:
    """Write tiny.yml under another name, with other top-level keys."""
    opt = {key: value for key, value in yaml.safe_load(TINY.read_text()).items() if key != without}
    Path(name).write_text(yaml.safe_dump({**opt, **changes}))


def test_each_file_has_a_line(workplace: Path, checked: Checked) -> None:
    before = sorted(workplace.rglob("*"))
    assert checked("tiny.yml") == (0, ["tiny.yml: ok"])
    write("scale.yml", scale=2)
    write("key.yml", trian={})
    Path("not.yml").write_text("a: [1")
    code, lines = checked("scale.yml", "tiny.yml", "key.yml", "none.yml", "not.yml")
    assert code == 2
    assert lines[:3] == [
        "scale.yml: scale: 2 and network_g.scale: 4 must agree",
        "tiny.yml: ok",
        "key.yml: trian is no option; did you mean train?",
    ]
    assert lines[3].startswith("none.yml: No such file or directory")
    assert lines[4].startswith("not.yml: ") and "is not a YAML file" in lines[4] and len(lines) == 5
    assert checked("tiny.yml", "tiny.yml") == (0, ["tiny.yml: ok"] * 2)
    added = {workplace / name for name in ("scale.yml", "key.yml", "not.yml")}
    assert set(workplace.rglob("*")) == {*before, *added}


def test_what_changes_nothing_is_noted(workplace: Path, checked: Checked) -> None:
    changes = ["--force_yml", "datasets.train.num_prefetch_queue=2", "datasets.val.persistent_workers=true"]
    note = "datasets.train.num_prefetch_queue changes nothing; datasets.val.persistent_workers changes nothing"
    assert checked("tiny.yml", *changes) == (0, [f"tiny.yml: ok ({note})"])


def test_changes_are_checked_with_the_file(workplace: Path, checked: Checked) -> None:
    assert checked("tiny.yml", "--force_yml", "val.num_samples=0") == (
        2,
        ["tiny.yml: val.num_samples: 0 must be 1 or more"],
    )


def test_data_are_looked_at_where_asked_for(workplace: Path, checked: Checked) -> None:
    untrained_network("net.pth")
    here = ["tiny.yml", "--data", "--force_yml", "path.pretrain_network_g=net.pth"]
    assert checked(*here) == (0, ["tiny.yml: ok"])
    Path("net.pth").write_bytes(b"text")
    Path("data/train_LRx4.lmdb").rename("elsewhere")
    assert checked(*here)[0] == 2 and "net.pth is not a readable checkpoint" in checked(*here)[1][0]
    code, (line,) = checked("tiny.yml", "--data")
    assert code == 2 and line.startswith("tiny.yml: datasets.train.dataroot_lq: data/train_LRx4.lmdb does not exist")
    assert checked("tiny.yml") == (0, ["tiny.yml: ok"])


def test_a_file_without_train_is_a_test(workplace: Path, checked: Checked) -> None:
    write("test.yml", without="train")
    code, (line,) = checked("test.yml")
    assert code == 2 and "name the checkpoint to test" in line
    write("test.yml", without="train", path={"pretrain_network_g": "net.pth"})
    assert checked("test.yml") == (0, ["test.yml: ok"])


@pytest.mark.slow
def test_the_shipped_files_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: Checked) -> None:
    monkeypatch.chdir(tmp_path)
    code, lines = checked(*map(str, SHIPPED))
    assert code == 0, lines
    assert len(SHIPPED) == len(lines) >= 7
    for path, line in zip(SHIPPED, lines, strict=True):
        assert line.startswith(f"{path}: ok")
    assert list(tmp_path.iterdir()) == []


def test_a_plugins_classes_are_known(workplace: Path, monkeypatch: pytest.MonkeyPatch, checked: Checked) -> None:
    (workplace / "registering.py").write_text(
        "from basicsr.utils.registry import METRIC_REGISTRY\n"
        "@METRIC_REGISTRY.register()\n"
        "def calculate_theirs(img, img2, **kwargs):\n"
        "    return 1.0\n"
    )
    theirs = ["tiny.yml", "--force_yml", "val.metrics.theirs.type=calculate_theirs"]
    code, (line,) = checked(*theirs)
    assert code == 2 and "'calculate_theirs' is not known" in line
    monkeypatch.syspath_prepend(workplace)
    assert checked(*theirs, "--plugin", "registering") == (0, ["tiny.yml: ok"])


@pytest.mark.slow
def test_the_command(workplace: Path) -> None:
    assert run(BIN / "basicsr", "check", "tiny.yml") == "tiny.yml: ok\n"
    output = run(BIN / "basicsr", "check", "tiny.yml", "none.yml", code=2)
    assert "tiny.yml: ok\nnone.yml: No such file" in output and "Traceback" not in output
