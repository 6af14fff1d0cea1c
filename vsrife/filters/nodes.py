"""Nodes that select, mark and interleave frames; no pixels pass through Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import vapoursynth as vs

from vsrife.filters.frames import DURATION, NEXT, PREV, duration, rounded, set_duration, set_marks
from vsrife.filters.scenechange import decision
from vsrife.timing.schedule import Schedule

TABLE_PART = 4096  # frames selected by one node
_SAFE_FACTOR = 2000  # times the millionths of a second that mpv counts in: fits into 32 bits


def select(clip: vs.VideoNode, schedule: Schedule) -> vs.VideoNode:
    """The clip at output rate: frame n is the source frame at or before output frame n.

    If the schedule repeats, durations are scaled by its step; otherwise they are the source's.
    """
    cycle, lefts = schedule.cycle, [position.left for position in schedule.positions]
    if not schedule.repeats:
        return by_table(clip, lefts)
    if cycle == 1:  # SelectEvery needs at least 2
        cycle, lefts = 2, lefts + [left + 1 for left in lefts]
    return clip.std.SelectEvery(cycle, lefts)


def by_table(clip: vs.VideoNode, frames: Sequence[int]) -> vs.VideoNode:
    """The given frames of a clip in the given order, with their own durations.

    Made of parts, because SelectEvery takes minutes for a list as long as a film.
    """
    if clip.num_frames == 1:  # SelectEvery needs at least 2
        return vs.core.std.Loop(clip, len(frames))
    parts = [
        clip.std.SelectEvery(clip.num_frames, frames[i : i + TABLE_PART], modify_duration=False)
        for i in range(0, len(frames), TABLE_PART)
    ]
    return vs.core.std.Splice(parts)


def interleave(originals: vs.VideoNode, new: vs.VideoNode, schedule: Schedule, fps: Fraction | None) -> vs.VideoNode:
    """Take originals where an output frame coincides with a source frame, new frames elsewhere."""
    both = vs.core.std.Interleave([originals, new], modify_duration=False)
    picks = [2 * i + (position.t > 0) for i, position in enumerate(schedule.positions)]
    if schedule.repeats:
        return both.std.SelectEvery(2 * len(picks), picks, modify_duration=False)[: schedule.num_frames]
    output = by_table(both, picks)
    if fps is None:
        return output
    rated = output.std.AssumeFPS(fpsnum=fps.numerator, fpsden=fps.denominator)
    # With a step each frame has its own duration, which may differ from the rate's.
    return rated if schedule.step is None else rated.std.CopyFrameProps(output, props=list(DURATION))


def short_durations(clip: vs.VideoNode, schedule: Schedule) -> vs.VideoNode:
    """The clip with durations that fit into 32 bits, as which mpv reads them; off by less than 1e-9 of a frame."""
    step = schedule.step
    if step is None or max(step.numerator, step.denominator) <= _SAFE_FACTOR:
        return clip

    def shorten(n: int, f: vs.VideoFrame) -> vs.VideoFrame:  # noqa: ARG001
        seconds = duration(f)
        if seconds is None:
            return f
        result = f.copy()
        set_duration(result, rounded(seconds))
        return result

    return clip.std.CopyFrameProps(clip.std.ModifyFrame([clip], shorten), props=list(DURATION))


def with_marks(
    clip: vs.VideoNode,
    cuts: list[vs.VideoNode],
    marks_of: Callable[[int, list[bool | None]], Mapping[str, bool | None]],
    step: Fraction | None = None,
) -> vs.VideoNode:
    """The clip with other scene change props.

    Args:
        clip: frames whose props are replaced.
        cuts: cut clips, as long as `clip`.
        marks_of: from frame number and the decision of each cut clip to the props.
        step: factor of the durations of the last cut clip, which replace those of `clip`; None keeps those of `clip`.
    """
    props = [PREV, NEXT] if step is None else [PREV, NEXT, *DURATION]

    def mark(n: int, f: vs.VideoFrame | list[vs.VideoFrame]) -> vs.VideoFrame:
        frames = f if isinstance(f, list) else [f]
        result = frames[-1].copy()
        set_marks(result, marks_of(n, [decision(frame) for frame in frames]))
        if step is not None and (seconds := duration(result)) is not None:
            set_duration(result, seconds * step)
        return result

    return clip.std.CopyFrameProps(cuts[-1].std.ModifyFrame(cuts, mark), props=props)
