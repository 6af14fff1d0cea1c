"""Make the picture of the README: two frames of the sample clip and the new one between them.

    python examples/make_picture.py -o docs/before_after.webp

Needs vsrife, PyAV and Pillow. Reads frames 51 and 52 of `examples/sample.mp4`, counted from 0: the flying saucer
moves by 21 pixels and turns by 6 degrees in front of cables, poles and grass that move at different speeds.
"""

import argparse
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import vsrife

CLIP = Path(__file__).with_name("sample.mp4")
LEFT = 51
"""The earlier of the two source frames."""

PANEL_LEFT, PANEL_TOP = 130, 60
PANEL_WIDTH, PANEL_HEIGHT = 424, 239
"""The part of the frame that is shown, pixel for pixel: saucer, rocket, poles and cables."""

GAP_PX = 4
CAPTION_PX = 26
FONT_PX = 14
PAPER, INK, ACCENT = (255, 255, 255), (60, 66, 78), (200, 66, 32)

type Frame = NDArray[np.uint8]


def read_pair(path: Path, left: int) -> tuple[Frame, Frame]:
    """Frames `left` and `left + 1` of a video file, each (H, W, 3), RGB.

    Raises:
        ValueError: the file has no such frames.
    """
    found: list[Frame] = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= left:
                found.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
            if len(found) == 2:
                return found[0], found[1]
    raise ValueError(f"{path} ends before frame {left + 1}")


def lay_out(panels: list[tuple[str, Frame, bool]]) -> Image.Image:
    """Panels side by side with a caption below each; a panel marked true is framed and captioned in colour."""
    width = len(panels) * PANEL_WIDTH + (len(panels) - 1) * GAP_PX
    page = Image.new("RGB", (width, PANEL_HEIGHT + CAPTION_PX), PAPER)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(FONT_PX)
    for column, (text, frame, marked) in enumerate(panels):
        left = column * (PANEL_WIDTH + GAP_PX)
        shown = frame[PANEL_TOP : PANEL_TOP + PANEL_HEIGHT, PANEL_LEFT : PANEL_LEFT + PANEL_WIDTH]
        page.paste(Image.fromarray(shown), (left, 0))
        if marked:
            pen.rectangle((left, 0, left + PANEL_WIDTH - 1, PANEL_HEIGHT - 1), outline=ACCENT, width=2)
        middle = (left + PANEL_WIDTH / 2, PANEL_HEIGHT + CAPTION_PX / 2)
        pen.text(middle, text, font=font, fill=ACCENT if marked else INK, anchor="mm")
    return page


def main() -> None:
    """Read the command line, interpolate and write the picture."""
    parser = argparse.ArgumentParser(description="Make the picture of the README.")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="a .png file, or .webp for a fifth of the size"
    )
    output: Path = parser.parse_args().output

    before, after = read_pair(CLIP, LEFT)
    between = vsrife.interpolate(before, after, timestep=0.5)
    page = lay_out(
        [
            (f"frame {LEFT}", before, False),
            (f"new, at {LEFT + 0.5}", between, True),
            (f"frame {LEFT + 1}", after, False),
        ]
    )
    page.save(output, optimize=True, quality=92)


if __name__ == "__main__":
    main()
