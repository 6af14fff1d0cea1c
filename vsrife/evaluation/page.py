"""One page that shows a comparison: scores, pictures to lay over each other, a plot. It needs nothing but itself."""

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
from vsrife.evaluation.comparison import Case, Result
from vsrife.evaluation.metrics import Image8
from vsrife.evaluation.plots import looks
from vsrife.evaluation.strips import encoded
from vsrife.evaluation.tables import MEASURES, number

_TEMPLATE = Path(__file__).with_name("page.html")
_POINTS = 2000  # of a curve; longer ones show the lowest of each few frames
_WEBP = {"quality": 92, "method": 4}
_SIDES_MAX_PX = 16383  # what WebP can hold
_SOURCES = ("source before", "truth", "source after")


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows.

    Attributes:
        title: of the page.
        summary: a line below it.
        result: scores and the worst cases.
        gaps: first and last frame of each stretch that was left out.
        seconds: the time of a frame.
    """

    title: str
    summary: str
    result: Result
    gaps: Sequence[tuple[int, int]]
    seconds: Callable[[int], float]


def write_page(path: Path, page: Page) -> None:
    """Write the page; the file appears when it is whole."""
    numbers, scores, each = _thinned(page.result)
    note = "Shaded: left out. Dots: the worst frames above."
    if each > 1:
        note += f" A point is the lowest score of {each} frames."
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
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _methods(names: Sequence[str]) -> list[dict[str, Any]]:
    def dashes(pattern: tuple[int, tuple[int, ...]] | str) -> str:
        return "" if isinstance(pattern, str) else " ".join(str(2 * length) for length in pattern[1])

    return [
        {"name": name, "color": look.color, "dashes": dashes(look.dashes), "baseline": name in BASELINES}
        for name, look in looks(names).items()
    ]


def _table(result: Result) -> str:
    """The means, the best of each measure marked."""
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


def _case(case: Case, seconds: float) -> dict[str, Any]:
    pictures = dict(zip(_SOURCES, (case.before, case.truth, case.after), strict=True)) | dict(case.pictures)
    height, width = case.truth.shape[:2]
    return {
        "number": case.target.number, "time": f"{seconds:.2f} s", "width": width, "height": height,
        "pictures": {name: _data_uri(picture) for name, picture in pictures.items()}, "scores": case.scores,
    }  # fmt: skip


def _data_uri(picture: Image8) -> str:
    """Nearly lossless, and a third of a PNG."""
    fmt, options = ("WEBP", _WEBP) if max(picture.shape[:2]) <= _SIDES_MAX_PX else ("PNG", {})
    payload = base64.b64encode(encoded(picture, fmt, **options)).decode()
    return f"data:image/{fmt.lower()};base64,{payload}"


def _thinned(result: Result) -> tuple[list[int], Mapping[str, Mapping[str, list[float]]], int]:
    """Numbers and scores of at most `_POINTS` points, and of how many frames a point is the lowest."""
    each = -(-len(result.numbers) // _POINTS)

    def lowest(values: array[float]) -> list[float]:
        return [round(min(values[i : i + each]), 5) for i in range(0, len(values), each)]

    scores = {key: {name: lowest(values) for name, values in by.items()} for key, by in result.scores.items()}
    return list(result.numbers[::each]), scores, each
