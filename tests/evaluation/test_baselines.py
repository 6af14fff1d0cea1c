"""Baselines against the figures that come with the evaluation data, and at other times than the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from vsrife.evaluation.baselines import BASELINES
from vsrife.evaluation.metrics import Image8, psnr_db, ssim


def read(path: Path) -> Image8:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "figures"),
    [  # PSNR and SSIM of repeat, blend and DIS, as the data's README states them
        ("middlebury_other", {"repeat": (22.712, 0.8262), "blend": (25.465, 0.8612), "dis": (31.988, 0.9625)}),
        ("davis", {"repeat": (18.375, 0.6297), "blend": (20.225, 0.6656), "dis": (24.196, 0.8384)}),
    ],
)
def test_baselines_reproduce_the_figures_of_the_data(
    shared_data: Path, name: str, figures: dict[str, tuple[float, float]]
) -> None:
    scores: dict[str, list[tuple[float, float]]] = {method: [] for method in figures}
    for folder in sorted((shared_data / "eval" / name).iterdir()):
        first, truth, last = (read(folder / f"{stem}.webp") for stem in ("frame_00", "frame_01_gt", "frame_02"))
        for method, scored in scores.items():
            (shown,) = BASELINES[method](first, last, [0.5])
            scored.append((psnr_db(shown, truth), ssim(shown, truth)))
    for method, (decibels, similarity) in figures.items():
        mean = np.mean(scores[method], axis=0)
        assert mean[0] == pytest.approx(decibels, abs=0.01), method
        assert mean[1] == pytest.approx(similarity, abs=1e-4), method


def moved(width: int, height: int, shift: float) -> Image8:
    """A texture moved to the right by `shift` pixels."""
    x, y = np.meshgrid(np.arange(width) - shift, np.arange(height))
    waves = [np.sin(x / 5 + y / 7), np.sin(x / 3 - y / 9), np.cos(x / 8) * np.sin(y / 4)]
    return np.round(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_dis_arrives_where_the_motion_is_at_the_time(t: float) -> None:
    first, last = moved(96, 64, 0), moved(96, 64, 4)
    (shown,) = BASELINES["dis"](first, last, [t])
    inside = (slice(8, -8), slice(8, -8))
    errors = {at: psnr_db(shown[inside], moved(96, 64, 4 * at)[inside]) for at in (0.25, 0.5, 0.75)}
    assert max(errors, key=errors.__getitem__) == t
    assert errors[t] > 35


def at(name: str) -> Callable[[float], float]:
    """The value that a baseline gives between 10 and 21 at a time."""

    def value(t: float) -> float:
        a, b = np.full((16, 16, 3), 10, np.uint8), np.full((16, 16, 3), 21, np.uint8)
        return float(next(BASELINES[name](a, b, [t])).mean())

    return value


def test_repeat_and_blend_by_time() -> None:
    assert [at("repeat")(t) for t in (0.25, 0.75)] == [10, 10]
    assert [at("blend")(t) for t in (0.25, 0.5, 0.75)] == [13, 16, 18]  # 12.75, 15.5 (to even), 18.25
