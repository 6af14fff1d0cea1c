"""The benchmarks run from beginning to end, and time nothing that is wrong. How fast anything is does not matter."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402
import ops  # noqa: E402
from measure import Size  # noqa: E402

from vsrife.catalogue import MODELS  # noqa: E402
from vsrife.ops import OP_NAMES  # noqa: E402

QUICK = ["--device", "cpu", "--precision", "fp32", "--quick", "--models", "4.25"]


def rows(text: str, title: str) -> list[list[str]]:
    """The table under a heading, without its head."""
    part = re.split(r"^#+ ", text, flags=re.MULTILINE)
    lines = next(p for p in part if p.startswith(title)).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


@pytest.mark.slow
def test_one_command_measures_a_device(tmp_path: Path) -> None:
    output = tmp_path / "results.md"
    assert gpu.main([*QUICK, "--output", str(output)]) == 0
    text = output.read_text()
    assert f"PyTorch {torch.__version__}" in text
    assert [row[-1] for row in rows(text, "Accuracy")] == ["yes"]
    assert {row[0].partition(",")[0] for row in rows(text, "Ops")} == set(OP_NAMES)
    for title, numbers in (("Network", slice(2, 5)), ("Engine\n\n|", slice(2, 5)), ("Filter", slice(2, 7))):
        assert rows(text, title), title
        for row in rows(text, title):
            assert all(float(cell) > 0 for cell in row[numbers]), row
    assert len(rows(text, "Targets")) == len(gpu.TARGETS)


def test_what_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "LARGEST_ERROR", 1e-12)
    assert gpu.main(QUICK) == 1
    printed = capsys.readouterr().out
    assert rows(printed, "Accuracy")[0][-1] == "NO"
    assert "Network" not in printed
    monkeypatch.setattr(ops, "wrong_ops", lambda *_given: ["sample: off"])
    assert ops.main(QUICK) == 1
    assert "ratio" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "size", "operations", "least"),
    [("4.6", Size(1920, 1088), 175.2e9, 48.2e6), ("4.25", Size(1280, 704), 37.3e9, 49.2e6)],
    ids=str,
)
def test_floors_count_what_hooks_on_the_published_network_counted(
    version: str, size: Size, operations: float, least: float
) -> None:
    """The published forward also computes outputs that nobody reads: up to 6 % of its operations."""
    work = gpu.work(MODELS[version].layout, size, 2)
    assert 0.94 * operations < work.operations <= operations
    assert work.least == pytest.approx(least, rel=2e-3)
