"""Stitching of two overlapping pictures with a timestep that rises from 0 to 1 across the overlap.

The idea is the RIFE authors'. Each column of the overlap is interpolated at a time of its own, so that objects with
parallax bend from one view into the other instead of appearing twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from vsrife.arrays import Pair
from vsrife.engine.keywords import NetworkKeywords
from vsrife.errors import OptionError

Pixels = NDArray[Any]

LEAST_OVERLAP_PX = 16
_COARSE_PX = 96  # longest side for the first estimate, at which slightly different views still correlate
_CANDIDATES = 12  # correlation peaks to check
_LEAST_CORRELATION = 0.5  # correlation of the overlap below which an offset is rejected


def stitch(
    a: Pixels, b: Pixels, offset: tuple[int, int] | None = None, **options: Unpack[NetworkKeywords]
) -> NDArray[Any]:
    """Stitch two pictures that overlap side by side or one above the other.

    Args:
        a: (H, W, C), as for `vsrife.interpolate`.
        b: any size; channels and dtype of `a`.
        offset: position of the top left corner of `b` in `a`, (x, y) in pixels, right and down. None, the default:
            estimated, which finds translation but neither rotation nor zoom.
        options: of the network, as for `vsrife.interpolate`.

    Returns:
        `a`, the overlap and `b`, cropped to the rows (or columns, if one is above the other) that both show. Outside
        the overlap the pixels are those of `a` and `b`.

    Raises:
        OptionError: the pictures do not overlap, or no offset was found.
    """
    if a.shape[2:] != b.shape[2:] or a.dtype != b.dtype:
        raise OptionError(
            f"pictures must have the same channels and dtype, got {a.shape} {a.dtype} and {b.shape} {b.dtype}; "
            "convert one of them"
        )
    x, y = find_offset(a, b) if offset is None else offset
    if abs(x) / a.shape[1] < abs(y) / a.shape[0]:
        return stitch(a.swapaxes(0, 1), b.swapaxes(0, 1), (y, x), **options).swapaxes(0, 1)
    if x < 0:
        return stitch(b, a, (-x, -y), **options)
    top, bottom = max(0, y), min(a.shape[0], y + b.shape[0])
    overlap = a.shape[1] - x
    if overlap < LEAST_OVERLAP_PX or bottom - top < LEAST_OVERLAP_PX or overlap >= b.shape[1]:
        raise OptionError(
            f"pictures must overlap by {LEAST_OVERLAP_PX} pixels or more and neither hold the other, got {a.shape[1]}x"
            f"{a.shape[0]} and {b.shape[1]}x{b.shape[0]} at offset {x},{y}; give another offset"
        )
    left, right = a[top:bottom], b[top - y : bottom - y]
    times = torch.linspace(0, 1, overlap).expand(bottom - top, overlap)
    middle = Pair(left[:, x:], right[:, :overlap], **options).at(times)
    return np.concatenate((left[:, :x], middle, right[:, overlap:]), axis=1)


def find_offset(a: Pixels, b: Pixels) -> tuple[int, int]:
    """Estimate the position of the top left corner of `b` in `a`, (x, y) in pixels.

    Raises:
        OptionError: they do not match at any offset.
    """
    grey_a, grey_b = (picture[..., :3].mean(-1, dtype=np.float32) for picture in (a, b))
    step = 1
    while max(*a.shape[:2], *b.shape[:2]) > _COARSE_PX * step:
        step *= 2
    small_a, small_b = _downscale(grey_a, step), _downscale(grey_b, step)
    best, x, y = max((_correlation(small_a, small_b, *offset), *offset) for offset in _peaks(small_a, small_b))
    if best < _LEAST_CORRELATION:
        raise OptionError(
            f"pictures must overlap, got no match at any offset (best {best:.2f} at {x * step},{y * step}); "
            "give the offset of B in A"
        )
    while step > 1:
        step //= 2
        small_a, small_b = _downscale(grey_a, step), _downscale(grey_b, step)
        around = [(2 * x + dx, 2 * y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
        _, x, y = max((_correlation(small_a, small_b, *offset), *offset) for offset in around)
    return x, y


def _downscale(grey: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Average `step` x `step` pixels."""
    height, width = (n // step * step for n in grey.shape)
    cells = grey[:height, :width].reshape(height // step, step, width // step, step)
    result: NDArray[np.float32] = cells.mean((1, 3))
    return result


def _peaks(a: NDArray[np.float32], b: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Yield the offsets with the highest phase correlation."""
    shape = tuple(n + m for n, m in zip(a.shape, b.shape, strict=True))
    cross = np.fft.rfft2(a - a.mean(), shape) * np.conj(np.fft.rfft2(b - b.mean(), shape))
    response = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), shape)
    for index in np.argpartition(response, -_CANDIDATES, axis=None)[-_CANDIDATES:]:
        y, x = np.unravel_index(index, shape)
        yield int(x if x < a.shape[1] else x - shape[1]), int(y if y < a.shape[0] else y - shape[0])


def _overlap(
    a: NDArray[np.float32], b: NDArray[np.float32], x: int, y: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Crop both pictures to their overlap at an offset."""
    left, top = max(0, x), max(0, y)
    right, bottom = min(a.shape[1], x + b.shape[1]), min(a.shape[0], y + b.shape[0])
    return a[top:bottom, left:right], b[top - y : bottom - y, left - x : right - x]


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32], x: int, y: int) -> float:
    """Correlation of the overlap, -1..1; -1 if the overlap is too small to judge."""
    part_a, part_b = _overlap(a, b, x, y)
    if part_a.size < a.size // 50 or not part_a.size:
        return -1.0
    part_a, part_b = part_a - part_a.mean(), part_b - part_b.mean()
    return float((part_a * part_b).sum() / max(np.sqrt((part_a**2).sum() * (part_b**2).sum()), 1e-6))
