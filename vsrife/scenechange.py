"""Decides for each pair of source frames whether a cut lies between them.

Frame props decide where an upstream filter has set them: a cut lies between n and n + 1 when n has `_SceneChangeNext`
or n + 1 has `_SceneChangePrev`. Without them, the filter measures on a small luma picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import vapoursynth as vs
import vsutil
from numpy.typing import NDArray

PREV, NEXT = "_SceneChangePrev", "_SceneChangeNext"
MEASURE_WIDTH_PX = 160
# The share of the threshold that must remain when the best gain and offset between the two pictures is taken out.
RESIDUAL_SHARE = 0.4

Luma = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Difference:
    """How different two pictures are.

    Attributes:
        mean: mean absolute difference of luma, 0..1.
        residual: the same after the best global gain and offset, in the direction that leaves less, 0..1. A fade or a
            flash leaves little, a cut most.
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
    """What the props of two neighbours say: a cut between them, no cut, or None when neither has the mark."""
    marks = [props[key] for props, key in ((left, NEXT), (right, PREV)) if key in props]
    return any(marks) if marks else None


def cut_clip(clip: vs.VideoNode, following: vs.VideoNode, threshold: float | None) -> vs.VideoNode:
    """A tiny clip that carries the decisions as frame props.

    Args:
        clip: the source.
        following: the source from its second frame on, the last one repeated: as long as `clip`.
        threshold: of the own measure, 0..1; None: props only.

    Returns:
        A clip as long as `clip`. Frame n has `_SceneChangeNext` = 1 or 0 for a cut between n and n + 1; without
        marks and without a threshold it has no such prop.
    """
    if threshold is None:
        small, small_following = _props_alone(clip), _props_alone(following)
    else:
        small, small_following = _small_luma(clip), _small_luma(following)
    last = clip.num_frames - 1

    def decide(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        left, right = f
        cut = False if n == last else marked(left.props, right.props)
        if cut is None and threshold is not None:
            cut = measure(np.asarray(left[0]), np.asarray(right[0])).is_cut(threshold)
        result = left.copy()
        set_marks(result, {PREV: None, NEXT: cut})
        return result

    return small.std.ModifyFrame([small, small_following], decide)


def set_marks(frame: vs.VideoFrame, marks: Mapping[str, bool | None]) -> None:
    """Write scene change props of a frame; None deletes one."""
    for key, value in marks.items():
        if value is not None:
            frame.props[key] = int(value)
        elif key in frame.props:
            del frame.props[key]


def with_marks(
    clip: vs.VideoNode,
    cuts: list[vs.VideoNode],
    marks_of: Callable[[int, list[bool | None]], Mapping[str, bool | None]],
) -> vs.VideoNode:
    """The same frames with scene change props from a callback that never sees them.

    Args:
        clip: frames whose props are replaced; their pixels stay out of Python.
        cuts: cut clips, as long as `clip`.
        marks_of: frame number and the decision of each cut clip's frame to the props.
    """

    def mark(n: int, f: vs.VideoFrame | list[vs.VideoFrame]) -> vs.VideoFrame:
        frames = f if isinstance(f, list) else [f]
        result = frames[0].copy()
        set_marks(result, marks_of(n, [decision(frame) for frame in frames]))
        return result

    return clip.std.CopyFrameProps(cuts[0].std.ModifyFrame(cuts, mark), props=[PREV, NEXT])


def decision(frame: vs.VideoFrame) -> bool | None:
    """What a frame of a cut clip says."""
    value = frame.props.get(NEXT)
    return None if value is None else bool(value)


def _props_alone(clip: vs.VideoNode) -> vs.VideoNode:
    blank = clip.std.BlankClip(width=1, height=1, format=vs.GRAY8, keep=True)
    return blank.std.CopyFrameProps(clip)


def _small_luma(clip: vs.VideoNode) -> vs.VideoNode:
    """Luma as float, 0..1 whatever format and range, about 160 pixels wide; the resizer averages over the area."""
    width = min(MEASURE_WIDTH_PX, clip.width)
    height = max(1, round(clip.height * width / clip.width))
    # A field flag would make the resizer treat the two fields apart, which it refuses for some heights.
    clip = clip.std.SetFieldBased(0)
    if clip.format.color_family == vs.RGB:
        return clip.resize.Bilinear(width, height, format=vs.GRAYS, matrix_s="709")
    return vsutil.get_y(clip).resize.Bilinear(width, height, format=vs.GRAYS)
