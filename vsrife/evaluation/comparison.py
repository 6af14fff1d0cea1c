"""Drop frames of a clip, rebuild them with models and baselines, and score the result against the dropped frames.

Models run through the filter on the clip's native planes, as in production; everything is scored and shown as 8-bit
RGB. Frames without a fair reconstruction are not scored: across a cut, duplicates, and those after the last kept frame.
All clips are read in lockstep, and only the pictures of the worst frames stay in memory.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from statistics import fmean
from typing import Any

import numpy as np
import vapoursynth as vs

import vsrife
from vsrife.engine.formats import Colorimetry
from vsrife.evaluation.baselines import BASELINES
from vsrife.evaluation.metrics import METRICS, Image8
from vsrife.filters.frames import picture_format
from vsrife.filters.scenechange import cut_clip, decision

Advance = Callable[[int], None]
TimeOf = Callable[[int], Fraction]  # frame number to seconds
RANKING = "psnr_db"


@dataclass(frozen=True, slots=True)
class Target:
    """A dropped frame to rebuild.

    Attributes:
        number: in the clip.
        left: number of the kept frame before it.
        right: number of the kept frame after it.
        timestep: between the two.
    """

    number: int
    left: int
    right: int
    timestep: Fraction

    def renumbered(self, offset: int) -> Target:
        return replace(self, number=self.number + offset, left=self.left + offset, right=self.right + offset)


@dataclass(frozen=True, slots=True)
class DropPlan:
    """Which frames are dropped, and which of them can be rebuilt.

    Attributes:
        step: every `step`th frame is kept.
        targets: dropped frames to rebuild.
        across_cuts: numbers of dropped frames with a cut between the kept frames around them.
        after_last: numbers of dropped frames after the last kept frame.
        cuts: number of the first frame after each cut.
    """

    step: int
    targets: Sequence[Target]
    across_cuts: Sequence[int]
    after_last: Sequence[int]
    cuts: Sequence[int]

    def renumbered(self, offset: int) -> DropPlan:
        return DropPlan(
            self.step, [target.renumbered(offset) for target in self.targets], _shifted(self.across_cuts, offset),
            _shifted(self.after_last, offset), _shifted(self.cuts, offset),
        )  # fmt: skip


def _shifted(numbers: Sequence[int], offset: int) -> list[int]:
    return [n + offset for n in numbers]


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """A rebuilt frame with its pictures.

    Attributes:
        target: the frame.
        before, truth, after: the kept frame before it, the frame itself, the kept frame after it.
        pictures: reconstructions, by method.
        scores: by method and metric.
    """

    target: Target
    before: Image8
    truth: Image8
    after: Image8
    pictures: Mapping[str, Image8]
    scores: Mapping[str, Mapping[str, float]]


@dataclass(slots=True)
class Comparison:
    """Scores of a whole clip.

    Attributes:
        plan: what was dropped.
        methods: models, then baselines.
        measures: metrics.
        numbers: scored frames, ascending.
        duplicates: numbers of dropped frames equal to a kept neighbour, which are not scored.
        scores: by metric and method, one for each of `numbers`.
        worst: frames with the lowest scores of the first method, lowest first.
    """

    plan: DropPlan
    methods: Sequence[str]
    measures: Sequence[str]
    numbers: array[int] = field(default_factory=lambda: array("q"))
    duplicates: list[int] = field(default_factory=list)
    scores: dict[str, dict[str, array[float]]] = field(default_factory=dict)
    worst: list[ScoredFrame] = field(default_factory=list)

    def means(self) -> dict[str, dict[str, float]]:
        """Mean scores by method and metric; empty if nothing was scored."""
        if not self.numbers:
            return {}
        return {method: {key: fmean(self.scores[key][method]) for key in self.measures} for method in self.methods}

    def renumbered(self, offset: int) -> Comparison:
        """The same with `offset` added to all frame numbers."""
        return replace(
            self,
            plan=self.plan.renumbered(offset),
            numbers=array("q", _shifted(self.numbers, offset)),
            duplicates=_shifted(self.duplicates, offset),
            worst=[replace(frame, target=frame.target.renumbered(offset)) for frame in self.worst],
        )

    def unscored(self) -> list[int]:
        """All dropped frames that were not scored, ascending."""
        return sorted([*self.plan.across_cuts, *self.plan.after_last, *self.duplicates])


def plan_drop(
    clip: vs.VideoNode, step: int, threshold: float | None, time_of: TimeOf | None, advance: Advance = lambda _: None
) -> DropPlan:
    """Detect cuts and decide which frames can be rebuilt. Reads the clip once.

    Args:
        clip: the source.
        step: keep every `step`th frame.
        threshold: of the cut detector, as in `RIFE`.
        time_of: time of each frame in seconds, for sources of variable rate; None: constant rate.
        advance: called with the number of frames read.
    """
    cuts = []
    for n, frame in enumerate(cut_clip(clip, threshold).frames(close=True)):
        if decision(frame) and n + 1 < clip.num_frames:
            cuts.append(n + 1)
        advance(n + 1)
    targets, across = list[Target](), list[int]()
    last = (clip.num_frames - 1) // step * step
    crossed = {(cut - 1) // step * step for cut in cuts}
    for left in range(0, last, step):
        inner = range(left + 1, left + step)
        if left in crossed:
            across.extend(inner)
        else:
            targets.extend(Target(n, left, left + step, _timestep(n, left, step, time_of)) for n in inner)
    return DropPlan(step, targets, across, range(last + 1, clip.num_frames), cuts)


def _timestep(number: int, left: int, step: int, time_of: TimeOf | None) -> Fraction:
    if time_of is None:
        return Fraction(number - left, step)
    start, end = time_of(left), time_of(left + step)
    return (time_of(number) - start) / (end - start)


def compare(
    clip: vs.VideoNode,
    plan: DropPlan,
    models: Mapping[str, Mapping[str, Any]],
    baselines: Sequence[str],
    measures: Sequence[str],
    worst: int,
    advance: Advance = lambda _: None,
) -> Comparison:
    """Rebuild the dropped frames and score them.

    Args:
        clip: the source, of known rate.
        plan: made for it by `plan_drop`.
        models: keywords of `RIFE` by the name of the method.
        baselines: names of `BASELINES`.
        measures: names of `METRICS`; must contain "psnr_db", which ranks the worst frames.
        worst: number of worst frames to keep with their pictures.
        advance: called with the number of targets done.

    Raises:
        vs.Error: a model cannot be loaded or run.
    """
    methods = [*models, *baselines]
    result = Comparison(plan, methods, measures)
    result.scores = {key: {method: array("d") for method in methods} for key in measures}
    if not plan.targets:
        return result
    lowest = WorstFrames(worst, spacing=4 * plan.step)
    rebuilt = {name: _rebuild(clip, plan, keywords) for name, keywords in models.items()}
    for done, (target, before, truth, after, pictures) in enumerate(_pictures(clip, plan, rebuilt), 1):
        advance(done)
        if np.array_equal(truth, before) or np.array_equal(truth, after):
            result.duplicates.append(target.number)
            continue
        for name in baselines:
            pictures[name] = next(BASELINES[name](before, after, [float(target.timestep)]))
        scores = {name: {key: METRICS[key](pictures[name], truth) for key in measures} for name in methods}
        result.numbers.append(target.number)
        for key in measures:
            for name in methods:
                result.scores[key][name].append(scores[name][key])
        lowest.offer(ScoredFrame(target, before, truth, after, pictures, scores), scores[methods[0]][RANKING])
    result.worst = lowest.frames()
    return result


def _rebuild(clip: vs.VideoNode, plan: DropPlan, keywords: Mapping[str, Any]) -> vs.VideoNode:
    """A clip of the targets, in order, that a model interpolates from the kept frames."""
    kept = clip.std.SelectEvery(cycle=plan.step, offsets=[0])
    positions = [Fraction(target.left, plan.step) + target.timestep for target in plan.targets]
    return vsrife.RIFE(kept, times=positions, times_in="frames", sc_threshold=1.0, **keywords)


_Step = tuple[Target, Image8, Image8, Image8, dict[str, Image8]]


def _pictures(clip: vs.VideoNode, plan: DropPlan, rebuilt: Mapping[str, vs.VideoNode]) -> Iterator[_Step]:
    """Yield each target with the pictures before, of and after it and those of the models, all read in lockstep."""
    with clip.get_frame(0) as frame:
        color = Colorimetry.from_props(frame.props, picture_format(clip))
    source = to_rgb(clip, color)
    streams = {name: to_rgb(node, color).frames(prefetch=1, backlog=1, close=True) for name, node in rebuilt.items()}
    ends: tuple[int, Image8, Image8] | None = None
    for target in plan.targets:
        if ends is None or ends[0] != target.left:
            before = ends[2] if ends and ends[0] + plan.step == target.left else picture_at(source, target.left)
            ends = target.left, before, picture_at(source, target.right)
        pictures = {name: array_of(next(stream)) for name, stream in streams.items()}
        yield target, ends[1], picture_at(source, target.number), ends[2], pictures


def to_rgb(clip: vs.VideoNode, color: Colorimetry) -> vs.VideoNode:
    """Convert a clip to RGB24, without conversion of transfer or primaries."""
    extra = {} if clip.format.color_family == vs.RGB else {"matrix_in": color.matrix, "range_in": int(color.full_range)}
    return clip.resize.Bicubic(format=vs.RGB24, **extra)


def picture_at(rgb: vs.VideoNode, n: int) -> Image8:
    """Frame n of an RGB24 clip."""
    with rgb.get_frame(n) as frame:
        return array_of(frame)


def array_of(frame: vs.VideoFrame) -> Image8:
    """Copy a frame, (H, W, 3)."""
    return np.stack([np.asarray(frame[p]) for p in range(3)], axis=-1)


class WorstFrames:
    """Keeps the frames of lowest score, no two of them close to each other.

    Args:
        size: number of frames to keep.
        spacing: least distance between two of them, in frames.
    """

    def __init__(self, size: int, spacing: int) -> None:
        self.size, self.spacing = size, spacing
        self._kept: list[tuple[float, int, ScoredFrame]] = []  # sorted by score

    def offer(self, frame: ScoredFrame, score: float) -> None:
        number = frame.target.number
        near = [entry for entry in self._kept if abs(entry[1] - number) < self.spacing]
        if any(entry[0] <= score for entry in near):
            return
        self._kept = [entry for entry in self._kept if entry not in near]
        insort(self._kept, (score, number, frame), key=lambda entry: entry[:2])
        del self._kept[self.size :]

    def frames(self) -> list[ScoredFrame]:
        """The kept frames, lowest score first."""
        return [entry[2] for entry in self._kept]
