"""From options to calls: how a file is read, and the keywords of `vsrife.RIFE`.

`vsrife video` runs a plan, `vsrife script` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from vsrife.errors import ClipError, OptionError, shown
from vsrife.timing.duplicates import Duplicates
from vsrife.timing.parsing import format_frames, parse_frames, ramp
from vsrife.timing.pulldown import Film
from vsrife.timing.schedule import Schedule, by_factor, by_timestamps
from vsrife.timing.timeline import Timeline

SOURCE_KEYWORDS: Mapping[str, Any] = {"apply_rotation": 0}  # rotation is copied as a tag
UPRIGHT_KEYWORDS: Mapping[str, Any] = {"apply_rotation": 1}  # for results without such a tag
INTERLACED = "_FieldBased"  # prop: 0 progressive, 1 bottom field first, 2 top field first


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a clip: a frame number, or seconds from its first frame."""

    frame: int | None = None
    seconds: Fraction | None = None

    def __str__(self) -> str:
        return f"{self.frame}f" if self.seconds is None else f"{float(self.seconds):g}"

    def frame_in(self, timeline: Timeline) -> int:
        """The first frame at or after the mark; the number of frames if that is beyond the end."""
        if self.seconds is not None:
            return timeline.first_at(timeline.start + self.seconds)
        assert self.frame is not None
        return min(self.frame, timeline.frames)


def parse_mark(name: str, text: str) -> Mark:
    """Parse a time (`90`, `1:30`, `00:01:30.5`) or a frame number (`100f`).

    Args:
        name: of the option, for the error.
        text: its value.

    Raises:
        OptionError: it is neither.
    """
    if match := re.fullmatch(r"(\d{1,10})f", text):
        return Mark(frame=int(match[1]))
    match = re.fullmatch(r"(?:(?:(\d{1,10}):)?(\d{1,10}):)?(\d{1,10}(?:\.\d{1,20})?)", text)
    if match is None:
        raise OptionError(f"{name} must be a time like 90, 1:30 or 00:01:30.5, or a frame like 100f, got {shown(text)}")
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return Mark(seconds=hours * 3600 + minutes * 60 + seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """What to do with a clip, whatever file it comes from.

    Attributes:
        multi: output frames per source frame; None: 2, or what `fps` needs.
        fps: constant output rate.
        slow_motion: duration of the result over that of the source.
        retime: CSV file of a speed ramp, instead of a rate or slow motion.
        start, end: the part to use; None: from the first frame, to the last.
        deinterlace: make a frame of each field of an interlaced source first.
        inverse_telecine: take the film out of a source with pulldown first.
        duplicates, max_repeats: as in `RIFE`.
        replace: damaged frames, such as "120,455-456", counted like the frames of `start`; None: none.
        sc_threshold: as in `RIFE`.
        network: model, scale, ensemble, device, precision and the like, as in `RIFE`.
    """

    multi: Fraction | None = None
    fps: Fraction | None = None
    slow_motion: Fraction = Fraction(1)
    retime: str | None = None
    start: Mark | None = None
    end: Mark | None = None
    deinterlace: bool = False
    inverse_telecine: bool = False
    duplicates: Duplicates = "keep"
    max_repeats: int = 3
    replace: str | None = None
    sc_threshold: float | None = 0.15
    network: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The calls that make the output, in this order; one whose value is None is left out.

    Attributes:
        source: keywords of `core.bs.VideoSource`, besides the path.
        field: of `core.bwdif.Bwdif`: 3 for top field first, 2 for bottom field first.
        film: order of the fields to match, 1 for top field first, and the film that is in them.
        trim: first frame, and the one after the last: `clip[a:b]`.
        rate: of `std.AssumeFPS`: the exact rate of a source of constant rate.
        rife: keywords of `vsrife.RIFE`.
        timestamps: pass the times of the source's frames to `RIFE` as `timestamps`.
        timeline: of the frames that `RIFE` gets.
        slow_motion: duration of the output over that of its timeline.
    """

    source: Mapping[str, Any]
    field: int | None
    film: tuple[int, Film] | None
    trim: tuple[int, int] | None
    rate: Fraction | None
    rife: Mapping[str, Any]
    timestamps: bool
    timeline: Timeline
    slow_motion: Fraction

    @property
    def retimed(self) -> bool:
        """Whether the output follows a speed ramp, to which nothing but the picture can be mapped."""
        return "times" in self.rife

    @property
    def schedule(self) -> Schedule:
        """Source position of each output frame, as `RIFE` will compute it."""
        fps, frames = self.rife.get("fps"), self.timeline.frames
        starts = [self.timeline[n] for n in range(frames + 1)] if self.timestamps else None
        if self.retimed:
            assert fps is not None
            return ramp(self.rife["times"], "seconds", frames, self.timeline.rate, starts, fps)
        if starts is not None:
            assert fps is not None
            return by_timestamps(starts, frames, fps)
        if fps is not None:
            assert self.timeline.rate is not None
            return by_factor(frames, fps / self.timeline.rate)
        return by_factor(frames, self.rife["multi"])

    def output_timeline(self) -> OutputTimes:
        return OutputTimes(self, self.schedule)


@dataclass(frozen=True, slots=True, eq=False)
class OutputTimes:
    """Times of the output frames: seconds on the source's clock, stretched from the first frame on."""

    plan: Plan
    schedule: Schedule

    @property
    def frames(self) -> int:
        return self.schedule.num_frames

    @property
    def rate(self) -> Fraction | None:
        """Frames per second; None if they vary."""
        fps = self.plan.rife.get("fps")
        if fps is not None:
            return Fraction(fps) / self.plan.slow_motion
        rate = self.plan.timeline.rate
        return None if rate is None else rate * self.plan.rife["multi"] / self.plan.slow_motion

    @property
    def mean_rate(self) -> Fraction:
        if self.rate is not None:
            return self.rate
        return Fraction(self.plan.timeline.mean_rate * self.plan.rife["multi"] / self.plan.slow_motion)

    def __getitem__(self, n: int) -> Fraction:
        """Time of frame n; for n = `frames` the end of the last."""
        timeline = self.plan.timeline
        if self.rate is not None:
            return timeline.start + n / self.rate
        position = min(n / Fraction(self.plan.rife["multi"]), Fraction(timeline.frames))
        return timeline.start + (timeline.at(position) - timeline.start) * self.plan.slow_motion


def make_plan(
    options: VideoOptions,
    timeline: Timeline,
    field_based: int = 0,
    source: Mapping[str, Any] = SOURCE_KEYWORDS,
    film: Film | None = None,
) -> Plan:
    """Plan the output of a source.

    Args:
        options: what to do.
        timeline: of the whole source.
        field_based: prop `_FieldBased` of its first frame.
        source: keywords of `core.bs.VideoSource` that it was read with.
        film: what has been found in it, for `inverse_telecine`.

    Raises:
        OptionError: the options contradict each other or the source's length.
        ClipError: the source is interlaced, and neither `deinterlace` nor `inverse_telecine` is True.
    """
    field_order = _field_order(options, field_based)
    if field_order is not None:
        timeline = timeline.doubled()
    if film is not None:
        timeline = film.timeline
    trim = _trim(options, timeline)
    rife = {"sc_threshold": options.sc_threshold, **_repair(options, timeline, trim), **options.network}
    if trim is not None:
        timeline = timeline.part(*trim)
    timestamps = False
    if options.retime is not None:
        rife |= {"times": options.retime, "fps": _ramp_rate(options, timeline)}
        timestamps = timeline.rate is None
    elif options.fps is None:
        rife["multi"] = options.slow_motion if options.multi is None else options.multi
        if options.multi is None and options.slow_motion == 1:
            rife["multi"] = Fraction(2)
    else:
        if options.multi is not None:
            raise OptionError(f"give --multi or --fps, got both ({options.multi} and {options.fps}); leave one out")
        rife["fps"] = options.fps * options.slow_motion
        timestamps = timeline.rate is None or timeline.rate > rife["fps"]
    return Plan(
        source=source, field=field_order, trim=trim,
        film=None if film is None else (first_field(field_based), film), rate=timeline.rate,
        rife=rife, timestamps=timestamps,
        timeline=timeline, slow_motion=options.slow_motion,
    )  # fmt: skip


def _ramp_rate(options: VideoOptions, timeline: Timeline) -> Fraction:
    if options.multi is not None or options.slow_motion != 1:
        raise OptionError(
            "--retime sets the speed by itself, got --multi, --exp or --slow-motion as well; leave those out"
        )
    rate = timeline.rate if options.fps is None else options.fps
    if rate is None:
        mean = float(timeline.mean_rate)
        raise OptionError(f"--retime needs --fps for a source of variable rate, got {mean:.3f} in the mean; add --fps")
    return rate


def _field_order(options: VideoOptions, field_based: int) -> int | None:
    if options.deinterlace and options.inverse_telecine:
        raise OptionError("--deinterlace and --inverse-telecine exclude each other, got both; the latter is for film")
    if field_based and not (options.deinterlace or options.inverse_telecine):
        raise ClipError(
            f"the source is interlaced, got {('bottom', 'top')[field_based - 1]} field first; motion between fields "
            "would become combs: add --deinterlace, which makes one frame of each field, or --inverse-telecine if it "
            "is film"
        )
    if not options.deinterlace:
        return None
    return 2 if field_based == 1 else 3


def first_field(field_based: int) -> int:
    """1 if the top field is first, as where no flag tells, else 0."""
    return 0 if field_based == 1 else 1


def _trim(options: VideoOptions, timeline: Timeline) -> tuple[int, int] | None:
    if options.start is None and options.end is None:
        return None
    first = options.start.frame_in(timeline) if options.start else 0
    end = options.end.frame_in(timeline) if options.end else timeline.frames
    if first >= end:
        length = float(timeline.end - timeline.start)
        raise OptionError(
            f"no frame lies between --start and --end, got frames {first} to {end} of {timeline.frames} "
            f"({length:.3f} s); --end must lie after --start, and --start within the source"
        )
    return first, end


def _repair(options: VideoOptions, timeline: Timeline, trim: tuple[int, int] | None) -> dict[str, Any]:
    """Keywords of `RIFE` for repeated and damaged frames."""
    keywords: dict[str, Any] = {}
    if options.duplicates != "keep":
        keywords |= {"duplicates": options.duplicates, "max_repeats": options.max_repeats}
    if options.replace is not None:
        first, end = trim or (0, timeline.frames)
        damaged = parse_frames("--replace", options.replace, timeline.frames)
        within = [n - first for n in damaged if first <= n < end]
        if len(within) == end - first:
            raise OptionError(f"--replace must leave a frame, got all from {first} to {end - 1}; list fewer")
        if within:
            keywords["replace"] = format_frames(within)
    return keywords


def prepare(clip: Any, plan: Plan) -> Any:
    """The clip for `RIFE`: fields separated or matched, trimmed, at its exact rate."""
    if plan.field is not None:
        if not hasattr(clip, "bwdif"):
            raise OptionError("--deinterlace needs the plugin bwdif, got none; pip install vapoursynth-bwdif")
        clip = clip.bwdif.Bwdif(field=plan.field).std.SetFieldBased(0)
    if plan.film is not None:
        from vsrife.filters.telecine import take_film  # here: it loads PyTorch

        clip = take_film(clip, *plan.film)
    if plan.trim is not None:
        clip = clip[plan.trim[0] : plan.trim[1]]
    if plan.rate is not None:
        clip = clip.std.AssumeFPS(fpsnum=plan.rate.numerator, fpsden=plan.rate.denominator)
    return clip


def apply(clip: Any, plan: Plan, alpha: Any | None = None) -> list[Any]:
    """The output clips of a plan for an opened source: colours, and alpha if there is one."""
    import vsrife  # here: it loads PyTorch, and checking options needs none
    from vsrife.video import transparency

    extra: dict[str, Any] = {}
    if plan.timestamps:
        extra["timestamps"] = [plan.timeline[n] for n in range(plan.timeline.frames + 1)]
    clip = prepare(clip, plan)
    if plan.timeline.rate is None and (plan.film is not None or plan.rife.keys() & {"duplicates", "replace"}):
        clip = _timed(clip, plan.timeline)
    if alpha is None:
        return [vsrife.RIFE(clip, **plan.rife, **extra)]
    return transparency.interpolate(clip, prepare(alpha, plan), **plan.rife, **extra)


def _timed(clip: Any, timeline: Timeline) -> Any:
    """The clip with exact durations, which decide where between two frames a new one lies."""
    from vsrife.filters.frames import DURATION, props_only, set_duration  # here: it loads PyTorch

    def set_time(n: int, f: Any) -> Any:
        frame = f.copy()
        set_duration(frame, timeline[n + 1] - timeline[n])
        return frame

    props = props_only(clip)
    return clip.std.CopyFrameProps(props.std.ModifyFrame(props, set_time), props=list(DURATION))
