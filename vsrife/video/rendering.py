"""The output clips of a source, their times, and statistics of their frames."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import vapoursynth as vs

from vsrife.errors import MediaError, OptionError
from vsrife.filters.frames import PREV
from vsrife.filters.telecine import find_combs, find_film_in
from vsrife.timing.pulldown import Film
from vsrife.timing.schedule import Schedule
from vsrife.video.encoder import Frames
from vsrife.video.pixel_formats import PixelFormat, convert
from vsrife.video.plan import OutputTimes, Plan, VideoOptions, apply, first_field, make_plan, prepare
from vsrife.video.reporting import Reporter
from vsrife.video.source import Source, media_errors

_FRAMES_BETWEEN_TRIMS = 250


@dataclass(frozen=True, slots=True, eq=False)
class RenderedClip:
    """A source after interpolation.

    Attributes:
        source: the opened file.
        plan: made for it.
        clips: colour, then alpha if there is one.
        times: of the output frames, on the source's clock.
    """

    source: Source
    plan: Plan
    clips: Sequence[vs.VideoNode]
    times: OutputTimes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in the clips, which are padded where it is odd."""
        clip, source = self.clips[0], self.source
        return clip.width - source.clip.width + source.size[0], clip.height - source.clip.height + source.size[1]

    def frames(self, start: int, end: int) -> Iterator[Frames]:
        """Frames `start` up to and without `end` of all clips together, requested ahead.

        Raises:
            MediaError: a source frame cannot be read, or interpolation fails.
        """
        with media_errors(self.source.path, "cannot be interpolated"):
            parts = [clip[start:end].frames(close=False) for clip in self.clips]
            for number, frames in enumerate(zip(*parts, strict=True), 1):
                yield frames
                if number % _FRAMES_BETWEEN_TRIMS == 0:
                    _return_free_memory()


def render(source: Source, options: VideoOptions, report: Reporter, *, side_by_side: bool = False) -> RenderedClip:
    """Interpolate an opened source.

    Args:
        source: the opened file.
        options: what is wanted of it.
        report: callbacks.
        side_by_side: put the source's frames at the left of the output.

    Raises:
        MediaError: the file is cut short, and the options include its end.
        OptionError, ClipError: the options do not fit the source.
        KeyboardInterrupt: interrupted while film was being looked for.
    """
    if source.cut_short and options.end is None:
        promised = source.promised if source.promised > source.readable + 1 else "more"
        raise MediaError(
            f"{source.path} is cut short, got {source.readable} of {promised} frames; copy it again, or give "
            f"--end {source.readable}f to use what is there"
        )
    film = find_film(source, report) if options.inverse_telecine else None
    plan = make_plan(options, source.timeline, source.field_based, source.keywords, film)
    if film is None and plan.field is None and (warning := unflagged_combs(source)):
        report.warn(warning)
    with media_errors(source.path, "cannot be interpolated"):
        clips = _clips(source, plan, side_by_side=side_by_side)
    return RenderedClip(source, plan, clips, plan.output_timeline())


def find_film(source: Source, report: Reporter) -> Film:
    """Find the film in a source with pulldown, which takes a look at every frame.

    Raises:
        OptionError: a plugin is missing, or the source has transparency, which has no fields.
        MediaError: a frame cannot be read.
        KeyboardInterrupt: interrupted.
    """

    def go_on(done: int) -> None:  # noqa: ARG001
        if report.stop():
            raise KeyboardInterrupt

    if source.alpha is not None:
        raise OptionError(
            "--inverse-telecine is for film from television, got a source with transparency; leave it out"
        )
    report.say(f"matching the fields of {source.timeline.frames} frames to find the film in them")
    with media_errors(source.path):
        film = find_film_in(source.clip, first_field(source.field_based), source.timeline, go_on)
    if not film.dropped and film.timeline.rate == source.timeline.rate:
        report.warn(f"{source.path.name}: no pulldown found, so all frames stay; leave --inverse-telecine out")
    return film


def unflagged_combs(source: Source) -> str | None:
    """A warning that names the remedy if frames are combed though no flag says so."""
    remedies = {
        "film": "film with pulldown: add --inverse-telecine",
        "video": "interlaced video: add --deinterlace, which makes one frame of each field",
    }
    if source.field_based or not source.has_streams:
        return None
    kind = find_combs(source.clip, source.timeline)
    if kind is None:
        return None
    return f"{source.path.name}: frames are combed, and no flag says so; it may be {remedies[kind]}"


def _clips(source: Source, plan: Plan, *, side_by_side: bool) -> list[vs.VideoNode]:
    clips: list[vs.VideoNode] = apply(source.clip, plan, source.alpha)
    if not side_by_side:
        return clips
    sources = [source.clip] if source.alpha is None else [source.clip, source.alpha]
    lefts = [_repeated(prepare(clip, plan), plan.schedule) for clip in sources]
    return [vs.core.std.StackHorizontal(pair) for pair in zip(lefts, clips, strict=True)]


def _repeated(clip: vs.VideoNode, schedule: Schedule) -> vs.VideoNode:
    """At each output frame the source frame shown at that time, without interpolation."""
    blank = clip.std.BlankClip(length=schedule.num_frames, keep=True)
    return blank.std.FrameEval(lambda n: clip[schedule[n].left], clip_src=[clip])


def fit(rendered: RenderedClip, target: PixelFormat) -> RenderedClip:
    """Convert the clips to a pixel format, with an alpha clip exactly if it has alpha."""
    clips = rendered.clips
    fitted = [convert(clips[0], target, rendered.source.props)]
    if target.alpha:
        grey = replace(target, family="GRAY", subsampling_w=0, subsampling_h=0, alpha=False)
        opaque = 1 if grey.floating else 2**grey.bits - 1
        alpha = clips[1] if len(clips) > 1 else clips[0].std.BlankClip(
            format=grey.vapoursynth_id, color=opaque, keep=True)  # fmt: skip
        fitted.append(convert(alpha, grey, {}))
    return replace(rendered, clips=fitted)


def _return_free_memory() -> None:
    """Give free memory back to the system: glibc keeps it in an arena of each thread, which grows for hours."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@dataclass(slots=True)
class FrameStats:
    """Counts scene cuts, and source frames that equal the one before, from output frames in order."""

    schedule: Schedule
    cuts: int = 0
    _duplicates: int = 0
    _previous: Frames | None = None
    _pair: int = -1  # left source frame of the last steps
    _static: bool = False  # none of the last steps changed anything

    def add(self, n: int, frames: Frames) -> None:
        """Count output frame n; call in order of n."""
        self.cuts += bool(frames[0].props.get(PREV))
        if self._previous is not None:
            pair, same = self.schedule[n - 1].left, _equal(self._previous, frames)
            if pair != self._pair:
                self._duplicates += self._static
                self._static = same and pair < self.schedule.source_frames - 1
            else:
                self._static = self._static and same
            self._pair = pair
        self._previous = frames

    @property
    def duplicates(self) -> int:
        return self._duplicates + self._static

    def counts(self) -> tuple[int, int]:
        """Cuts and duplicates so far."""
        return self.cuts, self.duplicates


def _equal(a: Frames, b: Frames) -> bool:
    return all(
        np.array_equal(np.asarray(one[plane]), np.asarray(other[plane]))
        for one, other in zip(a, b, strict=True)
        for plane in range(one.format.num_planes)
    )
