"""Plots of scores, drawn with matplotlib."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsrife.evaluation import BASELINE_NAMES
from vsrife.evaluation.tables import MEASURES
from vsrife.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # safe for colour blindness
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, slots=True)
class Look:
    """Line and marker of a method; models are drawn in colour, baselines in grey."""

    color: str
    marker: str
    dashes: tuple[int, tuple[int, ...]] | str


_GREYS = (
    Look("#b8b8b8", "x", (0, (1, 2))), Look("#8a8a8a", "+", (0, (4, 2))), Look("#4d4d4d", "d", (0, (6, 2, 1, 2))),
)  # fmt: skip


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Assign each method its look; that of a model depends on its position among the models alone."""
    baselines = dict(zip(BASELINE_NAMES, _GREYS, strict=True))
    models = [name for name in methods if name not in baselines]
    colors = {
        name: Look(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], "solid") for i, name in enumerate(models)
    }
    return {name: baselines.get(name) or colors[name] for name in methods}


def plot_sets(path: Path, scores: Mapping[str, Mapping[str, Mapping[str, float]]], measures: Sequence[str]) -> None:
    """Plot evaluation sets as rows with a marker for each method, one panel for each metric.

    Args:
        path: the PNG file to write.
        scores: by set, method and metric; a set may lack a metric.
        measures: metrics, one panel each, from left to right.
    """
    figure = _figure(3.2 + 3.4 * len(measures), 1.6 + 0.34 * len(scores))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for measure, axes in zip(measures, panels, strict=True):
        _set_panel(axes, scores, measure)
    panels[0].set_yticks(range(len(scores)), list(scores))
    panels[0].set_ylim(len(scores) - 0.5, -0.5)
    _legend(figure, panels[0])
    _save(figure, path)


def _set_panel(axes: Axes, scores: Mapping[str, Mapping[str, Mapping[str, float]]], measure: str) -> None:
    methods = list(dict.fromkeys(method for by_method in scores.values() for method in by_method))
    for method, look in looks(methods).items():
        points = [
            (by_method[method][measure], y)
            for y, by_method in enumerate(scores.values())
            if measure in by_method.get(method, {})
        ]
        axes.plot(
            *zip(*points, strict=True) if points else ((), ()),
            look.marker,
            color=look.color,
            label=method,
            ms=8,
            mew=1.6,
            zorder=3 if look.dashes == "solid" else 2,
        )
    axes.set_title(MEASURES[measure].heading, fontsize=11)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def plot_time(
    path: Path,
    series: Mapping[str, Mapping[str, Sequence[float]]],
    numbers: Sequence[int],
    gaps: Sequence[tuple[int, int]],
) -> None:
    """Plot scores over the frames of a clip, one panel for each metric.

    Args:
        path: the PNG file to write.
        series: by metric and method, a score for each of `numbers`.
        numbers: scored source frames, ascending.
        gaps: first and last frame of each unscored range; shaded.
    """
    figure = _figure(11, 0.9 + 2.7 * len(series))
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for (measure, by_method), axes in zip(series.items(), panels, strict=True):
        for method, look in looks(list(by_method)).items():
            axes.plot(
                *_broken(numbers, by_method[method], gaps),
                color=look.color,
                linestyle=look.dashes,
                label=method,
                linewidth=1.4,
            )
        for first, last in gaps:
            axes.axvspan(first - 0.5, last + 0.5, color="#f3dcdc", linewidth=0)
        axes.set_ylabel(MEASURES[measure].heading)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.margins(x=0.01)
    panels[-1].set_xlabel("source frame" + ("; shaded: not scored" if gaps else ""))
    _legend(figure, panels[0])
    _save(figure, path)


def _broken(
    numbers: Sequence[int], values: Sequence[float], gaps: Sequence[tuple[int, int]]
) -> tuple[list[float], list[float]]:
    """Insert a NaN wherever a gap lies between two points, so that the line breaks there."""
    starts = [first for first, _ in gaps]
    xs, ys = list[float](), list[float]()
    for previous, number, value in zip((numbers[0], *numbers), numbers, values, strict=False):
        if bisect_left(starts, previous) < bisect_left(starts, number):
            xs.append(previous)
            ys.append(math.nan)
        xs.append(number)
        ys.append(value)
    return xs, ys


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # here: it takes half a second, and tables need none

    return Figure(figsize=(width, height), layout="constrained")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), frameon=False)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=110)
