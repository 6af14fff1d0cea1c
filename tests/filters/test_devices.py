"""Several devices for one clip: the same frames, whichever device makes them."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray

import vsrife.filters.rife
from tests.clips import LinearEngine, counting, equal, pan, planes_of, value_of
from vsrife import RIFE
from vsrife.engine.engine import Engine
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download

CPU = torch.device("cpu")
CLOSING_S = 5.0  # patience; on an idle machine it is a fraction of a second


class Sharing(LinearEngine):
    """Mixes, and tells which engine made which pair."""

    made: list[tuple[int, int]]  # number of the engine, left source frame
    count: int
    broken: int | None  # number of the engine that fails

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.number = Sharing.count
        Sharing.count += 1

    def interpolate(
        self,
        left: InputFrame,
        right: InputFrame,
        timestep: float,
        interrupt: Callable[[], None] = lambda: None,
    ) -> Download | None:
        key = left.key
        assert isinstance(key, int)
        Sharing.made.append((self.number, key))
        if self.number == Sharing.broken:
            raise RuntimeError("the device fell off")
        return super().interpolate(left, right, timestep, interrupt)


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> type[Sharing]:
    Sharing.made, Sharing.count, Sharing.broken = [], 0, None
    monkeypatch.setattr(vsrife.filters.rife, "Engine", Sharing)
    return Sharing


@lru_cache
def frames_on_one_device(length: int, multi: int, fmt: str = "YUV420P8") -> list[list[NDArray[Any]]]:
    """All frames of a filter as it is on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vsrife.filters.rife, "Engine", Engine)
        output = RIFE(pan(length, 32, 32, fmt), multi=multi, sc_threshold=1.0)
        return [planes_of(output, n) for n in range(output.num_frames)]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vsrife"]


@pytest.mark.parametrize("device", ["cpu,cpu", "cpu, cpu,cpu"])
def test_pairs_go_to_the_devices_in_turn(device: str, sharing: type[Sharing]) -> None:
    """Each pair wholly to one, from every direction; the frames are where they belong."""
    count = device.count("cpu")
    output = RIFE(counting(12), multi=4, device=device, sc_threshold=1.0)
    order = [*range(output.num_frames), *random.Random(5).sample(range(output.num_frames), 20)]
    for n in order:
        assert value_of(output, n) == min(Fraction(n, 4), 11)
    assert {engine for engine, _ in sharing.made} == set(range(count))
    assert all(engine == left % count for engine, left in sharing.made)


@pytest.mark.usefixtures("sharing")
def test_two_devices_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With access in order the next pair is begun on the other device before this one is done."""
    together = threading.Barrier(2, timeout=60)
    real = Sharing.interpolate

    def interpolate(self: Sharing, left: InputFrame, *rest: Any) -> Download | None:
        if left.key in (4, 5):
            together.wait()
        return real(self, left, *rest)

    monkeypatch.setattr(Sharing, "interpolate", interpolate)
    output = RIFE(counting(12), device="cpu,cpu", sc_threshold=1.0)
    assert [value_of(output, n) for n in range(output.num_frames - 1)] == [n / 2 for n in range(output.num_frames - 1)]
    assert not together.broken


def test_network_on_two_devices_gives_the_frames_of_one() -> None:
    output = RIFE(pan(4, 32, 32), multi=4, sc_threshold=1.0, device="cpu,cpu")
    for n in [6, 1, 2, 3, 4, 5, 6, 7, 11, 9]:
        assert equal(planes_of(output, n), frames_on_one_device(4, 4)[n]), n


def test_failing_device_leaves_the_others_alone(sharing: type[Sharing]) -> None:
    """Its frames are errors that say why; those of the other device come, before, between and after."""
    output = RIFE(counting(9), device="cpu,cpu", sc_threshold=1.0)
    sharing.broken = 1
    for n in range(1, 16, 2):
        left = n // 2
        if left % 2:
            message = f"RIFE: output frame {n} failed, between source frames {left} and {left + 1}: the device fell off"
            with pytest.raises(vs.Error, match=message):
                output.get_frame(n)
        else:
            assert value_of(output, n) == n / 2


@pytest.mark.usefixtures("sharing")
def test_closing_ends_all_workers() -> None:
    before = set(workers())
    output = RIFE(counting(9), device="cpu,cpu,cpu", sc_threshold=1.0)
    for n in range(1, 12):
        output.get_frame(n).close()
    mine = set(workers()) - before
    assert len(mine) == 3
    del output
    gc.collect()
    deadline = time.monotonic() + CLOSING_S
    for thread in mine:
        thread.join(max(0, deadline - time.monotonic()))
        assert not thread.is_alive()
