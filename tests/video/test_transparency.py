"""Interpolation of clips with alpha: hidden colours stay hidden, source frames stay what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from numpy.typing import NDArray

from vsrife.video.transparency import interpolate

WIDTH, HEIGHT = 128, 96
HIDDEN, RED, BLUE = 255, 200, 30


def clip_of(fmt: int, frames: Sequence[Sequence[NDArray[Any]]]) -> vs.VideoNode:
    blank = vs.core.std.BlankClip(
        width=WIDTH, height=HEIGHT, format=fmt, length=len(frames), fpsnum=24, fpsden=1, keep=True
    )

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane, samples in enumerate(frames[n]):
            np.asarray(frame[plane])[:] = samples
        return frame

    return blank.std.ModifyFrame([blank], fill)


def disc() -> tuple[vs.VideoNode, vs.VideoNode]:
    """A striped red disc that moves by 8 pixels; white where nothing is seen."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colours, alphas = [], []
    for n in range(2):
        alpha = np.clip(20.5 - np.hypot(x - 40 - 8 * n, y - 48), 0, 1)
        stripes = 60 + 40 * np.sin((x - 8 * n) / 3)
        colours.append([np.where(alpha > 0, plane, HIDDEN) for plane in (RED, stripes, BLUE)])
        alphas.append([(255 * alpha).round()])
    rgb = clip_of(vs.RGB24, colours).std.SetFrameProps(_Matrix=0, _Range=1)
    return rgb, clip_of(vs.GRAY8, alphas)


def plane_of(clip: vs.VideoNode, n: int, plane: int = 0) -> NDArray[Any]:
    with clip.get_frame(n) as frame:
        return np.array(frame[plane])


def test_hidden_colours_do_not_bleed_into_edges() -> None:
    colours, alpha = interpolate(*disc(), device="cpu", precision="fp32")
    opacity = plane_of(alpha, 1).astype(int)
    seen = opacity > 25
    assert opacity.sum() / 255 == pytest.approx(np.pi * 20**2, rel=0.02)
    assert abs(plane_of(colours, 1, 0)[seen].astype(int) - RED).max() <= 2
    assert abs(plane_of(colours, 1, 2)[seen].astype(int) - BLUE).max() <= 2


@pytest.mark.parametrize("fmt", [vs.RGB24, vs.RGB48, vs.YUV420P8, vs.YUV444P10, vs.YUV422P16, vs.GRAY8, vs.GRAY16],
                         ids=lambda fmt: fmt.name)  # fmt: skip
def test_source_frames_come_back_unchanged(fmt: vs.PresetVideoFormat) -> None:
    rgb, alpha = disc()
    matrix = {} if fmt in (vs.RGB24, vs.RGB48) else {"matrix": 1}
    source = rgb.resize.Bicubic(format=fmt, **matrix)
    colours, opacity = interpolate(source, alpha, device="cpu", precision="fp32")
    assert colours.format.id == fmt
    assert opacity.format.id == vs.GRAY8
    for n in range(2):
        assert np.array_equal(plane_of(opacity, 2 * n), plane_of(alpha, n))
        for plane in range(source.format.num_planes):
            assert np.array_equal(plane_of(colours, 2 * n, plane), plane_of(source, n, plane))
