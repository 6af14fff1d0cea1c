"""Conversion of planes to the RGB that the network reads, and of RGB differences back to planes.

Output is made from the planes themselves, at their own bit depth and subsampling: no frame is converted back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vsrife.engine.formats import LUMA_WEIGHTS, YCGCO, Colorimetry, PictureFormat
from vsrife.ops.protocol import Axis, Ops, RgbTransform
from vsrife.ops.reference import reference


@dataclass(frozen=True, slots=True)
class Grid:
    """Sampling positions along two axes."""

    rows: Axis
    columns: Axis

    def read(self, image: Tensor, ops: Ops) -> Tensor:
        """Sample `image` (1, C, H, W) at the positions."""
        return ops.sample(image, self.rows, self.columns)


@lru_cache(maxsize=32)
def luma_in_chroma(fmt: PictureFormat, color: Colorimetry, device: torch.device) -> Grid:
    """Positions of the luma samples in the chroma planes."""
    x, y = color.chroma_offset(fmt)
    chroma_height, chroma_width = fmt.height >> fmt.subsampling_h, fmt.width >> fmt.subsampling_w
    rows = (torch.arange(fmt.height, dtype=torch.float64) - y) / (1 << fmt.subsampling_h)
    columns = (torch.arange(fmt.width, dtype=torch.float64) - x) / (1 << fmt.subsampling_w)
    return Grid(_axis(rows, chroma_height, device), _axis(columns, chroma_width, device))


@lru_cache(maxsize=32)
def chroma_in_luma(fmt: PictureFormat, color: Colorimetry, device: torch.device) -> Grid:
    """Positions of the chroma samples in the luma plane."""
    x, y = color.chroma_offset(fmt)
    rows = torch.arange(fmt.height >> fmt.subsampling_h, dtype=torch.float64) * (1 << fmt.subsampling_h) + y
    columns = torch.arange(fmt.width >> fmt.subsampling_w, dtype=torch.float64) * (1 << fmt.subsampling_w) + x
    return Grid(_axis(rows, fmt.height, device), _axis(columns, fmt.width, device))


@lru_cache(maxsize=32)
def resized(source: PictureFormat, target: PictureFormat, device: torch.device) -> Grid:
    """Positions of the pixels of `target` in `source`, a frame of another size that shows the same."""
    rows = (torch.arange(target.height, dtype=torch.float64) + 0.5) * source.height / target.height - 0.5
    columns = (torch.arange(target.width, dtype=torch.float64) + 0.5) * source.width / target.width - 0.5
    return Grid(_axis(rows, source.height, device), _axis(columns, source.width, device))


def _axis(positions: Tensor, size: int, device: torch.device) -> Axis:
    return Axis.at(positions, size).to(device, torch.float32)


@lru_cache(maxsize=32)
def rgb_transform(
    fmt: PictureFormat, color: Colorimetry, device: torch.device, dtype: torch.dtype = torch.float32
) -> RgbTransform:
    """The linear map from the samples of a format to RGB, nominally 0..1.

    Chroma is enlarged by bilinear interpolation at the luma samples' positions. Transfer and primaries stay as they
    are: motion does not depend on them.
    """
    scale, black = luma_range(fmt, color)
    rgb, steps, zeros = torch.eye(3, dtype=torch.float64), [1 / scale] * 3, [black] * 3
    if fmt.family == "GRAY":
        rgb, steps, zeros = rgb.sum(1, keepdim=True), steps[:1], zeros[:1]
    elif fmt.family == "YUV":
        red, green, blue = rgb
        rgb = torch.linalg.inv(torch.stack(_to_yuv(red, green, blue, color.matrix)))
        steps[1:] = [1.0 if fmt.floating else 1 / _chroma_range(fmt, color)] * 2
        zeros[1:] = [0.0 if fmt.floating else float(1 << (fmt.bits - 1))] * 2
    weight = rgb * torch.tensor(steps, dtype=torch.float64)
    bias = -(weight @ torch.tensor(zeros, dtype=torch.float64))
    grid = luma_in_chroma(fmt, color, device) if fmt.subsampled(fmt.num_planes - 1) else None
    axes = () if grid is None else (grid.rows.to(device, dtype), grid.columns.to(device, dtype))
    return RgbTransform(weight.to(device, dtype), bias.to(device, dtype), *axes)


def to_rgb(planes: Sequence[Tensor], fmt: PictureFormat, color: Colorimetry, ops: Ops = reference) -> Tensor:
    """Convert planes to RGB.

    Args:
        planes: per plane (1, 1, h, w), in the clip's own samples.
        fmt: the clip's format.
        color: how to interpret the samples.
        ops: that convert.

    Returns:
        (1, 3, H, W) float32 RGB, nominally 0..1, not clamped.
    """
    image = torch.empty((1, 3, fmt.height, fmt.width), device=planes[0].device)
    return ops.planes_to_rgb(planes, rgb_transform(fmt, color, image.device), False, image)


def difference_in_planes(
    difference: Tensor, fmt: PictureFormat, color: Colorimetry, ops: Ops = reference
) -> tuple[Tensor, ...]:
    """Convert a difference of RGB to a difference of planes.

    Args:
        difference: (1, 3, H, W) to add to RGB of 0..1.
        fmt: the clip's format.
        color: how to interpret its samples.
        ops: that sample the difference at the chroma samples' positions.

    Returns:
        Per plane (1, 1, h, w), to add to its samples' codes.
    """
    scale, _ = luma_range(fmt, color)
    if fmt.family == "RGB":
        return tuple(torch.split(difference * scale, 1, dim=1))
    red, green, blue = torch.split(difference, 1, dim=1)
    luma, *chroma = _to_yuv(red, green, blue, color.matrix)
    if fmt.family == "GRAY":
        return (luma * scale,)
    if fmt.subsampled(1):
        grid = chroma_in_luma(fmt, color, difference.device)
        chroma = [grid.read(plane, ops) for plane in chroma]
    chroma_scale = 1.0 if fmt.floating else _chroma_range(fmt, color)
    return luma * scale, *(plane * chroma_scale for plane in chroma)


def _to_yuv(red: Tensor, green: Tensor, blue: Tensor, matrix: int) -> tuple[Tensor, Tensor, Tensor]:
    """Convert R, G, B to luma 0..1 and chroma -0.5..0.5."""
    if matrix == YCGCO:
        base = (red + blue) / 2
        return (green + base) / 2, (green - base) / 2, (red - blue) / 2
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    return luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))


def luma_range(fmt: PictureFormat, color: Colorimetry) -> tuple[float, float]:
    """White minus black, and black, of luma and RGB in the clip's own codes."""
    if fmt.floating:
        return 1.0, 0.0
    step = 1 << (fmt.bits - 8)
    return (float(fmt.peak), 0.0) if color.full_range else (219.0 * step, 16.0 * step)


def _chroma_range(fmt: PictureFormat, color: Colorimetry) -> float:
    if color.full_range:
        return float(fmt.peak)
    # YCgCo comes from R, G, B that are quantised already: H.273 gives its chroma the range of luma.
    return (219.0 if color.matrix == YCGCO else 224.0) * (1 << (fmt.bits - 8))


def to_samples(values: Tensor, fmt: PictureFormat) -> Tensor:
    """Convert float values in the clip's codes to its samples; integers are rounded and clamped to the range."""
    if fmt.floating:
        return values.to(fmt.dtype)
    return values.round().clamp_(0, fmt.peak).to(fmt.dtype)
