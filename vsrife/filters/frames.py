"""VapourSynth's formats, frames and props, to and from the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
import vapoursynth as vs
from torch import Tensor

from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.errors import ClipError, RifeError

PREV, NEXT = "_SceneChangePrev", "_SceneChangeNext"
DURATION = ("_DurationNum", "_DurationDen")
ABSOLUTE_TIME = "_AbsoluteTime"
LARGEST_INT32 = 2**31 - 1


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


# --- pixels -----------------------------------------------------------------------------------------------------------


def picture_of(key: int, frame: vs.VideoFrame, fmt: PictureFormat, carried: tuple[InputFrame, ...] = ()) -> InputFrame:
    """A frame for the engine: views of its planes, not copies.

    Raises:
        ClipError: a prop of its colours is no integer.
    """
    planes = [np.asarray(frame[p]) for p in range(fmt.num_planes)]
    try:
        colorimetry = Colorimetry.from_props(frame.props, fmt)
    except (TypeError, ValueError) as error:
        raise ClipError(
            f"_Matrix, _Range and _ChromaLocation must be integers ({error}); remove the wrong one with "
            "std.RemoveFrameProps"
        ) from error
    return InputFrame(key, planes, colorimetry, carried)


def write_planes(frames: Iterable[vs.VideoFrame], planes: Sequence[Tensor]) -> None:
    """Copy planes into those of writable frames, in order."""
    targets = (frame[p] for frame in frames for p in range(frame.format.num_planes))
    for target, plane in zip(targets, planes, strict=True):
        torch.from_numpy(np.asarray(target)).copy_(plane)


# --- time -------------------------------------------------------------------------------------------------------------


def shifted(clip: vs.VideoNode, by: int) -> vs.VideoNode:
    """The clip moved in time: frame n is frame n + `by`, the first or last one beyond the ends. Same length."""
    last = clip.num_frames - 1
    if by < 0:
        return clip.std.DuplicateFrames([0] * -by)[: clip.num_frames]
    return clip.std.DuplicateFrames([last] * by)[by:] if by else clip


def props_only(clip: vs.VideoNode) -> vs.VideoNode:
    """The clip's frame props on one grey pixel."""
    blank = clip.std.BlankClip(width=1, height=1, format=vs.GRAY8, keep=True)
    return blank.std.CopyFrameProps(clip)


# --- props ------------------------------------------------------------------------------------------------------------


def integer(props: Mapping[str, Any], key: str) -> int | None:
    """An integer prop; None where it is absent.

    Raises:
        ClipError: it is something else.
    """
    value: int | None = _typed(props, key, int, "an integer")
    return value


def absolute_time(frame: vs.VideoFrame) -> float | None:
    """`_AbsoluteTime` in seconds; None where it is absent.

    Raises:
        ClipError: it is no number.
    """
    value = _typed(frame.props, ABSOLUTE_TIME, (int, float), "a number")
    return None if value is None else float(value)


def _typed(props: Mapping[str, Any], key: str, kind: type | tuple[type, ...], name: str) -> Any:
    value = props.get(key)
    if value is not None and not isinstance(value, kind):
        raise ClipError(f"frame prop {key} must be {name}, got {value!r}; remove it with std.RemoveFrameProps")
    return value


def duration(frame: vs.VideoFrame) -> Fraction | None:
    """Seconds that a frame lasts; None where its props do not say.

    Raises:
        ClipError: a part of it is no integer.
    """
    numerator, denominator = (integer(frame.props, key) for key in DURATION)
    return Fraction(numerator, denominator) if numerator is not None and denominator else None


def rounded(seconds: Fraction) -> Fraction:
    """The nearest duration of which both parts fit into 32 bits."""
    limit = LARGEST_INT32
    if seconds > 1:
        limit = int(limit / seconds)
    return seconds.limit_denominator(max(1, limit))


def set_duration(frame: vs.VideoFrame, seconds: Fraction) -> None:
    for key, value in zip(DURATION, seconds.as_integer_ratio(), strict=True):
        frame.props[key] = value


def set_marks(frame: vs.VideoFrame, marks: Mapping[str, bool | None]) -> None:
    """Set scene change props of a frame; None deletes one."""
    for key, value in marks.items():
        if value is not None:
            frame.props[key] = int(value)
        elif key in frame.props:
            del frame.props[key]


@contextmanager
def named_errors(where: str) -> Iterator[None]:
    """Turn a `RifeError` into a `vs.Error` that begins with the call and the frame."""
    try:
        yield
    except RifeError as error:
        raise vs.Error(f"{where}: {error}") from None
