"""Pictures in a grid, each with its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PANEL_WIDTH_PX = 640  # wider pictures are reduced
_GAP_PX, _CAPTION_PX, _FONT_PX = 6, 24, 15
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True, slots=True)
class Panel:
    """A captioned picture, (H, W, 3) RGB of 8 bits."""

    caption: str
    picture: NDArray[np.uint8]


def draw_panels(rows: Sequence[Sequence[Panel]]) -> NDArray[np.uint8]:
    """Lay out panels of equal size in rows, captions above; gives (H, W, 3) RGB of 8 bits."""
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
    return np.asarray(canvas)
