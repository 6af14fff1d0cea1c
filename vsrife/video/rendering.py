"""The frames that a job makes of a source: clips, their times, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import vapoursynth as vs

from vsrife.errors import MediaError
from vsrife.filters.frames import PREV
from vsrife.timing.schedule import Schedule
from vsrife.video.encoder import Frames
from vsrife.video.plan import OutputTimes, Plan, VideoOptions, apply, make_plan, prepare
from vsrife.video.source import Source, explained


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """What becomes of a source.

    Attributes:
        source: the opened file.
        plan: for it.
        clips: the output's colours, and alpha where there is one.
        times: of the output, on the source's clock.
    """

    source: Source
    plan: Plan
    clips: Sequence[vs.VideoNode]
    times: OutputTimes

    def frames(self, start: int, end: int) -> Iterator[Frames]:
        """Frames of all clips together, requested ahead by the frameserver.

        Raises:
            MediaError: a source frame cannot be read, or interpolation fails.
        """
        with explained(self.source.path, "cannot be interpolated"):
            parts = [clip[start:end].frames(close=False) for clip in self.clips]
            yield from zip(*parts, strict=True)


def make_product(source: Source, options: VideoOptions, *, montage: bool = False) -> Product:
    """Plan the output of an opened source.

    Raises:
        MediaError: the file ends early, and the options do not leave the end out.
        OptionError, ClipError: the options do not fit the source.
    """
    if source.cut_short and options.end is None:
        promised = source.promised if source.promised > source.readable + 1 else "more"
        raise MediaError(
            f"{source.path} is cut short, got {source.readable} of {promised} frames; copy it again, or give "
            f"--end {source.readable}f to use what is there"
        )
    plan = make_plan(options, source.timeline, source.field_based, source.keywords)
    with explained(source.path, "cannot be interpolated"):
        clips = _clips(source, plan, montage=montage)
    return Product(source, plan, clips, plan.output_timeline())


def _clips(source: Source, plan: Plan, *, montage: bool) -> list[vs.VideoNode]:
    sources = [source.clip] if source.alpha is None else [source.clip, source.alpha]
    result = apply(source.clip, plan, sources[1:])
    clips: list[vs.VideoNode] = result if isinstance(result, list) else [result]
    if not montage:
        return clips
    before = [_shown(prepare(clip, plan), plan.schedule) for clip in sources]
    return [vs.core.std.StackHorizontal(pair) for pair in zip(before, clips, strict=True)]


def _shown(clip: vs.VideoNode, schedule: Schedule) -> vs.VideoNode:
    """The source frame that is shown at each output frame, without interpolation."""
    blank = clip.std.BlankClip(length=schedule.num_frames, keep=True)
    return blank.std.FrameEval(lambda n: clip[schedule[n].left], clip_src=[clip])


@dataclass(slots=True)
class Seen:
    """Counts scene changes, and source frames that equal the one before, by looking at output frames in order."""

    schedule: Schedule
    cuts: int = 0
    _repeats: int = 0
    _before: Frames | None = None
    _pair: int = -1  # the pair of source frames that the last steps belong to
    _still: bool = False  # whether all of these steps changed nothing

    def see(self, n: int, frames: Frames) -> None:
        self.cuts += bool(frames[0].props.get(PREV))
        if self._before is not None:
            pair, same = self.schedule[n - 1].left, _equal(self._before, frames)
            if pair != self._pair:
                self._repeats += self._still
                self._still = same and pair < self.schedule.source_frames - 1
            else:
                self._still = self._still and same
            self._pair = pair
        self._before = frames

    @property
    def repeats(self) -> int:
        return self._repeats + self._still

    def counts(self) -> tuple[int, int]:
        return self.cuts, self.repeats


def _equal(a: Frames, b: Frames) -> bool:
    return all(
        np.array_equal(np.asarray(one[plane]), np.asarray(other[plane]))
        for one, other in zip(a, b, strict=True)
        for plane in range(one.format.num_planes)
    )
