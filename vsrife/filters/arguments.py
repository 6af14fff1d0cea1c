"""Checks the arguments of a call once and freezes them. The only place that rejects arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from numbers import Rational, Real
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import vapoursynth as vs

from vsrife.engine.color import PictureFormat
from vsrife.engine.devices import parse_devices, parse_precision, parse_scale
from vsrife.engine.engine import NetworkOptions
from vsrife.errors import ClipError, OptionError
from vsrife.timing.schedule import (
    Schedule,
    along_curve,
    by_factor,
    by_positions,
    by_timestamps,
    check_timestamps,
    read_curve,
    read_timecodes,
    source_position,
)

Ratio = int | float | Fraction | str | tuple[int, int]
Timestamps = str | Path | Sequence[float | Fraction]
Times = str | Path | Sequence[float | Fraction] | Sequence[tuple[float | Fraction, float | Fraction]]
TimesUnit = Literal["seconds", "frames"]

_LARGEST_DENOMINATOR = 1001  # of a float that is taken for a rational
_NTSC = Fraction(1000, 1001)


def parse_multi(multi: Ratio) -> Fraction:
    """Output frames per source frame as an exact rational, at least 1.

    Raises:
        OptionError: not a number, below 1, or a float that is no small rational.
    """
    value = _rational("multi", multi)
    if _is_float(multi):
        small = value.limit_denominator(_LARGEST_DENOMINATOR)
        if abs(small - value) > Fraction(1, 10**6):
            raise OptionError(
                f"multi must be exact, got {multi!r}; write it as a fraction like '5/2', or give fps= instead"
            )
        value = small
    if value < 1:
        raise OptionError(f"multi must be at least 1, got {multi!r}; to drop frames use std.SelectEvery")
    return value


def parse_fps(fps: Ratio) -> Fraction:
    """A frame rate as an exact rational. Decimals like 59.94 and 23.976 mean the NTSC rates, 60000/1001
    and 24000/1001.

    Raises:
        OptionError: not a positive number.
    """
    value = _rational("fps", fps)
    if value <= 0:
        raise OptionError(f"fps must be above 0, got {fps!r}; give the output rate, e.g. 60 or '60000/1001'")
    if value.denominator != 1 and (_is_float(fps) or (isinstance(fps, str) and "/" not in fps)):
        ntsc = round(value / _NTSC) * _NTSC
        if abs(ntsc - value) < Fraction(1, 200):
            return ntsc
        return value.limit_denominator(_LARGEST_DENOMINATOR)
    return value


def _is_float(value: object) -> bool:
    """Whether a number is a rounded one; NumPy's scalars count like Python's."""
    return isinstance(value, Real) and not isinstance(value, Rational)


def _rational(name: str, value: Any) -> Fraction:
    try:
        if isinstance(value, bool):
            raise TypeError("bool")
        if isinstance(value, tuple):
            numerator, denominator = value
            return Fraction(numerator, denominator)
        if isinstance(value, (int, str, Rational)):
            return Fraction(value)
        if isinstance(value, Real):  # NumPy's scalars too
            return Fraction(float(value))
        raise TypeError(type(value).__name__)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise OptionError(
            f"{name} must be a number, a fraction like '5/2' or a pair like (5, 2), got {value!r}; correct it"
        ) from error


def parse_pair(name: str, numerator: int, denominator: int) -> Fraction:
    """A rational from two integers of at least 1, as older scripts give it."""
    for part, value in (("num", numerator), ("den", denominator)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}_{part} must be an integer of at least 1, got {value!r}; correct it")
    return Fraction(numerator, denominator)


def parse_timestamps(timestamps: Timestamps) -> list[Fraction]:
    """Seconds per source frame from a sequence or a timecodes v2 file."""
    if isinstance(timestamps, (str, Path)):
        return read_timecodes(Path(timestamps))
    if not isinstance(timestamps, Iterable):
        raise OptionError(f"timestamps must be seconds or a timecodes v2 file, got {timestamps!r}; correct it")
    return [_rational("timestamps", t) for t in timestamps]


def parse_times(times: Times, fps: Fraction) -> Iterator[Fraction]:
    """Source times of the output frames, in whatever unit they are given.

    Args:
        times: one per output frame; or points (output seconds, source time) of a curve, or a CSV file of such points.
        fps: output rate, for a curve.

    Raises:
        OptionError: neither, a value that is no number, or output times that do not increase.
    """
    if isinstance(times, (str, Path)):
        return _curve(read_curve(Path(times)), fps)
    if not isinstance(times, Iterable):
        raise OptionError(f"times must be source times, points of a curve or a CSV file, got {times!r}; correct it")
    listed = list(times)
    if listed and all(isinstance(point, Sequence) and len(point) == 2 for point in listed):
        return _curve([(_time(out), _time(source)) for out, source in listed], fps)  # type: ignore[misc]
    return iter([_time(time) for time in listed])


def _time(value: Any) -> Fraction:
    """A decimal means what it says: 0.1 is one tenth."""
    return _rational("times", repr(float(value)) if _is_float(value) and math.isfinite(value) else value)


def _curve(points: Sequence[tuple[Fraction, Fraction]], fps: Fraction) -> Iterator[Fraction]:
    if len(points) < 2:
        raise OptionError(f"times must have at least two points for a curve, got {len(points)}; add the end")
    for (before, _), (after, _) in pairwise(points):
        if after <= before:
            raise OptionError(
                f"times must have output times that increase, got {float(after)} s after {float(before)} s; sort them"
            )
    return along_curve(points, fps)


def parse_threshold(threshold: float | None) -> float | None:
    if threshold is None:
        return None
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= threshold <= 1:
        raise OptionError(
            f"sc_threshold must be between 0 and 1, or None, got {threshold!r}; 0.15 is usual, None obeys frame props "
            "only, 1.0 never sees a cut"
        )
    return float(threshold)


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


@dataclass(frozen=True, slots=True)
class Options:
    """Checked arguments of one call.

    Attributes:
        picture: the clip's format.
        carried: formats of the clips that are moved along with it.
        schedule: where every output frame lies; None: the clip is returned as it is.
        fps: of the output; None where the source's is not known.
        threshold: of the own scene change measure; None: frame props only.
        cuts: whether cuts stop the interpolation at all.
        network: what to load, for the first device.
        devices: that share the frames.
    """

    picture: PictureFormat
    carried: tuple[PictureFormat, ...]
    schedule: Schedule | None
    fps: Fraction | None
    threshold: float | None
    cuts: bool
    network: NetworkOptions
    devices: tuple[torch.device, ...]


def check_options(
    clip: vs.VideoNode,
    multi: Ratio,
    scale: float,
    sc_threshold: float | None,
    *,
    fps: Ratio | None,
    timestamps: Timestamps | None,
    times: Times | None,
    times_in: str,
    carry: Sequence[vs.VideoNode],
    model: str | Path | None,
    ensemble: bool,
    tta: bool,
    tta_temporal: bool,
    device: str | torch.device | None,
    precision: str | None,
) -> Options:
    """Check everything about a call that can be known before its first frame.

    Raises:
        RifeError: of the class that fits, with what is wrong, what came and what to do.
    """
    picture = picture_format(clip)
    threshold = parse_threshold(sc_threshold)
    carried = tuple(_carried_format(clip, i, extra) for i, extra in enumerate(carry))
    if times is None:
        schedule, output_fps = _schedule(clip, multi, fps, timestamps)
    else:
        schedule, output_fps = _ramp(clip, multi, fps, timestamps, times, times_in)
    devices = parse_devices(device)
    network = NetworkOptions(
        model=model,
        scale=parse_scale(scale),
        ensemble=bool(ensemble),
        device=devices[0],
        dtype=parse_precision(precision, *devices),
        tta=bool(tta),
        tta_temporal=bool(tta_temporal),
    )
    return Options(
        picture=picture,
        carried=carried,
        schedule=schedule,
        fps=output_fps,
        threshold=None if threshold == 1 else threshold,
        cuts=threshold != 1,
        network=network,
        devices=devices,
    )


def _carried_format(clip: vs.VideoNode, i: int, extra: vs.VideoNode) -> PictureFormat:
    try:
        fmt = picture_format(extra)
    except ClipError as error:
        raise ClipError(f"carry[{i}]: {error}") from error
    if (extra.num_frames, extra.fps) != (clip.num_frames, clip.fps):
        raise ClipError(
            f"carry[{i}] must have the clip's {clip.num_frames} frames and rate of {clip.fps}, got {extra.num_frames} "
            f"and {extra.fps}; trim it or call std.AssumeFPS"
        )
    return fmt


def _ramp(
    clip: vs.VideoNode, multi: Ratio, fps: Ratio | None, timestamps: Timestamps | None, times: Times, unit: str
) -> tuple[Schedule, Fraction]:
    """A speed ramp: output frames at any source times, at a constant rate."""
    if parse_multi(multi) != 2:
        raise OptionError(f"multi and times exclude each other, got multi={multi!r}; leave it out")
    if unit not in get_args(TimesUnit):
        raise OptionError(f"times_in must be 'seconds' or 'frames', got {unit!r}; it is the unit of the source times")
    if not clip.fps and (fps is None or (unit == "seconds" and timestamps is None)):
        raise ClipError(
            "times needs a clip with a known rate, got a rate of 0/0; give fps= and either timestamps= or "
            "times_in='frames', or call std.AssumeFPS first if the rate is constant"
        )
    rate = Fraction(clip.fps) if fps is None else parse_fps(fps)
    starts = None if timestamps is None else parse_timestamps(timestamps)
    return ramp(times, unit, clip.num_frames, Fraction(clip.fps) if clip.fps else None, starts, rate), rate


def ramp(
    times: Times, unit: str, source_frames: int, rate: Fraction | None, starts: Sequence[Fraction] | None, fps: Fraction
) -> Schedule:
    """Output frames at any source times.

    Args:
        times: as in `RIFE`.
        unit: of the source times, "seconds" or "frames".
        source_frames: length of the source.
        rate: of the source, where it is constant.
        starts: seconds of the source frames, where it is not; possibly also the end.
        fps: of the output.

    Raises:
        OptionError: a time lies outside of the source, or there are too many.
    """
    if starts is not None:
        check_timestamps(starts, source_frames)
    if unit == "frames":
        end = Fraction(source_frames)
    elif starts is not None:
        end = starts[-1] - starts[0]
    else:
        assert rate is not None
        end = source_frames / rate

    def position(time: Fraction) -> Fraction:
        if not 0 <= time <= end:
            raise OptionError(f"times must lie between 0 and {float(end):g} {unit}, got {float(time):g}; correct it")
        if unit == "frames":
            return time
        if starts is not None:
            return source_position(time, starts[:source_frames])
        assert rate is not None
        return time * rate

    return by_positions(map(position, parse_times(times, fps)), source_frames)


def _schedule(
    clip: vs.VideoNode, multi: Ratio, fps: Ratio | None, timestamps: Timestamps | None
) -> tuple[Schedule | None, Fraction | None]:
    factor = parse_multi(multi)
    if fps is None:
        if timestamps is not None:
            raise OptionError(
                "timestamps need fps, got no fps; add the constant rate wanted, or leave timestamps out: multi keeps "
                "the timing of variable sources by itself"
            )
        return _by_factor(clip, factor)
    if factor != 2:
        raise OptionError(f"multi and fps exclude each other, got multi={multi!r} and fps={fps!r}; give one of them")
    rate = parse_fps(fps)
    if timestamps is not None:
        return by_timestamps(parse_timestamps(timestamps), clip.num_frames, rate), rate
    if not clip.fps:
        raise ClipError(
            f"fps needs a clip with a known rate, got fps={fps!r} and a clip of rate 0/0; use multi= instead, give "
            "timestamps=, or call std.AssumeFPS first if the rate is constant"
        )
    factor = rate / Fraction(clip.fps)
    if factor < 1:
        raise OptionError(
            f"fps must be at least the clip's rate of {Fraction(clip.fps)}, got {fps!r}; to drop frames use "
            "std.SelectEvery"
        )
    return _by_factor(clip, factor)


def _by_factor(clip: vs.VideoNode, factor: Fraction) -> tuple[Schedule | None, Fraction | None]:
    if factor == 1:
        return None, None
    return by_factor(clip.num_frames, factor), Fraction(clip.fps) * factor if clip.fps else None
