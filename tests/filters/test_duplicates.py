"""Repeated and damaged source frames give way to motion between their neighbours."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from tests.clips import (
    NEXT,
    PREV,
    clip_of,
    counting,
    duration_of,
    durations_of,
    equal,
    marks,
    pan,
    panned,
    planes_of,
    props_of,
    psnr_db,
    scene,
    texture,
    value_of,
    with_props,
    without_rate,
)
from vsrife import RIFE
from vsrife.filters.duplicates import is_repeat

core = vs.core
TWOS, THREES = [n // 2 for n in range(12)], [n // 3 for n in range(12)]
IN_30 = [4 * (n // 5) + (0, 1, 2, 2, 3)[n % 5] for n in range(25)]  # A B C C D


def held(pattern: Sequence[int], source: vs.VideoNode | None = None) -> vs.VideoNode:
    """A counting clip, or another source, of which each frame is shown as often as the pattern says."""
    clip = counting(max(pattern) + 1) if source is None else source
    return core.std.Splice([clip[n] for n in pattern])


def values(clip: vs.VideoNode) -> list[float]:
    return [value_of(clip, n) for n in range(clip.num_frames)]


def fill(clip: vs.VideoNode, multi: Any = 1, **options: Any) -> vs.VideoNode:
    keywords: dict[str, Any] = {"sc_threshold": 1.0, "duplicates": "fill"} | options
    return RIFE(clip, multi, **keywords)


# --- where the output frames lie --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [TWOS, THREES])
@pytest.mark.parametrize("multi", [1, 2, "5/2", 3])
@pytest.mark.usefixtures("linear")
def test_fill_moves_evenly(pattern: list[int], multi: Any) -> None:
    held_frames, step = pattern.count(0), 1 / Fraction(multi)
    out = fill(held(pattern), multi)
    assert out.num_frames == len(pattern) * Fraction(multi)
    assert out.fps == 24 * Fraction(multi)
    expected = [min(float(n * step / held_frames), max(pattern)) for n in range(out.num_frames)]
    assert values(out) == pytest.approx(expected, abs=1e-5)
    assert sum(duration_of(out, n) for n in range(out.num_frames)) == Fraction(len(pattern), 24)


@pytest.mark.parametrize("fps", [None, 60])
@pytest.mark.usefixtures("linear")
def test_even_spreads_24_in_30(fps: int | None) -> None:
    out = fill(held(IN_30, counting(20, (30, 1))), None if fps else 1, duplicates="even", fps=fps)
    assert out.fps == (fps or 30)
    per_frame = Fraction(24, fps or 30)
    assert values(out)[:-3] == pytest.approx([float(n * per_frame) for n in range(out.num_frames - 3)], abs=1e-5)


@pytest.mark.usefixtures("linear")
def test_fill_with_timestamps_is_exact_in_time() -> None:
    times = [Fraction(n, 10) for n in (0, 1, 3, 4, 6, 7)]
    out = fill(held([0, 0, 1, 1, 2, 3]), None, fps=10, timestamps=times)
    assert values(out) == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 3], abs=1e-5)


@pytest.mark.usefixtures("linear")
def test_fill_with_a_speed_ramp() -> None:
    out = fill(held(TWOS), None, times=[0, 1, 5, 1, 0.5], times_in="frames")
    assert values(out) == pytest.approx([0, 0.5, 2.5, 0.5, 0.25], abs=1e-5)


@pytest.mark.usefixtures("linear")
def test_carried_clips_follow() -> None:
    clip = held(TWOS)
    extra = held([2 * n for n in TWOS])
    out, carried = RIFE(clip, 2, sc_threshold=1.0, duplicates="fill", carry=[extra])
    assert values(carried) == pytest.approx([2 * value for value in values(out)], abs=1e-4)
    assert [duration_of(carried, n) for n in range(24)] == [duration_of(out, n) for n in range(24)]


@pytest.mark.usefixtures("linear")
def test_long_runs_are_pauses() -> None:
    clip = held([0, 0, 0, 0, 0, 1, 2, 2])
    assert values(fill(clip)) == [0, 0, 0, 0, 0, 1, 2, 2]
    assert values(fill(clip, max_repeats=4)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 2, 2])


def test_cuts_are_never_crossed() -> None:
    pictures = [scene(100, 2)[n] for n in (0, 0, 1, 1)] + [scene(101, 2)[n] for n in (0, 0, 1, 1)]
    clip = clip_of(pictures, "YUV420P8")
    out = RIFE(clip, 1, duplicates="fill")
    assert [n for n in range(8) if equal(planes_of(out, n), planes_of(clip, n))] == [0, 2, 3, 4, 6, 7]
    assert marks(out) == {NEXT: [3], PREV: [4]}
    assert marks(RIFE(clip, 2, duplicates="fill")) == {NEXT: [6], PREV: [7]}


@pytest.mark.usefixtures("linear")
def test_variable_durations_stay() -> None:
    seconds = [Fraction(n, 100) for n in (3, 4, 5, 3, 4, 5)]
    out = fill(with_props(held([0, 0, 1, 1, 2, 3]), durations_of(seconds)), 2)
    assert [duration_of(out, n) for n in range(12)] == [half for each in seconds for half in (each / 2, each / 2)]


@pytest.mark.usefixtures("linear")
def test_a_clip_without_end() -> None:
    clip = without_rate(counting(2**27))
    doubled = clip.std.SelectEvery(2, [0, 0, 1, 1])[: 2**27]
    out = fill(doubled, 2)
    assert [value_of(out, n) for n in (0, 1, 2, 3, 10**6 + 1)] == [0, 0.25, 0.5, 0.75, pytest.approx(250000.25)]


# --- what counts as a repeat ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prop", ["_Duplicate", "VDecimateDrop", "mine"])
@pytest.mark.usefixtures("linear")
def test_props_decide(prop: str) -> None:
    moving = with_props(counting(6), lambda n: {prop: int(n == 3)})
    assert values(fill(moving, duplicate_prop="mine")) == pytest.approx([0, 1, 2, 3, 4, 5])  # halfway between 2 and 4
    denied = with_props(held(TWOS), lambda n: {prop: 0})  # noqa: ARG005
    assert values(fill(denied, duplicate_prop="mine")) == TWOS


@pytest.mark.parametrize("fmt", ["YUV420P8", "GRAY16"])
@pytest.mark.usefixtures("linear")
def test_the_metric_of_vdecimate_decides(fmt: str) -> None:
    """VDecimate would drop one frame of five; of a film on twos, its metric tells every repeat. A mark goes first."""
    distinct = clip_of([panned(n, 64, 64, step_px=4) for n in range(6)], fmt)
    on_twos = held(TWOS, distinct).vivtc.VDecimate(dryrun=1)
    dropped = [props_of(on_twos, n)["VDecimateDrop"] for n in range(12)]
    assert sum(dropped) < 6
    out = fill(on_twos)
    same = [n for n in range(12) if equal(planes_of(out, n), planes_of(on_twos, n))]
    assert same == [0, 2, 4, 6, 8, 10, 11]
    denied = fill(with_props(on_twos, lambda n: {"_Duplicate": 0}))  # noqa: ARG005
    assert all(equal(planes_of(denied, n), planes_of(on_twos, n)) for n in range(12))


@pytest.mark.parametrize("fmt", ["YUV420P8", "GRAY16", "RGB24", "RGBS", "YUV444P10"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.usefixtures("linear")
def test_noise_is_a_repeat_and_a_small_motion_is_not(fmt: str, full_range: bool) -> None:
    """In a still picture a mouth of 12 pixels opens; later, only noise changes."""
    random_state = np.random.default_rng(1)
    base = texture(96, 64, seed=3)
    pictures = []
    for n in range(8):
        picture = base.copy()
        if n >= 4:
            picture[30:36, 40:52] = 0.15
        pictures.append(np.clip(picture + random_state.normal(0, 0.6 / 255, picture.shape), 0, 1).astype(np.float32))
    clip = clip_of(pictures, fmt, full_range=None if fmt.startswith("RGB") else full_range)
    out = fill(clip, max_repeats=5)
    same = [equal(planes_of(out, n), planes_of(clip, n)) for n in range(8)]
    assert same == [True, False, False, False, True, True, True, True]


def test_noise_may_be_larger_beside_motion_but_not_without_bound() -> None:
    assert is_repeat(0.0)
    assert is_repeat(1.5, 1.4, 1.6)
    assert not is_repeat(5.0, 4.0, 6.0)
    assert is_repeat(8.0, 120.0, 7.0)
    assert not is_repeat(30.0, 255.0)
    assert not is_repeat(None, 100.0)


# --- equal to ordinary interpolation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_filled_frames_are_those_of_ordinary_interpolation(count: int) -> None:
    """On twos the 2x of the distinct frames, on threes their 3x; bit for bit, so to any number of decibels."""
    distinct = clip_of([panned(n, 64, 64, step_px=4) for n in range(4)], "YUV420P8")
    out = fill(held([n // count for n in range(4 * count)], distinct))
    ordinary = RIFE(distinct, count, sc_threshold=1.0)
    for n in range(3 * count + 1):
        assert equal(planes_of(out, n), planes_of(ordinary, n)), f"frame {n}"


def test_even_frames_come_close_to_the_true_motion() -> None:
    """24 in 30 of a pan at 30 frames a second: the mean error is that of interpolation, not of stutter."""
    wide = texture(640, 64, finest_px=16)  # in quarter pixels

    def at(quarters: int) -> Any:
        return np.roll(wide, -quarters, axis=1)[:, ::4][:, :96].astype(np.float32)

    source = clip_of([at(5 * n) for n in range(16)], "GRAY8", fps=(30, 1))
    clip = held(IN_30[:20], source)
    truth = clip_of([at(4 * n) for n in range(20)], "GRAY8")
    out = RIFE(clip, 1, sc_threshold=1.0, duplicates="even")
    middle = range(2, 16)
    filled = np.mean([psnr_db(planes_of(out, n)[0], planes_of(truth, n)[0], 255) for n in middle])
    stutter = np.mean([psnr_db(planes_of(clip, n)[0], planes_of(truth, n)[0], 255) for n in middle])
    assert filled > stutter + 3


# --- access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fill", "even"])
@pytest.mark.parametrize("multi", [1, 2, "5/2"])
def test_random_access_equals_a_linear_run(mode: Any, multi: Any) -> None:
    source = clip_of([panned(n, 32, 32) for n in range(20)], "GRAY8")
    pattern = [0, *IN_30[:15], 12, 12, 12, 13]

    def made() -> vs.VideoNode:
        return RIFE(held(pattern, source), multi, sc_threshold=1.0, duplicates=mode)

    out = made()
    linear = [planes_of(out, n) for n in range(out.num_frames)]
    order = list(range(len(linear)))
    random.Random(1).shuffle(order)
    again = made()
    for n in order:
        assert equal(planes_of(again, n), linear[n]), f"frame {n}"


@pytest.mark.parametrize(("mode", "ahead", "behind"), [("fill", 9, 9), ("even", 17, 17)])
@pytest.mark.usefixtures("linear")
def test_how_far_the_filter_looks(mode: Any, ahead: int, behind: int) -> None:
    """As the documentation says: 2 * max_repeats + 3, or max_repeats + 14."""
    requested: list[int] = []
    lock = threading.Lock()
    source = counting(100)

    def watch(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        with lock:
            requested.append(n)
        return f

    out = RIFE(source.std.ModifyFrame([source], watch), 1, sc_threshold=1.0, duplicates=mode)
    out.get_frame(50).close()
    assert 50 - behind <= min(requested)
    assert max(requested) <= 50 + ahead


def failing(clip: vs.VideoNode, broken: int) -> vs.VideoNode:
    def read(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == broken:
            raise RuntimeError("the disk is gone")
        return f

    return clip.std.ModifyFrame([clip], read)


@pytest.mark.parametrize("sc_threshold", [0.15, 1.0])
@pytest.mark.usefixtures("linear")
def test_an_unreadable_frame_costs_only_what_is_made_from_it(sc_threshold: float) -> None:
    clip = held([0, 0, 1, 1, 2, 3, 4, 5, 5, 6])
    out = fill(failing(clip, 5), 2, sc_threshold=sc_threshold)
    lost = set()
    for n in range(out.num_frames):
        try:
            out.get_frame(n).close()
        except vs.Error:
            lost.add(n)
    assert lost <= {9, 10, 11}
    assert 10 in lost


# --- damaged frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sc_threshold", [0.15, 1.0])
@pytest.mark.usefixtures("linear")
def test_replaced_frames_are_never_read(sc_threshold: float) -> None:
    clip = failing(failing(counting(8), 3), 5)
    for replace in ([5, 3], "3,5"):
        out = RIFE(clip, 1, sc_threshold=sc_threshold, replace=replace)
        assert values(out) == pytest.approx(list(range(8)), abs=1e-5)


@pytest.mark.parametrize(
    ("replace", "expected"),
    [
        ("2-5", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("0", [1, 1, 2, 3, 4, 5, 6, 7]),
        ("0-1,7", [2, 2, 2, 3, 4, 5, 6, 6]),
        ([6], [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
@pytest.mark.usefixtures("linear")
def test_replaced_frames(replace: Any, expected: list[int]) -> None:
    damaged = with_props(counting(8), lambda n: {"source": None})  # noqa: ARG005
    out = RIFE(damaged, 1, sc_threshold=1.0, replace=replace)
    assert values(out) == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("linear")
def test_the_prop_of_damage() -> None:
    clip = with_props(held([0, 1, 9, 9, 4, 5]), lambda n: {"_Damaged": int(n in (2, 3))})
    assert values(RIFE(clip, 1, sc_threshold=1.0, replace=())) == pytest.approx([0, 1, 2, 3, 4, 5], abs=1e-5)
    assert values(RIFE(clip, 2, sc_threshold=1.0, replace=()))[:10] == pytest.approx(
        [n / 2 for n in range(10)], abs=1e-5
    )
    assert values(RIFE(clip, 2, sc_threshold=1.0))[4] == 9


def test_a_damaged_frame_at_a_cut_holds_its_scene() -> None:
    pictures = [*scene(100, 3), *scene(101, 3)]
    clip = clip_of(pictures, "YUV420P8")
    out = RIFE(clip, 1, replace=[2])
    assert equal(planes_of(out, 2), planes_of(clip, 1))
    assert marks(out) == {NEXT: [2], PREV: [3]}


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"duplicates": "drop"}, "duplicates must be 'keep', 'fill' or 'even', got 'drop'"),
        ({"duplicates": True}, "duplicates must be 'keep', 'fill' or 'even', got True"),
        ({"duplicates": "fill", "max_repeats": 0}, "max_repeats must be 1 to 60, got 0"),
        ({"duplicates": "fill", "max_repeats": 2.5}, "max_repeats must be 1 to 60, got 2.5"),
        ({"duplicate_prop": 3}, "duplicate_prop must be the name of a frame prop, got 3"),
        ({"replace": [8]}, "replace must be frames from 0 to 7, got 8"),
        ({"replace": [-1]}, "replace must be frames from 0 to 7, got -1"),
        ({"replace": "3-9"}, "replace must be frames from 0 to 7, got 9"),
        ({"replace": "5-3"}, "replace must have ranges that increase, got '5-3'"),
        ({"replace": "x"}, "replace must list frames and ranges such as 120,455-456, got 'x'"),
        ({"replace": 3}, "replace must be frame numbers, got 3"),
        ({"replace": range(8)}, "replace must leave a frame, got all 8"),
    ],
    ids=str,
)
def test_bad_input(options: dict[str, Any], text: str) -> None:
    with pytest.raises(vs.Error, match=f"^RIFE: {re.escape(text)}"):
        RIFE(counting(8), 1, **options)


def test_keep_changes_nothing() -> None:
    clip = pan(3)
    assert RIFE(clip, 1, duplicates="keep") is clip
