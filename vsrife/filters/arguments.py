"""Checks the arguments of a call once and freezes them. The only place that rejects arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import get_args

import torch
import vapoursynth as vs

from vsrife.engine.devices import parse_devices, parse_precision, parse_scale
from vsrife.engine.formats import PictureFormat
from vsrife.engine.loaded import NetworkOptions
from vsrife.errors import ClipError, OptionError
from vsrife.filters.frames import picture_format
from vsrife.timing.parsing import (
    Ratio,
    Times,
    Timestamps,
    TimesUnit,
    parse_fps,
    parse_multi,
    parse_threshold,
    parse_timestamps,
    ramp,
)
from vsrife.timing.schedule import Schedule, by_factor, by_timestamps


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
