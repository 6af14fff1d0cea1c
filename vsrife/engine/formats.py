"""Sample format and colorimetry of a clip's frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

# H.273 matrix coefficients: kr and kb of the luma equation.
LUMA_WEIGHTS: Mapping[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470 BG
    6: (0.299, 0.114),  # SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
    10: (0.2627, 0.0593),  # BT.2020, constant luminance: close enough for estimating motion
}
YCGCO = 8
_HD_LINES = 720  # frames of fewer lines are SD where the matrix is unknown
_CHROMA_LEFT, _CHROMA_CENTER, _CHROMA_TOP_LEFT, _CHROMA_TOP, _CHROMA_BOTTOM_LEFT = range(5)


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """Size and sample format of a clip.

    Attributes:
        family: of the planes.
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
    """How to interpret the samples of a frame.

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
        """Read frame props; players' defaults apply where they are absent.

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
        matrices = [m for m in tagged if m in LUMA_WEIGHTS or m == YCGCO]
        location = int(props.get("_ChromaLocation", _CHROMA_LEFT))
        return cls(
            matrix=matrices[0] if matrices else 6 if fmt.height < _HD_LINES else 1,
            full_range=full,
            chroma_location=location if 0 <= location <= 5 else _CHROMA_LEFT,
        )

    def chroma_offset(self, fmt: PictureFormat) -> tuple[float, float]:
        """Position of the first chroma sample, in luma samples to the right of and below the first luma sample."""
        width, height = 1 << fmt.subsampling_w, 1 << fmt.subsampling_h
        location = self.chroma_location
        x = 0.0 if location in (_CHROMA_LEFT, _CHROMA_TOP_LEFT, _CHROMA_BOTTOM_LEFT) else (width - 1) / 2
        if location in (_CHROMA_LEFT, _CHROMA_CENTER):
            y = (height - 1) / 2
        else:
            y = 0.0 if location in (_CHROMA_TOP_LEFT, _CHROMA_TOP) else height - 1.0
        return x, y
