"""Strips: pictures side by side with captions, and what was missed made visible. Needs Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vsrife.evaluation.metrics import Image8

if TYPE_CHECKING:
    from PIL import Image

ERROR_GAIN = 4
PANEL_WIDTH_PX = 640  # wider pictures are reduced
_GAP_PX, _CAPTION_PX, _FONT_PX = 6, 24, 15
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of a strip."""

    caption: str
    picture: Image8  # (H, W, 3) RGB


def error_picture(picture: Image8, truth: Image8) -> Image8:
    """The absolute difference, `ERROR_GAIN` times as strong; black is no error."""
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


def strip(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Panels of one size in rows, each with its caption above."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0][0].picture.shape[:2]
    factor = min(1.0, PANEL_WIDTH_PX / width)
    size = (round(width * factor), max(1, round(height * factor)))
    step_x, step_y = size[0] + _GAP_PX, size[1] + _CAPTION_PX + _GAP_PX
    canvas = Image.new("RGB", (step_x * max(map(len, rows)) + _GAP_PX, step_y * len(rows) + _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_PX)
    for j, row in enumerate(rows):
        for i, panel in enumerate(row):
            x, y = _GAP_PX + i * step_x, j * step_y
            draw.text((x, y + _CAPTION_PX // 2), panel.caption, fill=_INK, font=font, anchor="lm")
            canvas.paste(Image.fromarray(panel.picture).resize(size, Image.Resampling.BOX), (x, y + _CAPTION_PX))
    return canvas


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file that appears when it is whole."""
    unfinished = path.with_name(f"{path.name}.part")
    picture.save(unfinished, format="PNG")
    unfinished.replace(path)


def encoded(picture: Image8, fmt: str, **options: object) -> bytes:
    """The bytes of an image file, such as of "WEBP"."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=fmt, **options)
    return buffer.getvalue()
