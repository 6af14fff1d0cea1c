"""What stands still over a moving picture stays: ticker, logo, display, subtitle. Slow motion is not frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tests.clips import clip_of, planes_of, texture
from vsrife import RIFE
from vsrife.engine.formats import PictureFormat
from vsrife.engine.overlays import STILL, mark_overlays
from vsrife.ops.reference import Reference

WIDTH, HEIGHT = 256, 144


def drawn() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours and opacity of everything that people put over a picture."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    pen, large, small = ImageDraw.Draw(image), ImageFont.load_default(18), ImageFont.load_default(13)
    pen.rectangle((0, HEIGHT - 20, WIDTH, HEIGHT), fill=(20, 30, 90, 255))
    pen.text((6, HEIGHT - 18), "LATEST: news go by and by, on and on", font=small, fill="white")
    pen.text((196, 6), "TV 1", font=large, fill=(240, 240, 240), stroke_width=2, stroke_fill=(0, 0, 60))
    pen.rectangle((8, 8, 120, 30), fill=(10, 10, 10, 255))
    pen.text((14, 10), "AMMO 30 HP 99", font=small, fill=(0, 255, 0))
    pen.text((50, 86), "What do you mean?", font=large, fill="white", stroke_width=2, stroke_fill="black")
    pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    return pixels[..., :3], pixels[..., 3:]


def over_a_pan(step_px: int) -> tuple[vs.VideoNode, NDArray[np.bool_]]:
    """Two frames, and where the overlay hides the picture."""
    colours, opacity = drawn()
    wide = texture(WIDTH + 64, HEIGHT, seed=5)
    pictures = [wide[:, n * step_px : n * step_px + WIDTH] * (1 - opacity) + colours * opacity for n in range(2)]
    return clip_of(pictures, "YUV420P8"), opacity[..., 0] > 0.999


def error(made: NDArray[Any], expected: NDArray[Any], where: NDArray[np.bool_]) -> int:
    return int(np.abs(made.astype(int) - expected.astype(int))[where].max())


@pytest.mark.parametrize("step_px", [1, 6, 16])
@pytest.mark.parametrize("model", ["base", "lite", "fast"])
def test_overlays_stay_within_a_code(model: str, step_px: int) -> None:
    clip, opaque = over_a_pan(step_px)
    made, before = planes_of(RIFE(clip, 2, sc_threshold=1.0, model=model), 1), planes_of(clip, 0)
    assert error(made[0], before[0], opaque) <= 1
    covered = opaque.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).all(axis=(1, 3))
    inner = covered & np.roll(covered, 1, 1) & np.roll(covered, -1, 1)  # chroma is the mean of more than two pixels
    assert max(error(made[p], before[p], inner & (before[p] == planes_of(clip, 1)[p])) for p in (1, 2)) <= 1
    assert error(made[0], before[0], ~opaque) > 2  # the picture moves


def radii_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """The static radius of a plane, without and with overlays."""
    planes = [torch.from_numpy(np.ascontiguousarray(plane))[None, None] for plane in (a, b)]
    radius = Reference().static_radius(*planes)
    fmt = PictureFormat("GRAY", 8, False, a.shape[1], a.shape[0], 0, 0)
    return radius, mark_overlays((planes[0],), (radius,), fmt)[0]


def grey(shift_px: float = 0.0) -> NDArray[np.uint8]:
    """Fine detail, moved to the left by any distance."""
    wide = texture(WIDTH + 8, HEIGHT, seed=7, finest_px=2)[..., 0]
    whole, part = int(shift_px), shift_px % 1
    moved = (1 - part) * wide[:, whole : whole + WIDTH] + part * wide[:, whole + 1 : whole + 1 + WIDTH]
    return (255 * moved).round().astype(np.uint8)


@pytest.mark.parametrize("shift_px", [0.1, 0.5, 1, 3.5])
def test_slow_motion_is_not_frozen(shift_px: float) -> None:
    _, marked = radii_of(grey(), grey(shift_px))
    assert (marked == STILL).float().mean() < 1e-3


def test_what_a_fixed_camera_shows_is_no_overlay() -> None:
    """A ball that flies before a detailed wall hides it halfway, where both frames are equal."""
    frames = [grey(), grey()]
    for frame, left in zip(frames, (40, 100), strict=True):
        frame[60:80, left : left + 20] = 250
    before, after = radii_of(frames[0], frames[1])
    assert torch.equal(before, after)
