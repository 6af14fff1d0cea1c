"""Models before 4.x in the filter."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import vsrife.filters.rife
from tests.clips import equal, pan, planes_of, spliced
from tests.golden.legacy import (
    small_net,
)
from vsrife import RIFE
from vsrife.networks.legacy import LegacyNet


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Filters run a narrow network: HD v3 with a refinement; this counts how often."""
    counted: list[float] = []
    real = LegacyNet.estimate

    def estimate(self: LegacyNet, a: Any, b: Any, timestep: Any = 0.5, *rest: Any) -> Any:
        counted.append(timestep)
        return real(self, a, b, timestep, *rest)

    monkeypatch.setattr(LegacyNet, "estimate", estimate)
    monkeypatch.setattr(vsrife.filters.rife, "network", lambda options: small_net("E04", options.scale))
    return counted


@pytest.mark.parametrize(
    ("fmt", "width", "height"),
    [("YUV420P8", 70, 46), ("YUV422P10", 34, 17), ("YUV444PS", 33, 18), ("GRAY16", 31, 17), ("RGBH", 17, 33),
     ("RGB30", 40, 24)],
)  # fmt: skip
@pytest.mark.usefixtures("runs")
def test_formats_and_odd_sizes(fmt: str, width: int, height: int) -> None:
    clip = pan(3, width, height, fmt)
    output = RIFE(clip, 4, sc_threshold=1.0)
    assert (output.format.id, output.width, output.height) == (clip.format.id, width, height)
    for n in range(9):
        frame = planes_of(output, n)
        assert equal(frame, planes_of(clip, n // 4)) == (n % 4 == 0)
        assert all(np.isfinite(plane.astype(np.float32)).all() for plane in frame)


def test_linear_and_random_access_agree_and_nothing_is_made_twice(runs: list[float]) -> None:
    clip = pan(3, 64, 48)
    output = RIFE(clip, 8, sc_threshold=1.0)
    linear = [planes_of(output, n) for n in range(output.num_frames)]
    assert len(runs) == 2 * 7
    order = random.Random(2).sample(range(output.num_frames), output.num_frames)
    again = RIFE(clip, 8, sc_threshold=1.0)
    assert all(equal(planes_of(again, n), linear[n]) for n in order)


@pytest.mark.usefixtures("runs")
def test_nothing_is_blended_across_a_cut() -> None:
    clip = spliced(2, 2)
    output = RIFE(clip, 4)
    before, after = planes_of(clip, 1), planes_of(clip, 2)
    assert all(equal(planes_of(output, n), before if n < 6 else after) for n in range(4, 9))


@pytest.mark.usefixtures("runs")
def test_flow_scale_and_carried_clips() -> None:
    clip = pan(2, 64, 48)
    coarse, carried = RIFE(clip, 4, scale=0.5, sc_threshold=1.0, carry=[pan(2, 32, 24, "GRAYS")])
    assert not equal(planes_of(coarse, 1), planes_of(RIFE(clip, 4, sc_threshold=1.0), 1))
    moved = planes_of(carried, 1)[0]
    assert moved.shape == (24, 32)
    assert not np.array_equal(moved, planes_of(carried, 0)[0])
