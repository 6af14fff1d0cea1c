"""Plots of scores. Need matplotlib."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsrife.evaluation.tables import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind, too
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn: models in colour, baselines in grey."""

    color: str
    marker: str
    dashes: tuple[int, tuple[int, ...]] | str


_BASELINES = {
    "repeat": Look("#b8b8b8", "x", (0, (1, 2))),
    "blend": Look("#8a8a8a", "+", (0, (4, 2))),
    "dis": Look("#4d4d4d", "d", (0, (6, 2, 1, 2))),
}


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """The look of each method; it depends on the order of the models alone."""
    models = [name for name in methods if name not in _BASELINES]
    colors = {
        name: Look(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], "solid") for i, name in enumerate(models)
    }
    return {name: _BASELINES.get(name) or colors[name] for name in methods}


def plot_sets(path: Path, scores: Mapping[str, Mapping[str, Mapping[str, float]]], measures: Sequence[str]) -> None:
    """A panel for each measure: the evaluation sets as lines, on each a mark for every method.

    Args:
        path: PNG file.
        scores: by set, method and measure; a set may lack a measure.
        measures: the panels, from left to right.
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
    """Scores over the frames of a clip, a panel for each measure.

    Args:
        path: PNG file.
        series: by measure and method, a score for each of `numbers`.
        numbers: of the source frames that were rebuilt, ascending.
        gaps: first and last source frame of each stretch that was left out; shaded.
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
    panels[-1].set_xlabel("source frame" + ("; shaded: left out" if gaps else ""))
    _legend(figure, panels[0])
    _save(figure, path)


def _broken(
    numbers: Sequence[int], values: Sequence[float], gaps: Sequence[tuple[int, int]]
) -> tuple[list[float], list[float]]:
    """The same points, with a hole where something was left out between two of them."""
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
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), frameon=False)


def _save(figure: Figure, path: Path) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    figure.savefig(unfinished, format="png", dpi=110)
    unfinished.replace(path)
