"""`RIFE(realtime=True)` in a player that keeps time. At a low rate, so that a busy machine can run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

import vsrife
from tests.clips import LinearEngine, counting, props_of
from vsrife.engine.loaded import NetworkOptions
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download
from vsrife.filters import realtime
from vsrife.filters.realtime import QUALITY, ladder

FPS = 5  # of the source; a new frame every 200 ms
STEP = 1 / (2 * FPS)
QUEUE = 4  # output frames that the player holds


@contextmanager
def engine_that_takes(seconds: Callable[[str], float]) -> Iterator[list[str]]:
    """Filters made inside mix frames linearly, as slowly as asked; yields the name of the network of each frame."""
    begun: list[str] = []

    class SlowEngine(LinearEngine):
        def interpolate(
            self, left: InputFrame, right: InputFrame, timestep: float, interrupt: Callable[[], None] = lambda: None
        ) -> Download | None:
            name = str(self.net)
            begun.append(name)
            end = time.monotonic() + seconds(name)
            while time.monotonic() < end:
                time.sleep(0.005)
                interrupt()
            return super().interpolate(left, right, timestep, interrupt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vsrife.filters.rife, "Engine", SlowEngine)
        patch.setattr(vsrife.filters.rife, "network", lambda options: f"{options.model or 'base'} {options.scale:g}")
        patch.setattr(realtime, "_rungs", {})
        yield begun


@dataclass
class Player:
    """Asks for the next frame when its queue has room."""

    clip: vs.VideoNode
    lags: list[float] = field(default_factory=list)
    qualities: list[int] = field(default_factory=list)
    levels: dict[int, int] = field(default_factory=dict)

    def play(self, frames: int, *, first: int = 0, fast: bool = False) -> Player:
        start = time.monotonic()
        for n in range(first, first + frames):
            due = start + (n - first) * STEP
            if not fast:
                time.sleep(max(0.0, due - QUEUE * STEP - time.monotonic()))
            with self.clip.get_frame(n) as frame:
                self.levels[n] = int(np.asarray(frame[0])[0, 0])
                if n % 2:
                    self.qualities.append(int(frame.props[QUALITY]))
            self.lags.append(time.monotonic() - due)
        return self


def source(frames: int = 200) -> vs.VideoNode:
    return counting(frames, (FPS, 1))


def test_fast_machine_interpolates() -> None:
    with engine_that_takes(lambda _: 0.0) as begun:
        player = Player(vsrife.RIFE(source(), realtime=True)).play(40)
        exact = vsrife.RIFE(source())
        expected = {n: int(np.asarray(exact.get_frame(n)[0])[0, 0]) for n in (31, 35, 39)}
    assert player.qualities[-8:] == [0] * 8
    assert {n: player.levels[n] for n in expected} == expected
    assert set(begun) == {"base 1"}


def test_slow_machine_shows_source_frames_in_time() -> None:
    with engine_that_takes(lambda _: 3.0):
        player = Player(vsrife.RIFE(source(), realtime=True)).play(60)
    assert player.qualities[-10:] == [-1] * 10
    assert max(player.lags) < 0.05
    assert player.levels[59] in (player.levels[58], player.levels[58] + 1)  # the nearest source frame


def test_lighter_networks_keep_up() -> None:
    seconds = {"base 1": 0.5, "base 0.5": 0.4}  # lighter ones are fast enough
    with engine_that_takes(lambda network: seconds.get(network, 0.01)) as begun:
        player = Player(vsrife.RIFE(source(), realtime=True)).play(70)
        assert "lite 1" in begun
        assert max(player.qualities[-20:]) >= 2  # frames of a lighter network are shown
        begun.clear()
        Player(vsrife.RIFE(source(), realtime=True)).play(20, first=100)
        assert begun[0] != "base 1"  # the next playback, as after a seek, starts where this one ended


def test_exact_seek_computes_nothing() -> None:
    with engine_that_takes(lambda _: 1.0) as begun:
        player = Player(vsrife.RIFE(source(), realtime=True)).play(150, fast=True)
    assert begun == []
    assert set(player.qualities) == {-1}


def test_deterministic_without_it() -> None:
    with engine_that_takes(lambda _: 0.01):
        clip = vsrife.RIFE(source(), realtime=False)
        assert QUALITY not in props_of(clip, 1)
        assert {int(np.asarray(clip.get_frame(n)[0])[0, 0]) for n in (1, 1)} == {0}


def test_overlay_writes_into_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    blank = vs.core.std.BlankClip(width=640, height=360, format=vs.YUV420P8, length=120, fpsnum=FPS, fpsden=1)
    with engine_that_takes(lambda _: 0.0):
        clip = vsrife.RIFE(blank, realtime="overlay")
        with clip.get_frame(20) as frame:
            assert np.asarray(frame[0]).max() > 200
        for n in range(0, 120):
            clip.get_frame(n).close()
    assert "RIFE:" not in capsys.readouterr().err  # all of it was a seek


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"realtime": "yes"}, "realtime must be True, False or 'overlay', got 'yes'"),
        ({"realtime": True, "device": "cpu,cpu"}, "realtime runs on one device, got device='cpu,cpu'"),
    ],
)
def test_refusals(keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(vs.Error, match=text):
        vsrife.RIFE(source(4), **keywords)


@pytest.mark.parametrize(
    ("keywords", "names"),
    [
        ({}, [(None, 1.0), (None, 0.5), ("lite", 1.0), ("lite", 0.5)]),
        ({"model": "lite"}, [("lite", 1.0), ("lite", 0.5)]),
        ({"scale": 0.5}, [(None, 0.5), ("lite", 0.5)]),
        ({"model": "4.25", "tta": True}, [("4.25", 1.0), ("4.25", 1.0), ("4.25", 0.5), ("lite", 1.0), ("lite", 0.5)]),
    ],
    ids=str,
)
def test_ladder(keywords: dict[str, Any], names: list[tuple[str | None, float]]) -> None:
    rungs = [rung for rung in ladder(NetworkOptions.of(device="cpu", **keywords)) if rung.model != "fast"]
    assert [(rung.model, rung.scale) for rung in rungs] == names
    assert not any(rung.tta for rung in rungs[1:])
