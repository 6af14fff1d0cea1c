"""What stands still over a moving picture stays: ticker, logo, display, subtitle. Slow motion is not frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tests.clips import clip_of, planes_of, psnr_db, texture
from vsrife import RIFE
from vsrife.engine.formats import PictureFormat
from vsrife.engine.overlays import STILL, mark_overlays
from vsrife.ops.reference import reference

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
    pen.text((40, 46), "No outline, thin strokes", font=small, fill=(250, 240, 90))
    pen.line((180, 60, 180, 80), fill=(0, 255, 0))
    pen.line((170, 70, 190, 70), fill=(0, 255, 0))
    pen.rectangle((200, 56, 246, 78), outline="white")
    pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    return pixels[..., :3], pixels[..., 3:]


def over_a_pan(step_px: float) -> tuple[vs.VideoNode, NDArray[np.bool_]]:
    """Two frames, and where the overlay hides the picture."""
    colours, opacity = drawn()
    wide = texture(WIDTH + 64, HEIGHT, seed=5)
    pictures = [shifted(wide, n * step_px) * (1 - opacity) + colours * opacity for n in range(2)]
    return clip_of(pictures, "YUV420P8"), opacity[..., 0] > 0.999


def shifted(wide: NDArray[np.float32], by_px: float) -> NDArray[np.float32]:
    """The part of a picture that a pan by any distance shows."""
    whole, part = int(by_px), np.float32(by_px % 1)
    return (1 - part) * wide[:, whole : whole + WIDTH] + part * wide[:, whole + 1 : whole + 1 + WIDTH]


def error(made: NDArray[Any], expected: NDArray[Any], where: NDArray[np.bool_]) -> int:
    return int(np.abs(made.astype(int) - expected.astype(int))[where].max(initial=0))


@pytest.mark.parametrize("step_px", [0.25, 1, 6, 16])
@pytest.mark.parametrize("model", ["base", "lite", "fast"])
def test_overlays_stay_within_a_code(model: str, step_px: float) -> None:
    clip, opaque = over_a_pan(step_px)
    made, before = planes_of(RIFE(clip, 2, sc_threshold=1.0, model=model), 1), planes_of(clip, 0)
    assert error(made[0], before[0], opaque) <= 1
    covered = opaque.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).all(axis=(1, 3))
    inner = covered & np.roll(covered, 1, 1) & np.roll(covered, -1, 1)  # chroma is the mean of more than two pixels
    assert max(error(made[p], before[p], inner & (before[p] == planes_of(clip, 1)[p])) for p in (1, 2)) <= 1
    assert step_px < 1 or error(made[0], before[0], ~opaque) > 2  # the picture moves


def radii_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """The static radius of a plane, without and with overlays."""
    plane0, plane1 = (torch.from_numpy(np.ascontiguousarray(plane))[None, None] for plane in (a, b))
    radius = reference.static_radius(plane0, plane1)
    fmt = PictureFormat("GRAY", 8, False, a.shape[1], a.shape[0], 0, 0)
    return radius, mark_overlays((plane0,), (plane1,), (radius,), fmt, reference)[0]


def grey(shift_px: float = 0.0, finest_px: int = 2, noise: float = 0.0, seed: int = 0) -> NDArray[np.uint8]:
    """A texture of strong contrast, moved to the left by any distance; noise in codes."""
    wide = texture(WIDTH + 8, HEIGHT, seed=7, finest_px=finest_px)
    picture = 255 * np.clip(0.5 + 3 * (shifted(wide, shift_px)[..., 0] - 0.5), 0, 1)
    noisy: NDArray[np.float64] = picture + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 1])
@pytest.mark.parametrize("finest_px", [2, 4, 16])
@pytest.mark.parametrize("shift_px", [0.1, 0.25, 0.5, 1, 3.5])
def test_motion_is_not_frozen(shift_px: float, finest_px: int, noise: float) -> None:
    """What is marked is what would not change in between by more than rounding and noise."""
    first, last = grey(0, finest_px, noise, seed=1), grey(shift_px, finest_px, noise, seed=2)
    _, marked = radii_of(first, last)
    frozen = (marked == STILL)[0, 0].numpy()
    assert error(first, grey(shift_px / 2, finest_px), frozen) <= 1 + 3 * noise
    assert shift_px < 1 or frozen.mean() < 0.01


def test_a_slow_pan_moves() -> None:
    """By an eighth of a pixel up to the middle, which is much closer to it than either frame."""
    greys = [grey(shift_px).astype(np.float32) / np.float32(255) for shift_px in (0, 0.125, 0.25)]
    pictures = [np.repeat(picture[..., None], 3, axis=2) for picture in greys]
    clip = clip_of(pictures, "GRAY8", full_range=True)
    first, middle, last = (planes_of(clip, n)[0] for n in range(3))
    made = planes_of(RIFE(clip[0] + clip[2], 2, sc_threshold=1.0, model="lite"), 1)[0]
    assert psnr_db(made, middle, 255) > 6 + max(psnr_db(each, middle, 255) for each in (first, last))


def test_what_a_fixed_camera_shows_is_no_overlay() -> None:
    """A ball that flies before a detailed wall hides it halfway, where both frames are equal."""
    frames = [grey(), grey()]
    for frame, left in zip(frames, (40, 100), strict=True):
        frame[60:80, left : left + 20] = 250
    before, after = radii_of(frames[0], frames[1])
    assert torch.equal(before, after)
