"""Drops frames of a clip, rebuilds them with models and baselines, and scores what comes out.

The models run through the filter on the clip's own planes, as users get it; everything is scored, and shown, as 8-bit
RGB. Frames that cannot be rebuilt fairly are left out: across a cut, repeated ones, and those that no kept frame
follows. Frames are read in step, and only the pictures of the worst cases are kept.
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
TimeOf = Callable[[int], Fraction]  # seconds at which a frame is shown
RANKING = "psnr_db"


@dataclass(frozen=True, slots=True)
class Target:
    """A dropped frame that is rebuilt."""

    number: int  # in the clip
    left: int  # the kept frame before it
    right: int  # the kept frame after it
    timestep: Fraction  # between these two

    def moved(self, by: int) -> Target:
        return replace(self, number=self.number + by, left=self.left + by, right=self.right + by)


@dataclass(frozen=True, slots=True)
class Dropping:
    """Which frames are dropped, and which of them can be rebuilt."""

    step: int
    targets: Sequence[Target]
    across_cuts: Sequence[int]  # numbers of dropped frames with a cut between their neighbours
    rest: Sequence[int]  # numbers of dropped frames that no kept frame follows
    cuts: Sequence[int]  # the first frame after each cut


@dataclass(frozen=True, slots=True)
class Case:
    """A rebuilt frame with its pictures.

    Attributes:
        target: which frame it is.
        before, truth, after: of the clip.
        pictures: by method.
        scores: by method and measure.
    """

    target: Target
    before: Image8
    truth: Image8
    after: Image8
    pictures: Mapping[str, Image8]
    scores: Mapping[str, Mapping[str, float]]


@dataclass(slots=True)
class Result:
    """Scores of a whole clip.

    Attributes:
        dropping: what was done.
        methods: models, then baselines.
        measures: what was measured.
        numbers: of the frames that were scored.
        repeated: numbers of dropped frames equal to a kept neighbour, which are not scored.
        scores: by measure and method, one for each of `numbers`.
        worst: the lowest scores of the first method, lowest first.
    """

    dropping: Dropping
    methods: Sequence[str]
    measures: Sequence[str]
    numbers: array[int] = field(default_factory=lambda: array("q"))
    repeated: list[int] = field(default_factory=list)
    scores: dict[str, dict[str, array[float]]] = field(default_factory=dict)
    worst: list[Case] = field(default_factory=list)

    def means(self) -> dict[str, dict[str, float]]:
        """By method and measure; empty when nothing was scored."""
        if not self.numbers:
            return {}
        return {method: {key: fmean(self.scores[key][method]) for key in self.measures} for method in self.methods}

    def moved(self, by: int) -> Result:
        """The same with all numbers of frames higher by this."""
        dropping = self.dropping
        return replace(
            self,
            dropping=replace(
                dropping,
                targets=[target.moved(by) for target in dropping.targets],
                across_cuts=[n + by for n in dropping.across_cuts],
                rest=[n + by for n in dropping.rest],
                cuts=[n + by for n in dropping.cuts],
            ),
            numbers=array("q", (n + by for n in self.numbers)),
            repeated=[n + by for n in self.repeated],
            worst=[replace(case, target=case.target.moved(by)) for case in self.worst],
        )

    def left_out(self) -> list[int]:
        """All dropped frames that were not scored, ascending."""
        return sorted([*self.dropping.across_cuts, *self.dropping.rest, *self.repeated])


def plan_dropping(
    clip: vs.VideoNode, step: int, threshold: float | None, time_of: TimeOf | None, advance: Advance = lambda _: None
) -> Dropping:
    """Look for cuts and decide what can be rebuilt; reads the clip once.

    Args:
        clip: the source.
        step: every `step`th frame is kept.
        threshold: of the cut measure, as in `RIFE`.
        time_of: for sources of variable rate, the time of each frame; None: constant.
        advance: is told the number of frames read.
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
    return Dropping(step, targets, across, range(last + 1, clip.num_frames), cuts)


def _timestep(number: int, left: int, step: int, time_of: TimeOf | None) -> Fraction:
    if time_of is None:
        return Fraction(number - left, step)
    start, end = time_of(left), time_of(left + step)
    return (time_of(number) - start) / (end - start)


def compare(
    clip: vs.VideoNode,
    dropping: Dropping,
    models: Mapping[str, Mapping[str, Any]],
    baselines: Sequence[str],
    measures: Sequence[str],
    worst: int,
    advance: Advance = lambda _: None,
) -> Result:
    """Rebuild and score.

    Args:
        clip: the source, of a known rate.
        dropping: made for it.
        models: by name, keywords of `RIFE`.
        baselines: names of `BASELINES`.
        measures: names of `METRICS`; "psnr_db" is needed for the worst cases.
        worst: how many cases to keep with their pictures.
        advance: is told the number of targets done.

    Raises:
        vs.Error: a model cannot be loaded or run.
    """
    methods = [*models, *baselines]
    result = Result(dropping, methods, measures)
    result.scores = {key: {method: array("d") for method in methods} for key in measures}
    if not dropping.targets:
        return result
    shelf = Shelf(worst, spacing=4 * dropping.step)
    rebuilt = {name: _rebuilt(clip, dropping, keywords) for name, keywords in models.items()}
    for done, (target, before, truth, after, pictures) in enumerate(_pictures(clip, dropping, rebuilt), 1):
        advance(done)
        if np.array_equal(truth, before) or np.array_equal(truth, after):
            result.repeated.append(target.number)
            continue
        for name in baselines:
            pictures[name] = next(BASELINES[name](before, after, [float(target.timestep)]))
        scores = {name: {key: METRICS[key](pictures[name], truth) for key in measures} for name in methods}
        result.numbers.append(target.number)
        for key in measures:
            for name in methods:
                result.scores[key][name].append(scores[name][key])
        shelf.offer(Case(target, before, truth, after, pictures, scores), scores[methods[0]][RANKING])
    result.worst = shelf.cases()
    return result


def _rebuilt(clip: vs.VideoNode, dropping: Dropping, keywords: Mapping[str, Any]) -> vs.VideoNode:
    """A clip of the targets, in their order, as a model makes them from the kept frames."""
    kept = clip.std.SelectEvery(cycle=dropping.step, offsets=[0])
    positions = [Fraction(target.left, dropping.step) + target.timestep for target in dropping.targets]
    return vsrife.RIFE(kept, times=positions, times_in="frames", sc_threshold=1.0, **keywords)


_Step = tuple[Target, Image8, Image8, Image8, dict[str, Image8]]


def _pictures(clip: vs.VideoNode, dropping: Dropping, rebuilt: Mapping[str, vs.VideoNode]) -> Iterator[_Step]:
    """For each target the pictures before, of and after it, and those of the models, all in step."""
    with clip.get_frame(0) as frame:
        color = Colorimetry.from_props(frame.props, picture_format(clip))
    source = to_rgb(clip, color)
    streams = {name: to_rgb(node, color).frames(prefetch=1, backlog=1, close=True) for name, node in rebuilt.items()}
    ends: tuple[int, Image8, Image8] | None = None
    for target in dropping.targets:
        if ends is None or ends[0] != target.left:
            before = ends[2] if ends and ends[0] + dropping.step == target.left else picture_at(source, target.left)
            ends = target.left, before, picture_at(source, target.right)
        pictures = {name: array_of(next(stream)) for name, stream in streams.items()}
        yield target, ends[1], picture_at(source, target.number), ends[2], pictures


def to_rgb(clip: vs.VideoNode, color: Colorimetry) -> vs.VideoNode:
    """The clip as RGB24; gamma and primaries stay as they are."""
    extra = {} if clip.format.color_family == vs.RGB else {"matrix_in": color.matrix, "range_in": int(color.full_range)}
    return clip.resize.Bicubic(format=vs.RGB24, **extra)


def picture_at(rgb: vs.VideoNode, n: int) -> Image8:
    """Frame n of an RGB24 clip."""
    with rgb.get_frame(n) as frame:
        return array_of(frame)


def array_of(frame: vs.VideoFrame) -> Image8:
    """(H, W, 3), a copy."""
    return np.stack([np.asarray(frame[p]) for p in range(3)], axis=-1)


class Shelf:
    """Keeps the cases of lowest rank, no two of them near each other.

    Args:
        size: how many.
        spacing: frames that lie between two of them at least.
    """

    def __init__(self, size: int, spacing: int) -> None:
        self.size, self.spacing = size, spacing
        self._kept: list[tuple[float, int, Case]] = []

    def offer(self, case: Case, rank: float) -> None:
        number = case.target.number
        near = [entry for entry in self._kept if abs(entry[1] - number) < self.spacing]
        if any(entry[0] <= rank for entry in near):
            return
        self._kept = [entry for entry in self._kept if entry not in near]
        insort(self._kept, (rank, number, case), key=lambda entry: entry[:2])
        del self._kept[self.size :]

    def cases(self) -> list[Case]:
        """The lowest first."""
        return [entry[2] for entry in self._kept]
