"""Strips: source, result, truth and error of each method side by side, as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vsrife.evaluation.metrics import Image8
from vsrife.images.files import Picture, write_picture
from vsrife.images.panels import Panel, draw_panels

ERROR_GAIN = 4


def error_picture(picture: Image8, truth: Image8) -> Image8:
    """The absolute difference, amplified `ERROR_GAIN` times; black is no error."""
    error = np.abs(picture.astype(np.int16) - truth) * ERROR_GAIN
    result: Image8 = np.minimum(error, 255).astype(np.uint8)
    return result


def method_row(source: Image8, truth: Image8, name: str, picture: Image8) -> list[Panel]:
    """Source, result, truth and error of one method."""
    return [
        Panel("source before", source),
        Panel(name, picture),
        Panel("truth", truth),
        Panel(f"error x{ERROR_GAIN}", error_picture(picture, truth)),
    ]


def write_strip(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """Write rows of panels as a picture file. The file appears when it is complete.

    Raises:
        MediaError: it cannot be written.
    """
    write_picture(path, Picture(draw_panels(rows)))
