"""Formats, pixels and props of VapourSynth frames."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import vapoursynth as vs

from vsrife.engine.formats import PictureFormat
from vsrife.errors import ClipError

PREV, NEXT = "_SceneChangePrev", "_SceneChangeNext"
DURATION = ("_DurationNum", "_DurationDen")


def picture_format(clip: vs.VideoNode) -> PictureFormat:
    """The clip's format for the engine.

    Raises:
        ClipError: variable format or size, or samples that cannot be handled.
    """
    if not isinstance(clip, vs.VideoNode):
        raise ClipError(f"clip must be a video node, got {type(clip).__name__}; pass what a source filter returned")
    fmt = clip.format
    if fmt is None or fmt.color_family == vs.UNDEFINED or not clip.width or not clip.height:
        size = f"{clip.width}x{clip.height}" if clip.width and clip.height else "a variable size"
        name = "a variable format" if fmt is None or fmt.color_family == vs.UNDEFINED else fmt.name
        raise ClipError(
            f"clip must have one format and size, got {name} and {size}; convert it with resize.Bicubic(format=..., "
            "width=..., height=...)"
        )
    floating = fmt.sample_type == vs.FLOAT
    if fmt.bits_per_sample not in ((16, 32) if floating else range(8, 17)):
        raise ClipError(f"clip must have 8 to 16 bit or float samples, got {fmt.name}; convert it with resize.Point")
    families: dict[Any, Literal["YUV", "GRAY", "RGB"]] = {vs.YUV: "YUV", vs.GRAY: "GRAY", vs.RGB: "RGB"}
    return PictureFormat(
        family=families[fmt.color_family],
        bits=fmt.bits_per_sample,
        floating=floating,
        width=clip.width,
        height=clip.height,
        subsampling_w=fmt.subsampling_w,
        subsampling_h=fmt.subsampling_h,
    )


def shifted(clip: vs.VideoNode, by: int) -> vs.VideoNode:
    """Frame n is frame n + by of the clip, the first or last one beyond its ends; as long as the clip."""
    if by < 0:
        return clip.std.DuplicateFrames([0] * -by)[: clip.num_frames]
    return clip.std.DuplicateFrames([clip.num_frames - 1] * by)[by:]


def set_marks(frame: vs.VideoFrame, marks: Mapping[str, bool | None]) -> None:
    """Write scene change props of a frame; None deletes one."""
    for key, value in marks.items():
        if value is not None:
            frame.props[key] = int(value)
        elif key in frame.props:
            del frame.props[key]


def duration(frame: vs.VideoFrame) -> Fraction | None:
    """Seconds that a frame lasts, where its props tell."""
    numerator, denominator = (frame.props.get(key) for key in DURATION)
    return Fraction(numerator, denominator) if numerator is not None and denominator else None


def set_duration(frame: vs.VideoFrame, seconds: Fraction) -> None:
    for key, value in zip(DURATION, seconds.as_integer_ratio(), strict=True):
        frame.props[key] = value
