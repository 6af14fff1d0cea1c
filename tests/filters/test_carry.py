"""Clips that are carried along: moved by the flow of another one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import vapoursynth as vs

from tests.clips import (
    clip_of,
    core,
    counted_runs,
    duration_of,
    durations_of,
    equal,
    pan,
    panned,
    planes_of,
    props_of,
    psnr_db,
    spliced,
    with_props,
)
from vsrife import RIFE


def test_the_clip_itself_does_not_change_and_the_network_runs_once() -> None:
    clip = pan(4)
    alone = [planes_of(node, n) for node in (RIFE(clip, device="cpu"),) for n in range(node.num_frames)]
    with counted_runs() as runs:
        output, alpha = RIFE(clip, device="cpu", carry=[core.std.ShufflePlanes(clip, 0, vs.GRAY)])
        luma = []
        for n in range(output.num_frames):
            assert equal(planes_of(output, n), alone[n]), n
            assert not any(key.startswith("_vsrife") for key in props_of(output, n))
            luma.append(planes_of(alpha, n))
    assert runs == [0.5] * 3  # and not once more for the carried clip
    # Carried luma is moved as the clip's own luma is.
    assert all(equal(planes, alone[n][:1]) for n, planes in enumerate(luma))


@pytest.mark.parametrize("fmt", ["GRAY8", "GRAY16", "GRAYS", "YUV420P10", "RGB24", "RGBS"])
@pytest.mark.parametrize("size", [(64, 64), (32, 32), (128, 96)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_any_format_and_size_follows_the_motion(fmt: str, size: tuple[int, int]) -> None:
    """The carried picture shows the same as the clip, so its new frame must look like the clip's, resized."""
    frames = [panned(n, 64, 64) for n in range(2)]
    clip = clip_of(frames, "RGBS")
    extra = clip_of(frames, "RGBS").resize.Bilinear(*size)
    if fmt != "RGBS":
        matrix = {} if fmt == "RGB24" else {"matrix_s": "709"}
        extra = extra.resize.Bilinear(format=getattr(vs, fmt), **matrix)
    output, carried = RIFE(clip, device="cpu", carry=[extra], sc_threshold=1.0)
    assert (carried.width, carried.height, carried.format.name) == (*size, extra.format.name)

    def comparable(node: vs.VideoNode) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        gray = node.resize.Bilinear(
            64, 64, format=vs.GRAYS, **({"matrix_s": "709"} if node.format.color_family == vs.RGB else {})
        )
        return planes_of(gray, 1)[0][8:-8, 8:-8]

    shown = psnr_db(comparable(carried), comparable(output), 1.0)
    unmoved = psnr_db(comparable(carried), comparable(core.std.Interleave([clip, clip])), 1.0)
    assert shown > 38, f"{shown:.1f} dB, {unmoved:.1f} dB against the left frame"
    assert shown > unmoved + 3


def test_at_a_cut_the_nearer_frame_is_carried() -> None:
    clip = spliced(3, 3)
    depth = core.std.ShufflePlanes(clip, 0, vs.GRAY)
    _, carried = RIFE(clip, 3, device="cpu", carry=[depth])
    assert equal(planes_of(carried, 7), planes_of(depth, 2))
    assert equal(planes_of(carried, 8), planes_of(depth, 3))


def test_where_the_picture_stands_still_the_carried_one_fades() -> None:
    still = core.std.BlankClip(width=64, height=64, format=vs.YUV420P8, color=[90, 100, 110], length=2)
    alpha = core.std.BlankClip(still, format=vs.GRAY8, color=[0], length=1)
    alpha = alpha + alpha.std.BlankClip(color=[200])
    output, carried = RIFE(still, 4, device="cpu", carry=[alpha], sc_threshold=1.0)
    assert [planes_of(carried, n)[0][3, 3] for n in range(5)] == [0, 50, 100, 150, 200]
    assert [planes_of(output, n)[0][3, 3] for n in range(5)] == [90] * 5


def test_times_are_those_of_the_clip() -> None:
    durations = [Fraction(1, 24), Fraction(1, 12), Fraction(1, 30), Fraction(1, 24)]
    clip = with_props(pan(4), durations_of(durations))
    depth = core.std.ShufflePlanes(pan(4), 0, vs.GRAY)  # whose own frames do not know
    output, carried = RIFE(clip, "5/2", device="cpu", carry=[depth])
    assert carried.num_frames == output.num_frames
    assert carried.fps == output.fps
    for n in range(output.num_frames):
        assert duration_of(carried, n) == duration_of(output, n), n


def test_multi_1_gives_the_clips_themselves() -> None:
    clip = pan(3)
    depth = core.std.ShufflePlanes(clip, 0, vs.GRAY)
    assert RIFE(clip, 1, carry=[depth]) == [clip, depth]
    assert RIFE(clip, 1, carry=[]) == [clip]


def test_another_length_or_format_is_refused() -> None:
    clip = pan(3)
    with pytest.raises(vs.Error, match=r"RIFE: carry\[0\] must have the clip's 3 frames and rate of 24, got 2 and 24"):
        RIFE(clip, carry=[pan(2)])
    with pytest.raises(vs.Error, match=r"RIFE: carry\[1\]: clip must have 8 to 16 bit or float samples, got Gray32"):
        RIFE(clip, carry=[clip, core.std.BlankClip(clip, format=vs.GRAY32)])
