"""Decides for each pair of source frames whether a cut lies between them.

Frame props decide where an upstream filter has set them: a cut lies between n and n + 1 when n has `_SceneChangeNext`
or n + 1 has `_SceneChangePrev`. Without them, the filter measures on a small luma picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import vapoursynth as vs
import vsutil
from numpy.typing import NDArray

from vsrife.filters.frames import NEXT, PREV, set_marks, shifted

MEASURE_WIDTH_PX = 160
# The share of the threshold that must remain when the best gain and offset between the two pictures is taken out.
RESIDUAL_SHARE = 0.3
# A cut stands out from the pairs before and after it. Where one of them differs by more than this share of the pair's
# own difference, fast motion is going on (or a flash), and freezing it would look like stutter.
NEIGHBOUR_SHARE = 0.7

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


def cut_clip(clip: vs.VideoNode, threshold: float | None, *, neighbours: bool = True) -> vs.VideoNode:
    """A tiny clip that carries the decisions as frame props.

    Args:
        clip: the source.
        threshold: of the own measure, 0..1; None: props only.
        neighbours: whether the own measure may look at the frames before and after a pair. Without, it takes fast
            motion for a cut more often, but depends on nothing but the pair.

    Returns:
        A clip as long as `clip`. Frame n has `_SceneChangeNext` = 1 or 0 for a cut between n and n + 1; without
        marks and without a threshold it has no such prop.
    """
    small = _props_alone(clip) if threshold is None else _small_luma(clip)
    last = clip.num_frames - 1

    def decide(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        left, right, *around = f
        cut = marked(left.props, right.props)
        if cut is None and threshold is not None:
            pictures = [np.asarray(frame[0]) for frame in (left, right, *around)]
            cut = measure(*pictures[:2]).is_cut(threshold) and not _goes_on(*pictures)
        result = left.copy()
        set_marks(result, {PREV: None, NEXT: cut and n < last})  # detectors may mark the end
        return result

    around = [shifted(small, -1), shifted(small, 2)] if neighbours and threshold is not None else []
    return small.std.ModifyFrame([small, shifted(small, 1), *around], decide)


def _goes_on(left: Luma, right: Luma, *around: Luma) -> bool:
    """Whether the pairs before and after differ nearly as much as the pair itself. The clip's ends repeat a frame."""
    if not around:
        return False
    before, after = around
    limit = NEIGHBOUR_SHARE * np.abs(left - right).mean()
    return bool(max(np.abs(before - left).mean(), np.abs(right - after).mean()) > limit)


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
    # Tags of colour do not matter here, and the resizer refuses some that others let pass.
    clip = clip.std.SetFieldBased(0).std.RemoveFrameProps(["_Matrix", "_Primaries", "_Transfer", "_ChromaLocation"])
    if clip.format.color_family == vs.RGB:
        return clip.resize.Bilinear(width, height, format=vs.GRAYS, matrix_s="709")
    return vsutil.get_y(clip).resize.Bilinear(width, height, format=vs.GRAYS)
