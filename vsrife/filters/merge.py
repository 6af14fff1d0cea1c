"""`merge`: two clips interpolated at a time for every pixel."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch
import vapoursynth as vs
from torch import Tensor

from vsrife.engine.formats import PictureFormat
from vsrife.engine.keywords import NetworkKeywords
from vsrife.errors import ClipError, RifeError
from vsrife.filters.computed import Frames, computed, engine_for
from vsrife.filters.frames import picture_format, picture_of
from vsrife.networks.cancellation import Cancellation


def merge(
    clip_a: vs.VideoNode, clip_b: vs.VideoNode, mask: vs.VideoNode, **options: Unpack[NetworkKeywords]
) -> vs.VideoNode:
    """Interpolate between two clips at a time given for every pixel.

    Frame n shows frame n of `clip_a` where the mask is 0 and frame n of `clip_b` where it is full, unchanged, and in
    between the interpolation between them. A ramp across the overlap of two views stitches them.

    Args:
        clip_a: any format that `vsrife.RIFE` takes.
        clip_b: same format, size and length.
        mask: GRAY of 8 to 16 bit or float samples, full range, same size and length: 0 is the time of `clip_a`, the
            largest value (1.0 for float) that of `clip_b`.
        options: `scale`, `model`, `ensemble`, `tta`, `tta_temporal`, `device`, `precision`, with the defaults of
            `vsrife.RIFE`.

    Returns:
        A clip like `clip_a`, with its props.

    Raises:
        vs.Error: an argument is wrong, with what came and what to do.
    """
    try:
        fmt = picture_format(clip_a)
        times = _check(clip_a, clip_b, mask, fmt)
        engine = engine_for(fmt, **options)
    except RifeError as error:
        raise vs.Error(f"merge: {error}") from error

    def compute(n: int, frames: Frames, cancellation: Cancellation) -> tuple[Tensor, ...]:
        time = _time(frames[2], times)
        low, high = time.min().item(), time.max().item()
        a, b = (picture_of(2 * n + i, frame, fmt) for i, frame in enumerate(frames[:2]))
        if high == 0:
            return ()
        if low == 1:
            return tuple(torch.from_numpy(np.array(plane)) for plane in b.planes)
        made = engine.interpolate(a, b, time if low < high else low, cancellation)
        return () if made is None else made.planes()

    return computed("merge", (clip_a, clip_b, mask), compute)


def _time(frame: vs.VideoFrame, fmt: PictureFormat) -> Tensor:
    """(H, W) float32, 0..1."""
    samples = np.asarray(frame[0]).astype(np.float32)
    time = samples.clip(0, 1) if fmt.floating else samples / np.float32(fmt.peak)
    return torch.from_numpy(np.nan_to_num(time))


def _check(clip_a: vs.VideoNode, clip_b: vs.VideoNode, mask: vs.VideoNode, fmt: PictureFormat) -> PictureFormat:
    """The mask's format.

    Raises:
        ClipError: the three clips do not fit together.
    """
    other, times = (_named_format(name, clip) for name, clip in (("clip_b", clip_b), ("mask", mask)))
    if other != fmt:
        raise ClipError(
            f"clip_b must be like clip_a, {_text(clip_a)}, got {_text(clip_b)}; convert it with resize.Bicubic"
        )
    if times.family != "GRAY" or (times.width, times.height) != (fmt.width, fmt.height):
        raise ClipError(f"mask must be GRAY of {fmt.width}x{fmt.height}, got {_text(mask)}; convert it")
    for name, clip in (("clip_b", clip_b), ("mask", mask)):
        if clip.num_frames != clip_a.num_frames:
            raise ClipError(
                f"{name} must have the {clip_a.num_frames} frames of clip_a, got {clip.num_frames}; trim or loop it"
            )
    return times


def _named_format(name: str, clip: vs.VideoNode) -> PictureFormat:
    try:
        return picture_format(clip)
    except ClipError as error:
        raise ClipError(f"{name}: {error}") from error


def _text(clip: vs.VideoNode) -> str:
    return f"{clip.format.name} {clip.width}x{clip.height}"
