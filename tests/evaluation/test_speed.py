"""The choice for `vsrife doctor --choose`, from measurements that the test makes up."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs

from tests.cpu_units import simulate_cpu
from vsrife.checkpoints.finding import find_weights
from vsrife.cli import main
from vsrife.evaluation import speed
from vsrife.evaluation.speed import Candidate, candidates, choose, filter_rate, moving_clip


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str | None, float], float]:
    """Output frames/s by model and scale, whatever the precision."""
    table: dict[tuple[str | None, float], float] = {
        (None, 1.0): 20,
        ("lite", 1.0): 70,
        (None, 0.5): 40,
        ("lite", 0.5): 90,
    }

    def rate(_clip: vs.VideoNode, _seconds: float, **keywords: Any) -> float:
        return table[keywords.get("model"), keywords.get("scale", 1.0)]

    monkeypatch.setattr(speed, "filter_rate", rate)
    monkeypatch.setattr(speed, "MODELS", ((None, None), ("lite", None)))
    return table


@pytest.mark.usefixtures("rates")
def test_best_quality_that_keeps_up() -> None:
    choice = choose(64, 64, Fraction(24), device="cpu")
    assert choice.keeps_up
    assert choice.best.candidate == Candidate("lite", None, 1.0)
    assert [each.frames_per_second for each in choice.measured] == [20, 70]  # no more than needed
    assert choice.script_line() == "clip = vsrife.RIFE(clip, multi=2, model='lite', realtime=True)"
    assert choose(64, 64, Fraction(8), device="cpu").script_line("cpu") == (
        "clip = vsrife.RIFE(clip, multi=2, device='cpu', realtime=True)"
    )


@pytest.mark.usefixtures("rates")
def test_fastest_if_none_keeps_up() -> None:
    choice = choose(64, 64, Fraction(60), device="cpu")
    assert not choice.keeps_up
    assert choice.best.candidate == Candidate("lite", None, 0.5)
    assert len(choice.measured) == 4


def test_candidates_fit_the_device() -> None:
    found = list(candidates(1280, 720, "cpu"))
    assert found[0] == Candidate(None, None, 1.0)
    assert {each.scale for each in found} == {1.0, 0.5}
    assert {each.scale for each in candidates(3840, 2160, "cpu")} == {0.5}
    assert {each.model for each in found} <= {None, "lite", "fast"}


def test_eight_bits_are_measured_where_they_are_not_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bundled models run in them anyway, other weights do not."""
    simulate_cpu(monkeypatch, "vnni")
    assert {each.precision for each in candidates(1280, 720, "cpu")} == {None}
    monkeypatch.setenv("VSRIFE_MODEL", str(shutil.copy(find_weights("fast"), tmp_path / "own.safetensors")))
    own = [each for each in candidates(1280, 720, "cpu") if each.model is None]
    assert {each.precision for each in own} == {None, "int8"}


@pytest.mark.usefixtures("rates")
def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--choose", "64x64@24", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "lite, default precision, scale 1: 70.0 of 57.6 frames/s, keeps up" in out
    assert out.endswith("clip = vsrife.RIFE(clip, multi=2, model='lite', device='cpu', realtime=True)\n")
    assert "default model, default precision, scale 1: 20.0 frames/s, 100 ms a new frame" in err
    assert main(["doctor", "--choose", "64x64@60", "--device", "cpu", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["keeps_up"], report["needed_fps"], len(report["measured"])) == (False, 144, 4)
    for arguments, text in (
        (["--choose", "720p"], "--choose must be a size and a frame rate, got '720p'; write it like 1280x720@24"),
        (["--device", "cpu"], "--device needs --choose, got cpu without it"),
    ):
        assert main(["doctor", *arguments]) == 2
        assert text in capsys.readouterr().err


def test_the_filter_is_measured() -> None:
    assert filter_rate(moving_clip(64, 48), 0.1, device="cpu", model="lite") > 0
