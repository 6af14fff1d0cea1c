"""The benchmarks run from beginning to end, and time nothing that is wrong. How fast anything is does not matter."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import accuracy, all, filter, int8, measure, network, ops, pairs, peers
from benchmarks.engine import traffic
from benchmarks.measure import Report, Size
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import read_ifnet
from vsrife.networks.catalogue import LAYOUTS, MODELS
from vsrife.ops.protocol import OP_NAMES

QUICK = ["--device", "cpu", "--precision", "fp32", "--quick", "--models", "4.25"]


def rows(text: str, title: str) -> list[list[str]]:
    """The first table under a heading or a paragraph that begins so, without its head."""
    part = text[re.search(rf"^(#+ )?{re.escape(title)}", text, re.MULTILINE).start() :]  # type: ignore[union-attr]
    table = re.search(r"^\|.*\n\| ---.*\n((?:\|.*\n)*)", part, re.MULTILINE)
    assert table is not None, title
    return [[c.strip() for c in line.strip("|").split("|")] for line in table[1].splitlines()]


def check_figures(text: str, tables: Mapping[str, slice]) -> None:
    """Numbers above 0 in these columns of each table."""
    for title, columns in tables.items():
        assert rows(text, title), title
        for row in rows(text, title):
            assert min(map(float, row[columns])) > 0, row


@pytest.mark.slow
def test_one_command_measures_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part in a process of its own; the parts that are left out here are run below."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # threads that wait for each other are slow on a busy machine
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(all, "PARTS", [part for part in all.PARTS if part.name in ("accuracy", "engine", "memory")])
    output = tmp_path / "results.md"
    assert all.main([*QUICK, "--minutes", "60", "--output", str(output)]) == 0
    text = output.read_text()
    assert "failed" not in text
    assert "skipped" not in text.lower()
    assert f"PyTorch {torch.__version__}" in text
    assert "vapoursynth" in text
    assert re.search(r"(no )?avx512_bf16, (no )?amx_bf16", text)
    assert [row[-1] for row in rows(text, "Accuracy")] == ["yes"]
    check_figures(text, {"Engine": slice(2, 5), "The first frame": slice(2, 4), "Memory\n": slice(2, 4)})
    assert len(rows(text, "Targets")) == len(all.CPU_TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "tables"),
    [
        (filter, {"Filter": slice(2, 7)}),
        (network, {"Network": slice(2, 5), "Against torch.compile": slice(2, 7)}),
        (ops, {"Ops": slice(2, 7)}),
        (pairs, {"Pairs on a CPU": slice(4, 5)}),
    ],
    ids=["filter", "network", "ops", "pairs"],
)
def test_parts(command: ModuleType, tables: dict[str, slice], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(QUICK) == 0
    text = capsys.readouterr().out
    assert "failed" not in text
    check_figures(text, tables)
    if command is ops:
        assert {row[0].partition(",")[0] for row in rows(text, "Ops")} == set(OP_NAMES)
    if command is pairs:
        assert float(rows(text, "Pairs on a CPU")[0][7]) >= measure.LEAST_PSNR_DB


@pytest.mark.slow
def test_traffic_counts_every_op() -> None:
    with torch.inference_mode():
        steps = traffic("4.25", Size(64, 64), torch.device("cpu"), torch.float32)
    # RGB pictures alone are blended, and warped stacks are made where blocks work above full resolution.
    assert set(OP_NAMES) - {"blend", "warp_stacks"} <= set(steps)
    # In 5 blocks the second layer, the timestep's and the new frame's share of block 0.
    assert steps["convolve"].calls == 5 + 1 + 1
    assert steps["warp_convolve"].calls == 4  # the first layer of the others
    assert steps["convolve_chain"].calls == 5
    body = 8 * 9 * sum(width**2 for width in MODELS["4.25"].layout.widths)
    assert steps["convolve_chain"].moved > 4 * body  # all weights are read


def test_what_is_wrong_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(accuracy, "LARGEST_ERROR", 1e-12)
    assert accuracy.main(QUICK) == all.WRONG
    assert rows(capsys.readouterr().out, "Accuracy")[0][-1] == "NO"
    monkeypatch.setattr(ops, "wrong_ops", lambda *_given: ["sample: off"])
    assert ops.main(QUICK) == 1
    assert "ratio" not in capsys.readouterr().out
    begun: list[str] = []

    def wrong(_run: all.Run, part: all.Part) -> int:
        begun.append(part.name)
        return all.WRONG

    monkeypatch.setattr(all.Run, "part", wrong)
    assert all.main([*QUICK, "--output", str(tmp_path / "results.md")]) == all.WRONG
    assert begun == ["accuracy"]


def test_a_part_that_fails_or_hangs_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    def fail() -> tuple[str, ...]:
        raise ValueError("got nothing")

    output = tmp_path / "report.md"
    report = Report(output, minutes=1)
    assert report.table(("a", "b"), [lambda: ("1", "2"), fail, lambda: ("3", "4")]) == [("1", "2"), ("3", "4")]
    assert rows(output.read_text(), "")[:2] == [["1", "2"], ["3", "4"]]
    assert "ValueError: got nothing" in output.read_text()
    report.until = time.monotonic()
    assert report.table(("a",), [lambda: ("1",)]) == []
    assert "Rows skipped for lack of time: 1." in output.read_text()

    folder = tmp_path / "parts"
    folder.mkdir()
    run = all.Run(Report(None, minutes=1), [], folder)
    hangs = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    start = time.monotonic()
    assert run.process([sys.executable, "-c", hangs], 0.5) == (all.STOPPED, "")
    assert time.monotonic() - start < 30
    status, text = run.process([sys.executable, "-c", "raise KeyError('lost')"], 60)
    assert status == all.FAILED
    assert "KeyError: 'lost'" in text


def test_targets_know_floors_and_stand_ins() -> None:
    seen = {
        "engine, 4.6, 1920x1080, ms per new frame": (0.5, 0.2),
        "engine, 4.25, 1920x1080, ms per new frame": (0.7, 0.2),
        "engine with transfers, 4.25, 1920x1080, output frames/s": (900.0, None),
    }
    lines = [tuple(line) for line in all.against(all.CUDA_TARGETS, seen)]
    assert lines[0] == ("engine, 4.6, 1920x1080, ms per new frame", "0.5", "at most 0.6", "yes", "0.2")
    assert lines[1][3] == "no"
    assert lines[2][1] == "not measured"
    assert "standing in for the filter" in lines[4][0]
    assert lines[4][3] == "yes"


@pytest.mark.slow
def test_int8_keeps_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert int8.main(["--models", "lite", "--size", "128x64", "--timed", "128x64", "--rounds", "1"]) == 0
    text = capsys.readouterr().out
    quality = {row[0]: float(row[1]) for row in rows(text, "PSNR")}
    assert quality["lite"] > 48
    assert quality["lite"] < 119  # something was rounded
    assert len(rows(text, "CPU time of the eight")) == read_ifnet(find_weights("lite")).layout.blocks


def test_bound_on_more_cores() -> None:
    """100 ms of work of which 20 are serial; sharing it among more threads costs CPU time."""
    times = {1: (100.0, 100.0), 2: (100.0, 60.0), 4: (120.0, 60.0)}
    assert [row[3] for row in peers.core_rows(times)] == ["100", "60", "45"]


@pytest.mark.slow
def test_peers_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main(["--quick", "--models", "lite", "--sizes", "128x128"]) == 0
    text = capsys.readouterr().out
    found = {row[0]: float(row[3]) for row in rows(text, "Peers")}
    assert "published forward, PyTorch, network alone" in found
    assert "onnxruntime, network alone" in found
    assert min(found.values()) > 0


def test_parts_are_commands_and_memory_comes_last() -> None:
    for part in all.PARTS:
        assert (Path(all.__file__).parent / f"{part.name}.py").exists()
        assert 0 < part.share <= 1
    assert (all.PARTS[0].name, all.PARTS[-1].name) == ("accuracy", "memory")
    assert {part.name: part.only for part in all.PARTS if part.only} == {"pairs": "cpu"}


@pytest.mark.parametrize(
    ("version", "size", "operations", "least"),
    [("4.6", Size(1920, 1088), 175.2e9, 48.2e6), ("4.25", Size(1280, 704), 37.3e9, 49.2e6)],
    ids=str,
)
def test_floors_count_what_hooks_on_the_published_network_counted(
    version: str, size: Size, operations: float, least: float
) -> None:
    """The published forward also computes outputs that nobody reads: up to 6 % of its operations."""
    work = network.work(MODELS[version].layout, size, 2)
    assert 0.94 * operations < work.operations <= operations
    assert work.least == pytest.approx(least, rel=2e-3)


def test_what_the_small_bundled_layouts_cost() -> None:
    base, lite, fast = (
        network.work(LAYOUTS[layout], Size(1280, 704), 2).operations for layout in ("L14", "L19", "L20")
    )
    assert 0.2 * base < lite < 0.3 * base
    assert 0.1 * base < fast < 0.18 * base


def test_targets_are_met_or_not_by_ratio_and_quality() -> None:
    assert {(t.value, t.most) for t in all.CPU_TARGETS} == {(3.5, False), (6.0, False), (48.0, False)}
    assert pairs.LEAST_RATIOS == {"4.6": 3.5, "4.25": 6.0}
