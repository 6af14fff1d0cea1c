"""Scores as text and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vsrife.files import atomic_write


@dataclass(frozen=True, slots=True)
class Measure:
    """How a metric is shown."""

    label: str
    decimals: int
    unit: str = ""

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} {self.unit}".rstrip()


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "psnr_db": Measure("PSNR", 2, "dB"),
        "luma_psnr_db": Measure("luma PSNR", 2, "dB"),
        "ssim": Measure("SSIM", 4),
        "ie": Measure("IE", 3),
        "ssimulacra2": Measure("SSIMULACRA2", 2),
    }
)


def number(key: str, value: float) -> str:
    """Format a score as tables show it."""
    return f"{value:.{MEASURES[key].decimals}f}"


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Format `scores[method][metric]` as text: a line for each method, a column for each metric."""
    measures = list(next(iter(scores.values()), {}))
    head = ["method", *(MEASURES[key].heading for key in measures)]
    body = [[method, *(number(key, values[key]) for key in measures)] for method, values in scores.items()]
    return aligned([head, *body])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of equal length: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whose first line is `head`. The file appears when it is complete.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
