"""Metrics of a picture against the ground truth: PSNR, SSIM, interpolation error, SSIMULACRA2.

Pictures are (H, W, 3) RGB of 8 bits: rounding is part of what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    import vapoursynth as vs

Image8 = NDArray[np.uint8]

EQUAL_DB = 100.0  # PSNR of two equal pictures, so that means stay finite
_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # stabilisers of SSIM, for a range of 0..1
_LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, as in RIFE's benchmark scripts


def psnr_db(picture: Image8, truth: Image8) -> float:
    """Peak signal-to-noise ratio over all pixels and channels; `EQUAL_DB` for equal pictures."""
    return _decibels(float(np.square(picture.astype(np.float64) - truth).mean()))


def luma_psnr_db(picture: Image8, truth: Image8) -> float:
    """PSNR of luma (BT.601 weights, full range, unrounded), as RIFE's HD benchmarks compute it."""
    return _decibels(float(np.square((picture.astype(np.float64) - truth) @ _LUMA).mean()))


def interpolation_error(picture: Image8, truth: Image8) -> float:
    """Mean absolute difference in 8-bit steps: the IE of RIFE's scripts. Middlebury's IE is the root mean square."""
    return float(np.abs(picture.astype(np.float64) - truth).mean())


def ssim(picture: Image8, truth: Image8) -> float:
    """Structural similarity with a Gaussian window over height, width and channels: 11 wide, sigma 1.5, in float64.

    Papers on frame interpolation report it as `ssim_matlab`: the picture is one volume, replicated at its borders.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
    """
    a, b = (torch.from_numpy(image.transpose(2, 0, 1).copy()).double() / 255 for image in (picture, truth))
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return float((luminance * structure).mean())


def ssimulacra2(picture: Image8, truth: Image8) -> float:
    """Perceptual score SSIMULACRA2: 100 is identical, 90 visually lossless, 70 high quality, 50 medium, 30 low.

    Raises:
        ModuleNotFoundError: VapourSynth or its plugin vszip is not installed.
    """
    import vapoursynth as vs  # here: the other metrics need none, and the import starts a core

    if not hasattr(vs.core, "vszip"):
        raise ModuleNotFoundError("no plugin vszip", name="vapoursynth-vszip")
    scored = vs.core.vszip.SSIMULACRA2(_node(truth), _node(picture))
    with scored.get_frame(0) as frame:
        return float(frame.props["SSIMULACRA2"])


# In the order of the tables.
METRICS: Mapping[str, Callable[[Image8, Image8], float]] = MappingProxyType(
    {
        "psnr_db": psnr_db,
        "luma_psnr_db": luma_psnr_db,
        "ssim": ssim,
        "ie": interpolation_error,
        "ssimulacra2": ssimulacra2,
    }
)


def _decibels(mean_square: float) -> float:
    return 10 * math.log10(255**2 / mean_square) if mean_square else EQUAL_DB


@lru_cache(maxsize=1)
def _window() -> tuple[float, ...]:
    weights = np.exp(-(np.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1) ** 2) / (2 * _WINDOW_SIGMA**2))
    return tuple(float(w) for w in weights / weights.sum())


@lru_cache(maxsize=1)
def _channel_window() -> Tensor:
    """The window along the three channels with replicated ends, as a (3, 3) matrix."""
    matrix = torch.zeros(3, 3, dtype=torch.float64)
    for channel in range(3):
        for offset, weight in enumerate(_window(), channel - _WINDOW_RADIUS):
            matrix[channel, min(max(offset, 0), 2)] += weight
    return matrix


def _blur(volume: Tensor) -> Tensor:
    """Convolve (3, H, W) float64 with the window in all three dimensions."""
    height, width = volume.shape[1:]
    padded = F.pad(volume, (_WINDOW_RADIUS,) * 4, mode="replicate")
    rows = volume.new_zeros(3, height, width + 2 * _WINDOW_RADIUS)
    for offset, weight in enumerate(_window()):
        rows.add_(padded[:, offset : offset + height], alpha=weight)
    both = torch.zeros_like(volume)
    for offset, weight in enumerate(_window()):
        both.add_(rows[:, :, offset : offset + width], alpha=weight)
    return torch.einsum("oc,chw->ohw", _channel_window(), both)


def _node(picture: Image8) -> vs.VideoNode:
    """A clip of one RGB24 frame; without colour tags the plugin takes it as sRGB."""
    import vapoursynth as vs  # here: as in `ssimulacra2`

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:  # noqa: ARG001
        frame = f.copy()
        for plane in range(3):
            np.asarray(frame[plane])[:] = picture[..., plane]
        return frame

    height, width = picture.shape[:2]
    blank = vs.core.std.BlankClip(width=width, height=height, format=vs.RGB24, length=1)
    return blank.std.ModifyFrame([blank], fill)
