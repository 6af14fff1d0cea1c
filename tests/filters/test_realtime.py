"""`RIFE(realtime=True)` in a player that keeps time. At a low rate, so that a busy machine can run it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

import vsrife
from tests.clips import NEXT, PREV, LinearEngine, counted_runs, counting, props_of, video_format, with_props
from tests.cpu_units import simulate_cpu
from vsrife.engine.loaded import NetworkOptions
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download
from vsrife.filters import realtime
from vsrife.filters.realtime import QUALITY, ladder
from vsrife.timing import pace
from vsrife.timing.pace import Pace

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
        patch.setattr(vsrife.filters.rife, "prepare", lambda _: None)
        patch.setattr(vsrife.filters.rife, "_prepared", set())
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
        del player
        gc.collect()  # a player drops its clip at a seek
        begun.clear()
        Player(vsrife.RIFE(source(), realtime=True)).play(20, first=100)
        assert begun[0] != "base 1"  # the next playback, as after a seek, starts where this one ended


def test_exact_seek_computes_nothing() -> None:
    with engine_that_takes(lambda _: 1.0) as begun:
        player = Player(vsrife.RIFE(source(), realtime=True)).play(150, fast=True)
    assert begun == []
    assert set(player.qualities) == {-1}


@contextmanager
def own_clock() -> Iterator[Callable[[Fraction], None]]:
    """Playbacks made inside are shown by a clock that stands still; yields what moves it."""
    now = [100.0]

    def advance(seconds: Fraction) -> None:
        now[0] += float(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(realtime, "Pace", partial(Pace, clock=lambda: now[0]))
        yield advance


def repeated_frames(frames: int = 60) -> vs.VideoNode:
    """Every second frame repeats the one before, and says so."""
    clip = source(frames)
    return with_props(clip.std.SelectEvery(2, [0, 0])[:frames], lambda n: {"_Duplicate": n % 2})


def scenes(frames: int = 60) -> vs.VideoNode:
    return with_props(source(frames), lambda n: {NEXT: n % 4 == 3, PREV: n % 4 == 0})


def seen(
    clip: vs.VideoNode, advance: Callable[[Fraction], None] = lambda _: None
) -> list[tuple[float, Fraction, int, int]]:
    """Level, duration and scene change props of every frame."""
    found = []
    for frame in clip.frames(close=True, prefetch=1):
        props = frame.props
        length = Fraction(props["_DurationNum"], props["_DurationDen"])
        advance(length)
        found.append((float(np.asarray(frame[0])[0, 0]), length, props.get(PREV, 0), props.get(NEXT, 0)))
    return found


COMBINED = [
    (repeated_frames, {"duplicates": "fill"}),
    (scenes, {}),
    (scenes, {"multi": "5/2", "scale": 0.5}),
    (repeated_frames, {"duplicates": "fill", "multi": 3}),
]


@pytest.mark.parametrize(("clip", "keywords"), COMBINED)
def test_same_frames_as_without_it_where_there_is_time(
    clip: Callable[[], vs.VideoNode], keywords: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LATE_SECONDS", 10.0)  # a busy machine may take its time
    with engine_that_takes(lambda _: 0.0), own_clock() as advance:
        shown = seen(vsrife.RIFE(clip(), realtime=True, **keywords), advance)
        exact = seen(vsrife.RIFE(clip(), **keywords))
    assert shown[40:] == exact[40:]
    assert [others for _, *others in shown] == [others for _, *others in exact]


@pytest.mark.parametrize(("clip", "keywords"), COMBINED)
def test_too_slow_shows_near_source_frames_at_the_same_times(
    clip: Callable[[], vs.VideoNode], keywords: dict[str, Any]
) -> None:
    """Repeated frames and cuts too: never a frame from beyond a cut, and no time lost."""
    with engine_that_takes(lambda _: 0.5), own_clock() as advance:
        shown = seen(vsrife.RIFE(clip(), realtime=True, **keywords), advance)
    with engine_that_takes(lambda _: 0.0):
        exact = seen(vsrife.RIFE(clip(), **keywords))
    assert [others for _, *others in shown] == [others for _, *others in exact]
    assert all(level == int(level) for level, *_ in shown)
    farthest = 1 if "duplicates" in keywords else Fraction(1, 2)  # distinct frames are two apart
    assert max(abs(level - ideal) for (level, *_), (ideal, *_) in zip(shown, exact, strict=True)) <= farthest


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


LIGHTER = [("lite", 1.0), ("fast", 1.0), ("lite", 0.5), ("fast", 0.5)]


@pytest.mark.parametrize(
    ("keywords", "names"),
    [
        ({}, [(None, 1.0), (None, 0.5), *LIGHTER]),
        ({"model": "lite"}, LIGHTER),
        ({"model": "fast"}, [("fast", 1.0), ("fast", 0.5)]),
        ({"scale": 0.5}, [(None, 0.5), ("lite", 0.5), ("fast", 0.5)]),
        ({"model": "4.25", "tta": True}, [("4.25", 1.0), ("4.25", 1.0), ("4.25", 0.5), *LIGHTER]),
    ],
    ids=str,
)
def test_ladder(keywords: dict[str, Any], names: list[tuple[str | None, float]]) -> None:
    """From quality to speed, of the models that are in the package."""
    rungs = ladder(NetworkOptions.of(device="cpu", **keywords))
    assert [(rung.model, rung.scale) for rung in rungs] == names
    assert not any(rung.tta for rung in rungs[1:])


def test_ladder_in_eight_bits_where_the_cpu_has_units_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_cpu(monkeypatch, "vnni")
    published = ladder(NetworkOptions.of(device="cpu", model="4.25"))
    assert [rung.dtype for rung in published] == [torch.float32] * 2 + [torch.int8] * 4
    assert {rung.dtype for rung in ladder(NetworkOptions.of(device="cpu"))} == {torch.int8}


@pytest.mark.parametrize("fmt", ["YUV420P8", "YUV444P16", "GRAYS", "RGBH"])
def test_code_is_loaded_before_the_player_starts(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each kind of clip: the first new frame of a playback would hold up the others otherwise."""
    monkeypatch.setattr(vsrife.filters.rife, "_prepared", set())
    clip = vs.core.std.BlankClip(format=video_format(fmt), width=64, height=32)
    with counted_runs() as runs:
        vsrife.RIFE(clip, model="fast", device="cpu", realtime=True)
        assert runs
        begun = len(runs)
        vsrife.RIFE(clip.std.BlankClip(width=96), model="fast", device="cpu", realtime=True)
        vsrife.RIFE(clip, model="fast", device="cpu")
        assert len(runs) == begun
