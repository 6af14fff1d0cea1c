"""Optical flow as files: Middlebury's .flo, and colour-coded pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsrife.errors import MediaError
from vsrife.files import atomic_write

_MAGIC = np.float32(202021.25)  # the bytes "PIEH" as a float: the file is little-endian
_HUES = ((15, "RY"), (6, "YG"), (4, "GC"), (11, "CB"), (13, "BM"), (6, "MR"))  # steps from one colour to the next
_COLOURS = {"R": (1, 0, 0), "Y": (1, 1, 0), "G": (0, 1, 0), "C": (0, 1, 1), "B": (0, 0, 1), "M": (1, 0, 1)}


def write_flo(path: Path, flow: NDArray[np.float32]) -> None:
    """Write a flow, (H, W, 2) in pixels, x before y, as a Middlebury .flo file.

    Raises:
        MediaError: the file cannot be written.

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.
    """
    height, width = flow.shape[:2]
    with atomic_write(path, error=MediaError) as part:
        part.write_bytes(
            _MAGIC.astype("<f4").tobytes() + np.array([width, height], "<i4").tobytes() + flow.astype("<f4").tobytes()
        )


def flow_colours(flow: NDArray[Any], largest_px: float | None = None) -> NDArray[np.uint8]:
    """Colour-code a flow, (H, W, 2), as an RGB picture with Middlebury's colour wheel.

    Hue is direction: red right, yellow down, cyan left, blue up. Saturation is length: white is static, full colour
    moves by `largest_px` pixels, longer vectors are darker. None, the default: the longest vector.
    """
    x, y = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    length = np.hypot(x, y)
    radius = length / max(float(length.max()) if largest_px is None else largest_px, 1e-6)
    wheel = _wheel()
    position = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(position).astype(int)
    weight = (position - low)[..., None]
    colour = wheel[low] * (1 - weight) + wheel[(low + 1) % len(wheel)] * weight
    inside = (radius <= 1)[..., None]
    shown = np.where(inside, 1 - radius[..., None] * (1 - colour), 0.75 * colour)
    result: NDArray[np.uint8] = np.floor(255 * shown).astype(np.uint8)
    return result


@lru_cache(maxsize=1)
def _wheel() -> NDArray[np.float64]:
    """(55, 3) RGB around the circle, as the Middlebury colour coding spaces them."""
    parts = [np.linspace(_COLOURS[ends[0]], _COLOURS[ends[1]], steps, endpoint=False) for steps, ends in _HUES]
    return np.concatenate(parts)
