"""Make the picture of stitching in docs/guide/pictures.md: two overlapping views, blended, and stitched.

    python examples/make_stitch.py -o docs/stitch.webp

The views are parts of two frames of the sample, between which the camera moved and the cat came nearer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vsrife.images.files import Picture, write_picture
from vsrife.images.stitching import find_offset, stitch

SAMPLE = Path(__file__).with_name("sample.mp4")
FRAMES = 2, 8
GAP_PX = 8
QUALITY = 70


def read_views() -> tuple[NDArray[Any], NDArray[Any]]:
    """The left part of one frame and the right part of the other."""
    with av.open(str(SAMPLE)) as file:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(max(FRAMES) + 1), file.decode(video=0))]  # noqa: B905
    left, right = (frames[n] for n in FRAMES)
    return left[:, :400], right[:, 260:]


def blended(a: NDArray[Any], b: NDArray[Any], x: int, y: int) -> NDArray[Any]:
    """What fading from one view to the other makes of them; B lies right of A."""
    top, bottom, overlap = max(0, y), min(len(a), len(b) + y), a.shape[1] - x
    left, right = a[top:bottom], b[top - y : bottom - y]
    share = np.linspace(0, 1, overlap)[:, None]
    mixed = (left[:, x:] * (1 - share) + right[:, :overlap] * share).round().astype(a.dtype)
    return np.concatenate((left[:, :x], mixed, right[:, overlap:]), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the picture of stitching.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    a, b = read_views()
    x, y = find_offset(a, b)
    rows = blended(a, b, x, y), stitch(a, b, (x, y), model=arguments.model)
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    write_picture(arguments.output, Picture(np.concatenate((rows[0], gap, rows[1]))), quality=QUALITY)


if __name__ == "__main__":
    main()
