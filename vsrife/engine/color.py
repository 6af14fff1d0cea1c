"""Frame planes and what they mean: format, colour, chroma position; and the RGB that the network sees of them.

The network's RGB is only looked at. What is shown is made from the planes themselves, at their own depth and
subsampling, so nothing here converts back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.dispatch import Ops
from vsrife.ops.reference import Axis, RgbTransform

# H.273 matrix coefficients: kr and kb of the luma equation.
_LUMA_WEIGHTS: Mapping[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470 BG
    6: (0.299, 0.114),  # SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
    10: (0.2627, 0.0593),  # BT.2020, constant luminance: near enough to look for motion in
}
_YCGCO = 8
_HD_LINES = 720  # pictures of fewer lines count as SD when nothing tells the matrix
_CHROMA_LEFT, _CHROMA_CENTER, _CHROMA_TOP_LEFT, _CHROMA_TOP, _CHROMA_BOTTOM_LEFT = range(5)


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """Size and sample format of a clip.

    Attributes:
        family: what the planes are.
        bits: per sample, 8 to 16; 16 or 32 for float.
        floating: float samples: luma and RGB nominally 0..1, chroma -0.5..0.5.
        width, height: of the first plane in pixels.
        subsampling_w, subsampling_h: log2 of how much smaller the chroma planes are.
    """

    family: Literal["YUV", "GRAY", "RGB"]
    bits: int
    floating: bool
    width: int
    height: int
    subsampling_w: int = 0
    subsampling_h: int = 0

    @property
    def peak(self) -> int:
        """The largest sample value of an integer format."""
        return (1 << self.bits) - 1

    @property
    def num_planes(self) -> int:
        return 1 if self.family == "GRAY" else 3

    @property
    def dtype(self) -> torch.dtype:
        """Of a plane's samples."""
        if self.floating:
            return torch.float16 if self.bits == 16 else torch.float32
        return torch.uint8 if self.bits == 8 else torch.uint16

    def subsampled(self, plane: int) -> bool:
        return plane > 0 and (self.subsampling_w > 0 or self.subsampling_h > 0)


@dataclass(frozen=True, slots=True)
class Colorimetry:
    """How the samples of one frame are to be read.

    Attributes:
        matrix: H.273 number.
        full_range: whether the samples use the whole range of codes.
        chroma_location: 0 left, 1 center, 2 top left, 3 top, 4 bottom left, 5 bottom.
    """

    matrix: int
    full_range: bool
    chroma_location: int

    @classmethod
    def from_props(cls, props: Mapping[str, Any], fmt: PictureFormat) -> Colorimetry:
        """Read frame props; what they do not say is guessed as players do.

        `_Range` (1 full, 0 limited) goes before the older `_ColorRange` (0 full, 1 limited). Without a usable `_Matrix`
        (or mpv's `_ColorSpace`), pictures below 720 lines are BT.601 and others BT.709. Without a range RGB is full
        and the rest is limited.
        """
        if "_Range" in props:
            full = int(props["_Range"]) == 1
        elif "_ColorRange" in props:
            full = int(props["_ColorRange"]) == 0
        else:
            full = fmt.family == "RGB"
        tagged = [int(props[key]) for key in ("_Matrix", "_ColorSpace") if key in props]
        known = [m for m in tagged if m in _LUMA_WEIGHTS or m == _YCGCO]
        location = int(props.get("_ChromaLocation", _CHROMA_LEFT))
        return cls(
            matrix=known[0] if known else 6 if fmt.height < _HD_LINES else 1,
            full_range=full,
            chroma_location=location if 0 <= location <= 5 else _CHROMA_LEFT,
        )

    def chroma_offset(self, fmt: PictureFormat) -> tuple[float, float]:
        """Where the first chroma sample lies, in luma samples right of and below the first luma sample."""
        width, height = 1 << fmt.subsampling_w, 1 << fmt.subsampling_h
        location = self.chroma_location
        x = 0.0 if location in (_CHROMA_LEFT, _CHROMA_TOP_LEFT, _CHROMA_BOTTOM_LEFT) else (width - 1) / 2
        if location in (_CHROMA_LEFT, _CHROMA_CENTER):
            y = (height - 1) / 2
        else:
            y = 0.0 if location in (_CHROMA_TOP_LEFT, _CHROMA_TOP) else height - 1.0
        return x, y


@dataclass(frozen=True, slots=True)
class Grid:
    """Two axes of positions: rows, then columns."""

    rows: Axis
    columns: Axis

    def read(self, image: Tensor, ops: Ops) -> Tensor:
        """`image` (1, C, H, W) at the grid's positions."""
        return ops.sample(image, self.rows, self.columns)


@lru_cache(maxsize=32)
def luma_in_chroma(fmt: PictureFormat, color: Colorimetry, device: torch.device) -> Grid:
    """Where each luma sample lies in the chroma planes."""
    x, y = color.chroma_offset(fmt)
    chroma_height, chroma_width = fmt.height >> fmt.subsampling_h, fmt.width >> fmt.subsampling_w
    rows = (torch.arange(fmt.height, dtype=torch.float64) - y) / (1 << fmt.subsampling_h)
    columns = (torch.arange(fmt.width, dtype=torch.float64) - x) / (1 << fmt.subsampling_w)
    return Grid(_axis(rows, chroma_height, device), _axis(columns, chroma_width, device))


@lru_cache(maxsize=32)
def chroma_in_luma(fmt: PictureFormat, color: Colorimetry, device: torch.device) -> Grid:
    """Where each chroma sample lies in the luma plane."""
    x, y = color.chroma_offset(fmt)
    rows = torch.arange(fmt.height >> fmt.subsampling_h, dtype=torch.float64) * (1 << fmt.subsampling_h) + y
    columns = torch.arange(fmt.width >> fmt.subsampling_w, dtype=torch.float64) * (1 << fmt.subsampling_w) + x
    return Grid(_axis(rows, fmt.height, device), _axis(columns, fmt.width, device))


@lru_cache(maxsize=32)
def resized(source: PictureFormat, target: PictureFormat, device: torch.device) -> Grid:
    """Where each luma sample of a picture lies in one of another size that shows the same."""
    rows = (torch.arange(target.height, dtype=torch.float64) + 0.5) * source.height / target.height - 0.5
    columns = (torch.arange(target.width, dtype=torch.float64) + 0.5) * source.width / target.width - 0.5
    return Grid(_axis(rows, source.height, device), _axis(columns, source.width, device))


def _axis(positions: Tensor, size: int, device: torch.device) -> Axis:
    return Axis.at(positions, size).to(device, torch.float32)


@lru_cache(maxsize=32)
def rgb_transform(
    fmt: PictureFormat, color: Colorimetry, device: torch.device, dtype: torch.dtype = torch.float32
) -> RgbTransform:
    """How RGB, nominally 0..1, follows from the samples of a format.

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
    """What the network sees of a frame.

    Args:
        planes: per plane (1, 1, h, w), in the clip's own samples.
        fmt: the clip's format.
        color: how to read the samples.
        ops: to read them with.

    Returns:
        (1, 3, H, W) float32 RGB, nominally 0..1, not clamped.
    """
    image = torch.empty((1, 3, fmt.height, fmt.width), device=planes[0].device)
    return ops.planes_to_rgb(planes, rgb_transform(fmt, color, image.device), False, image)


def difference_in_planes(
    difference: Tensor, fmt: PictureFormat, color: Colorimetry, ops: Ops = reference
) -> tuple[Tensor, ...]:
    """What a difference of RGB amounts to in the planes of a format.

    Args:
        difference: (1, 3, H, W) to add to RGB of 0..1.
        fmt: the clip's format.
        color: how its samples are read.
        ops: to read the difference at the chroma samples' positions with.

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
    """R, G, B to luma 0..1 and chroma -0.5..0.5."""
    if matrix == _YCGCO:
        base = (red + blue) / 2
        return (green + base) / 2, (green - base) / 2, (red - blue) / 2
    kr, kb = _LUMA_WEIGHTS[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    return luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))


def luma_range(fmt: PictureFormat, color: Colorimetry) -> tuple[float, float]:
    """Distance between black and white of luma and RGB, and black, in the clip's own codes."""
    if fmt.floating:
        return 1.0, 0.0
    step = 1 << (fmt.bits - 8)
    return (float(fmt.peak), 0.0) if color.full_range else (219.0 * step, 16.0 * step)


def _chroma_range(fmt: PictureFormat, color: Colorimetry) -> float:
    if color.full_range:
        return float(fmt.peak)
    # YCgCo comes from R, G, B that are quantised already: H.273 gives its chroma the range of luma.
    return (219.0 if color.matrix == _YCGCO else 224.0) * (1 << (fmt.bits - 8))


def to_samples(values: Tensor, fmt: PictureFormat) -> Tensor:
    """Float values in the clip's codes to its own samples, rounded and kept in range where they are integers."""
    if fmt.floating:
        return values.to(fmt.dtype)
    return values.round().clamp_(0, fmt.peak).to(fmt.dtype)
