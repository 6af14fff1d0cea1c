"""A comparison as one self-contained HTML page: scores, pictures under a divider, and a plot."""

from __future__ import annotations

import base64
import html
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

from vsrife.evaluation.baselines import BASELINES
from vsrife.evaluation.comparison import Comparison, ScoredFrame
from vsrife.evaluation.metrics import Image8
from vsrife.evaluation.plots import looks
from vsrife.evaluation.tables import MEASURES, number
from vsrife.files import atomic_write
from vsrife.images.files import Picture, encode_picture

_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_POINTS = 2000  # of a curve; longer ones show the minimum of each few frames
_WEBP_QUALITY = 92  # a third of a PNG, and nearly lossless
_WEBP_MOST_PX = 16383  # a side
_SOURCES = ("source before", "truth", "source after")


@dataclass(frozen=True, slots=True)
class Page:
    """Content of a page.

    Attributes:
        title: heading.
        summary: one line below it.
        result: scores and the worst frames.
        gaps: first and last frame of each unscored range.
        seconds: the time of a frame.
    """

    title: str
    summary: str
    result: Comparison
    gaps: Sequence[tuple[int, int]]
    seconds: Callable[[int], float]


def write_page(path: Path, page: Page) -> None:
    """Write the page. The file appears when it is complete.

    Raises:
        OSError: it cannot be written.
    """
    numbers, scores, each = _thinned(page.result)
    note = "Shaded: not scored. Dots: the worst frames above."
    if each > 1:
        note += f" Each point is the lowest score of {each} frames."
    data = {
        "methods": _methods(page.result.methods),
        "measures": [{"key": key, **asdict(MEASURES[key])} for key in page.result.measures],
        "numbers": numbers, "scores": scores, "gaps": page.gaps, "views": [*_SOURCES, *page.result.methods],
        "cases": [_case(case, page.seconds(case.target.number)) for case in page.result.worst],
    }  # fmt: skip
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(page.title),
        summary=html.escape(page.summary),
        table=_table(page.result),
        plot_note=html.escape(note),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _methods(names: Sequence[str]) -> list[dict[str, Any]]:
    def dashes(pattern: tuple[int, tuple[int, ...]] | str) -> str:
        return "" if isinstance(pattern, str) else " ".join(str(2 * length) for length in pattern[1])

    return [
        {"name": name, "color": look.color, "dashes": dashes(look.dashes), "baseline": name in BASELINES}
        for name, look in looks(names).items()
    ]


def _table(result: Comparison) -> str:
    """The means as an HTML table, the best of each metric marked."""
    means = result.means()
    best = {key: max(values[key] for values in means.values()) for key in result.measures}
    head = "".join(f'<th scope="col">{MEASURES[key].heading}</th>' for key in result.measures)

    def cell(key: str, value: float) -> str:
        return f"<td{' class=best' if value == best[key] else ''}>{number(key, value)}</td>"

    rows = (
        f"<tr><td>{html.escape(method)}</td>{''.join(cell(key, values[key]) for key in result.measures)}</tr>"
        for method, values in means.items()
    )
    head = f'<thead><tr><th scope="col">method</th>{head}</tr></thead>'
    return f'<table id="scores">{head}<tbody>{"".join(rows)}</tbody></table>'


def _case(case: ScoredFrame, seconds: float) -> dict[str, Any]:
    pictures = dict(zip(_SOURCES, (case.before, case.truth, case.after), strict=True)) | dict(case.pictures)
    height, width = case.truth.shape[:2]
    return {
        "number": case.target.number, "time": f"{seconds:.2f} s", "width": width, "height": height,
        "pictures": {name: _data_uri(picture) for name, picture in pictures.items()}, "scores": case.scores,
    }  # fmt: skip


def _data_uri(picture: Image8) -> str:
    suffix, quality = (".webp", _WEBP_QUALITY) if max(picture.shape[:2]) <= _WEBP_MOST_PX else (".png", None)
    encoded = encode_picture(Path(f"frame{suffix}"), Picture(picture), quality=quality)
    return f"data:image/{suffix[1:]};base64,{base64.b64encode(encoded).decode()}"


def _thinned(result: Comparison) -> tuple[list[int], Mapping[str, Mapping[str, list[float]]], int]:
    """Numbers and scores of at most `_MOST_POINTS` points, and how many frames each point is the minimum of."""
    each = -(-len(result.numbers) // _MOST_POINTS)

    def lowest(values: array[float]) -> list[float]:
        return [round(min(values[i : i + each]), 5) for i in range(0, len(values), each)]

    scores = {key: {name: lowest(values) for name, values in by.items()} for key, by in result.scores.items()}
    return list(result.numbers[::each]), scores, each
