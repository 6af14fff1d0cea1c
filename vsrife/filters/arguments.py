"""A call's arguments, checked once and frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypedDict, Unpack, cast, get_args

import torch
import vapoursynth as vs

from vsrife.engine.formats import PictureFormat
from vsrife.engine.keywords import NetworkKeywords
from vsrife.engine.loaded import NetworkOptions
from vsrife.errors import ClipError, OptionError, shown
from vsrife.filters.duplicates import Repair
from vsrife.filters.frames import picture_format
from vsrife.timing.duplicates import Duplicates
from vsrife.timing.parsing import (
    Ratio,
    Times,
    Timestamps,
    TimesUnit,
    parse_fps,
    parse_frames,
    parse_multi,
    parse_threshold,
    parse_timestamps,
    ramp,
)
from vsrife.timing.schedule import Schedule, by_factor, by_timestamps

DEFAULT_MULTI = Fraction(2)
Realtime = bool | Literal["overlay"]
MAX_REPEATS = 60  # source frames that a decision may have to look at, before and after


@dataclass(frozen=True, slots=True)
class Options:
    """Checked arguments of one call.

    Attributes:
        picture: the clip's format.
        carried: formats of the clips that are moved along with it.
        schedule: position of every output frame; None: the clip is returned as it is.
        fps: rate of the output; None where the source's is unknown.
        repair: what to do about repeated and damaged source frames; None: nothing.
        threshold: of the filter's own scene change measure; None: frame props only.
        cuts: whether interpolation stops at cuts at all.
        networks: what to load on each of the devices that share the frames.
        realtime: show source frames rather than be late; "overlay" also shows what happens.
    """

    picture: PictureFormat
    carried: tuple[PictureFormat, ...]
    schedule: Schedule | None
    fps: Fraction | None
    repair: Repair | None
    threshold: float | None
    cuts: bool
    networks: tuple[NetworkOptions, ...]
    realtime: Realtime = False


def check_options(
    clip: vs.VideoNode,
    multi: Ratio | None,
    sc_threshold: float | None,
    *,
    fps: Ratio | None = None,
    timestamps: Timestamps | None = None,
    times: Times | None = None,
    times_in: str = "seconds",
    carry: Sequence[vs.VideoNode] = (),
    realtime: Realtime = False,
    duplicates: str = "keep",
    max_repeats: int = 3,
    duplicate_prop: str | None = None,
    replace: str | Sequence[int] | None = None,
    **network: Unpack[NetworkKeywords],
) -> Options:
    """Check everything about a call that can be known before its first frame.

    Raises:
        RifeError: an argument is out of range or contradicts another one.
    """
    if realtime not in (False, True, "overlay"):
        raise OptionError(f"realtime must be True, False or 'overlay', got {shown(realtime)}; it is for players")
    networks = NetworkOptions.for_devices(**network)
    if realtime and len(networks) > 1:
        raise OptionError(f"realtime runs on one device, got device={shown(network.get('device'))}; name one of them")
    picture = picture_format(clip)
    threshold = parse_threshold(sc_threshold)
    carried = tuple(_carried_format(clip, i, extra) for i, extra in enumerate(carry))
    if times is None:
        schedule, output_fps = _schedule(clip, multi, fps, timestamps)
    else:
        schedule, output_fps = _ramp(clip, multi, fps, timestamps, times, times_in)
    repair = _repair(clip, duplicates, max_repeats, duplicate_prop, replace, timestamps)
    if repair is not None and schedule is None:
        schedule, output_fps = by_factor(clip.num_frames, Fraction(1)), Fraction(clip.fps) if clip.fps else None
    return Options(
        picture=picture,
        carried=carried,
        schedule=schedule,
        fps=output_fps,
        repair=repair,
        threshold=None if threshold == 1 else threshold,
        cuts=threshold != 1,
        networks=networks,
        realtime=realtime,
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
    clip: vs.VideoNode, multi: Ratio | None, fps: Ratio | None, timestamps: Timestamps | None, times: Times, unit: str
) -> tuple[Schedule, Fraction]:
    """A speed ramp: output frames at any source times, at a constant rate."""
    if multi is not None:
        raise OptionError(f"multi and times exclude each other, got multi={shown(multi)}; leave it out")
    if unit not in get_args(TimesUnit):
        raise OptionError(
            f"times_in must be 'seconds' or 'frames', got {shown(unit)}; it is the unit of the source times"
        )
    if not clip.fps and (fps is None or (unit == "seconds" and timestamps is None)):
        raise ClipError(
            "times needs a clip with a known rate, got a rate of 0/0; give fps= and either timestamps= or "
            "times_in='frames', or call std.AssumeFPS first if the rate is constant"
        )
    rate = Fraction(clip.fps) if fps is None else parse_fps(fps)
    starts = None if timestamps is None else parse_timestamps(timestamps)
    return ramp(times, unit, clip.num_frames, Fraction(clip.fps) if clip.fps else None, starts, rate), rate


def _schedule(
    clip: vs.VideoNode, multi: Ratio | None, fps: Ratio | None, timestamps: Timestamps | None
) -> tuple[Schedule | None, Fraction | None]:
    if fps is None:
        if timestamps is not None:
            raise OptionError(
                "timestamps need fps, got no fps; add the constant rate wanted, or leave timestamps out: multi keeps "
                "the timing of variable sources by itself"
            )
        return _by_factor(clip, DEFAULT_MULTI if multi is None else parse_multi(multi))
    if multi is not None:
        raise OptionError(
            f"multi and fps exclude each other, got multi={shown(multi)} and fps={shown(fps)}; give one of them"
        )
    rate = parse_fps(fps)
    if timestamps is not None:
        return by_timestamps(parse_timestamps(timestamps), clip.num_frames, rate), rate
    if not clip.fps:
        raise ClipError(
            f"fps needs a clip with a known rate, got fps={shown(fps)} and a clip of rate 0/0; give the factor between "
            "the rates instead, such as multi='5/2' from 24 to 60, or timestamps=, or call std.AssumeFPS first if the "
            "rate is constant"
        )
    factor = rate / Fraction(clip.fps)
    if factor < 1:
        raise OptionError(
            f"fps must be at least the clip's rate of {Fraction(clip.fps)}, got {shown(fps)}; to drop frames use "
            "std.SelectEvery"
        )
    return _by_factor(clip, factor)


def _by_factor(clip: vs.VideoNode, factor: Fraction) -> tuple[Schedule | None, Fraction | None]:
    if factor == 1:
        return None, None
    return by_factor(clip.num_frames, factor), Fraction(clip.fps) * factor if clip.fps else None


def _repair(
    clip: vs.VideoNode,
    mode: str,
    max_repeats: int,
    prop: str | None,
    replace: str | Sequence[int] | None,
    timestamps: Timestamps | None,
) -> Repair | None:
    if mode not in get_args(Duplicates):
        raise OptionError(
            f"duplicates must be 'keep', 'fill' or 'even', got {shown(mode)}; 'fill' replaces repeated frames"
        )
    if isinstance(max_repeats, bool) or not isinstance(max_repeats, int) or not 1 <= max_repeats <= MAX_REPEATS:
        raise OptionError(f"max_repeats must be 1 to {MAX_REPEATS}, got {shown(max_repeats)}; 3 is usual")
    if prop is not None and not isinstance(prop, str):
        raise OptionError(f"duplicate_prop must be the name of a frame prop, got {shown(prop)}; leave it out for none")
    if mode == "keep" and replace is None:
        return None
    replaced = None if replace is None else parse_frames("replace", replace, clip.num_frames)
    times = None if timestamps is None else tuple(parse_timestamps(timestamps))
    return Repair(cast(Duplicates, mode), max_repeats, prop, replaced, times)


class OldKeywords(TypedDict, total=False):
    """Keywords of `RIFE` in vs-rife 1.x and 2.x."""

    device_type: str
    device_index: int
    fp16: bool
    model_ver: float


def translated(
    old: OldKeywords, model: str | Path | None, device: str | torch.device | None, precision: str | None
) -> tuple[str | Path | None, str | torch.device | None, str | None]:
    """Model, device and precision of a call with keywords of vs-rife 1.x or 2.x.

    `device_type` and `device_index` name the device, `fp16` the precision, which there was a CUDA device's alone, and
    `model_ver` the model.

    Raises:
        OptionError: an unknown keyword, an old one beside its successor, or a value of a wrong type.
    """
    successors = {"device_type": device, "device_index": device, "fp16": precision, "model_ver": model}
    for key in old:
        if key not in successors:
            raise OptionError(f"there is no keyword {shown(key)}; help(vsrife.RIFE) lists them")
        if successors[key] is not None:
            raise OptionError(f"{key} is the older spelling of a keyword that is there too, got both; leave {key} out")
    kind, index = old.get("device_type"), old.get("device_index", 0)
    if kind not in (None, "cuda", "cpu"):
        raise OptionError(f"device_type must be 'cuda' or 'cpu', got {shown(kind)}; use device= for others")
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise OptionError(f"device_index must be an integer of at least 0, got {shown(index)}; 0 is the first device")
    on_cuda = kind == "cuda" or (kind is None and device is None and torch.cuda.is_available())
    if kind == "cpu":
        device = "cpu"
    elif on_cuda and (kind or "device_index" in old):
        device = f"cuda:{index}"
    if "fp16" in old and on_cuda:
        precision = "fp16" if old["fp16"] else "fp32"
    return str(old["model_ver"]) if "model_ver" in old else model, device, precision
