"""Decides for each pair of neighbouring source frames whether a cut lies between them.

Frame props decide where an earlier filter has set them: there is a cut between n and n + 1 if n has `_SceneChangeNext`
or n + 1 has `_SceneChangePrev`. Without props, the filter compares small luma pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import vapoursynth as vs
import vsutil
from numpy.typing import NDArray

from vsrife.filters.frames import NEXT, PREV, integer, named_errors, props_only, set_marks, shifted

MEASURE_WIDTH_PX = 160
# At a cut, at least this share of the threshold remains after the best gain and offset between the pictures is removed.
RESIDUAL_SHARE = 0.3
# A cut stands out from the pairs before and after it. Where one of those differs by more than this share of the pair's
# own difference, it is fast motion (or a flash), and a frozen frame would look like stutter.
NEIGHBOUR_SHARE = 0.7
REPEAT_SHARE = 0.1  # a pair that differs by less of it repeats a frame

Luma = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two pictures.

    Attributes:
        mean: mean absolute difference of luma, 0..1.
        residual: the same after the best global gain and offset, in the direction that leaves less, 0..1: small for a
            fade or a flash, large for a cut.
    """

    mean: float
    residual: float

    def is_cut(self, threshold: float) -> bool:
        return self.mean > threshold and self.residual > RESIDUAL_SHARE * threshold


def measure(a: Luma, b: Luma) -> Difference:
    """Compare two small luma pictures of the same size, nominally 0..1."""
    mean = min(1.0, float(np.abs(a - b).mean()))
    return Difference(mean, min(1.0, _residual(a, b), _residual(b, a)))


def _residual(a: Luma, b: Luma) -> float:
    """Mean absolute difference between b and the best `gain * a + offset` (least squares; a negative gain is none)."""
    centred_a, centred_b = a - a.mean(), b - b.mean()
    energy = float((centred_a * centred_a).sum())
    gain = max(0.0, float((centred_a * centred_b).sum()) / energy) if energy > 1e-9 else 0.0
    return float(np.abs(centred_b - gain * centred_a).mean())


def marked(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool | None:
    """The decision in the props of two neighbours: a cut between them, no cut, or None when neither has a mark.

    Raises:
        ClipError: a mark is no integer.
    """
    marks = [integer(props, key) for props, key in ((left, NEXT), (right, PREV)) if key in props]
    return any(marks) if marks else None


def decision(frame: vs.VideoFrame) -> bool | None:
    """The decision that a frame of a cut clip carries; None where there is none."""
    value = frame.props.get(NEXT)
    return None if value is None else bool(value)


def cut_clip(clip: vs.VideoNode, threshold: float | None, *, reach: int = 1) -> vs.VideoNode:
    """A tiny clip that carries the decisions as frame props.

    A source frame that cannot be read makes no decision fail: without a neighbour of the pair the pair alone decides,
    without the pair itself there is no decision.

    Args:
        clip: the source.
        threshold: of the filter's own measure, 0..1; None: props only.
        reach: frames before and after a pair that the measure looks at; more than 1 for sources that repeat frames.
            With 0 it takes fast motion for a cut more often, but depends on nothing but the pair.

    Returns:
        A clip as long as `clip`. Frame n has `_SceneChangeNext` = 1 or 0 for a cut between n and n + 1; without
        marks and without a threshold it has no such prop.
    """
    small = props_only(clip) if threshold is None else _small_luma(clip)
    pair = [small, shifted(small, 1)]
    alone = _decisions(pair, threshold)
    if not reach:
        return alone
    steps = range(1, reach + 1)
    around = [shifted(small, by) for far in steps for by in (-far, 1 + far)] if threshold is not None else []
    return _guarded(_decisions([*pair, *around], threshold) if around else alone, alone, small)


def _decisions(clips: Sequence[vs.VideoNode], threshold: float | None) -> vs.VideoNode:
    """Cuts between frames of the first two clips; those of further pairs of clips lie before and after, outwards."""
    last = clips[0].num_frames - 1

    def decide(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        left, right = f[:2]
        with named_errors(f"RIFE: source frame {n} or {n + 1}"):
            cut = marked(left.props, right.props)
        if cut is None and threshold is not None:
            pictures = [np.asarray(frame[0]) for frame in f]
            cut = measure(*pictures[:2]).is_cut(threshold) and not _motion_continues(*pictures)
        result = left.copy()
        set_marks(result, {PREV: None, NEXT: cut and n < last})  # a detector may mark the end of the clip
        return result

    return clips[0].std.ModifyFrame(list(clips), decide)


def _guarded(decisions: vs.VideoNode, alone: vs.VideoNode, small: vs.VideoNode) -> vs.VideoNode:
    """Decisions that do not fail with an unreadable source frame.

    No node can catch the error of another, so the callback asks for the frame itself.
    """
    last = decisions.num_frames - 1
    undecided = small.std.RemoveFrameProps(PREV)

    def readable(n: int) -> bool:
        try:
            small.get_frame(n).close()
        except vs.Error:
            return False
        return True

    def read(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        try:
            return decisions.get_frame(n)
        except vs.Error:
            pass  # an error that is not the source's comes again
        if not readable(n):
            return f
        return (alone if readable(min(n + 1, last)) else undecided).get_frame(n)

    blank = decisions.std.BlankClip(keep=True)
    return blank.std.ModifyFrame([blank], read)


def _motion_continues(left: Luma, right: Luma, *around: Luma) -> bool:
    """Whether the pairs before or after differ nearly as much as the pair itself; of repeated frames, the next that
    differ. Clip ends repeat a frame."""
    difference = _difference(left, right)
    return any(
        _next_difference(chain, difference) > NEIGHBOUR_SHARE * difference
        for chain in ((left, *around[::2]), (right, *around[1::2]))
    )


def _next_difference(chain: Sequence[Luma], difference: float) -> float:
    differences = [_difference(a, b) for a, b in pairwise(chain)]
    return next((each for each in differences if each > REPEAT_SHARE * difference), 0.0)


def _difference(a: Luma, b: Luma) -> float:
    return float(np.abs(a - b).mean())


def _small_luma(clip: vs.VideoNode) -> vs.VideoNode:
    """Luma as float, 0..1 in any format and range, about 160 pixels wide; the resizer averages over the area."""
    width = min(MEASURE_WIDTH_PX, clip.width)
    height = max(1, round(clip.height * width / clip.width))
    # With a field flag the resizer would treat the two fields apart, which it refuses for some heights. Colour tags
    # do not matter here, and the resizer refuses some that other filters let pass.
    clip = clip.std.SetFieldBased(0).std.RemoveFrameProps(["_Matrix", "_Primaries", "_Transfer", "_ChromaLocation"])
    if clip.format.color_family == vs.RGB:
        return clip.resize.Bilinear(width, height, format=vs.GRAYS, matrix_s="709")
    return vsutil.get_y(clip).resize.Bilinear(width, height, format=vs.GRAYS)
