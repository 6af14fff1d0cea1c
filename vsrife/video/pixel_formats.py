"""Pixel formats: FFmpeg's names, VapourSynth's formats, and conversion from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import av
import vapoursynth as vs

from vsrife.errors import OptionError, shown

UNSPECIFIED = 2  # matrix, primaries and transfer, in VapourSynth as in FFmpeg

_SUBSAMPLING = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (0, 1): "440", (2, 2): "410", (2, 0): "411"}
_PROBE_PX = 16
_HD_HEIGHT_PX = 720  # from this height on unlabelled YUV is taken for BT.709, below for BT.601


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A planar pixel format.

    Attributes:
        family: YUV, GRAY or RGB.
        bits: per sample.
        floating: floating point samples.
        subsampling_w, subsampling_h: binary logarithm of luma size over chroma size; 0 without chroma.
        alpha: has an alpha plane.
    """

    family: Literal["YUV", "GRAY", "RGB"]
    bits: int
    floating: bool
    subsampling_w: int
    subsampling_h: int
    alpha: bool = False

    def preserves(self, other: PixelFormat) -> bool:
        """Whether conversion from `other` to this format loses nothing but rounding."""
        family = self.family == other.family or (self.family, other.family) == ("YUV", "GRAY")
        samples = self.floating == other.floating and self.bits >= other.bits
        chroma = other.family == "GRAY" or (
            self.subsampling_w <= other.subsampling_w and self.subsampling_h <= other.subsampling_h
        )
        return family and samples and chroma and self.alpha >= other.alpha

    def distance(self, other: PixelFormat) -> tuple[int, ...]:
        """A sort key: the smallest is the format nearest to `other`. For grey, less chroma is nearer."""
        chroma = abs(self.subsampling_w - other.subsampling_w) + abs(self.subsampling_h - other.subsampling_h)
        if other.family == "GRAY":
            chroma = -chroma
        return int(self.family != other.family), int(self.alpha != other.alpha), abs(self.bits - other.bits), chroma

    @property
    def name(self) -> str:
        """FFmpeg's name, little-endian."""
        alpha = "a" if self.alpha else ""
        if self.floating:
            base = {"GRAY": "gray", "RGB": f"gbr{alpha}p", "YUV": "yuv"}[self.family]
            return f"{base}f{self.bits}le"
        depth = f"{self.bits}le" if self.bits > 8 else ""
        if self.family == "GRAY":
            return f"gray{depth}"
        if self.family == "RGB":
            return f"gbr{alpha}p{depth}"
        return f"yuv{alpha}{_SUBSAMPLING[self.subsampling_w, self.subsampling_h]}p{depth}"

    @property
    def vapoursynth_id(self) -> int:
        """VapourSynth's format id, without alpha."""
        family = {"YUV": vs.YUV, "GRAY": vs.GRAY, "RGB": vs.RGB}[self.family]
        sample = vs.FLOAT if self.floating else vs.INTEGER
        return int(vs.core.query_video_format(family, sample, self.bits, self.subsampling_w, self.subsampling_h).id)


def clip_format(fmt: vs.VideoFormat, alpha: bool = False) -> PixelFormat:
    """The pixel format of a clip, with alpha if an alpha clip goes with it."""
    families: dict[Any, Literal["YUV", "GRAY", "RGB"]] = {vs.YUV: "YUV", vs.GRAY: "GRAY", vs.RGB: "RGB"}
    floating = fmt.sample_type == vs.FLOAT
    return PixelFormat(
        families[fmt.color_family], fmt.bits_per_sample, floating, fmt.subsampling_w, fmt.subsampling_h, alpha
    )


def named_format(name: str) -> PixelFormat | None:
    """The planar equivalent of an FFmpeg pixel format; None if there is no such format, or VapourSynth has no equal."""
    if name not in av.video.format.names:
        return None
    fmt = av.VideoFormat(name, _PROBE_PX, _PROBE_PX)
    parts = [part for part in fmt.components if not part.is_alpha]
    if fmt.has_palette or fmt.is_bayer or len(parts) not in (1, 3) or len({part.bits for part in parts}) > 1:
        return None
    family: Literal["YUV", "GRAY", "RGB"] = "RGB" if fmt.is_rgb else "YUV" if len(parts) == 3 else "GRAY"
    across, down = (0, 0) if family != "YUV" else (_log2_ratio(parts[1].width), _log2_ratio(parts[1].height))
    alpha = len(parts) < len(fmt.components)
    bits = parts[0].bits
    floating = name.removesuffix("le").removesuffix("be").endswith(f"f{bits}")
    if (family == "GRAY" and alpha) or bits < 8 or (family == "YUV" and floating):
        return None
    return PixelFormat(family, bits, floating, across, down, alpha)


def _log2_ratio(chroma_px: int) -> int:
    return (_PROBE_PX // chroma_px).bit_length() - 1


def parse_format(name: str) -> PixelFormat:
    """The pixel format of a value of --pix-fmt.

    Raises:
        OptionError: FFmpeg has none of this name, or it has no planar equivalent in VapourSynth.
    """
    fmt = named_format(name)
    if fmt is None:
        raise OptionError(
            f"--pix-fmt must be a planar pixel format of FFmpeg such as yuv420p or yuv444p10le, got {shown(name)}"
        )
    return fmt


def matrix_of(props: Mapping[str, Any], height: int) -> int:
    """The matrix between RGB and YUV: the prop `_Matrix`, or BT.709 from 720 lines on and BT.601 below."""
    matrix = int(props.get("_Matrix", UNSPECIFIED))
    return matrix if matrix not in (0, UNSPECIFIED) else 1 if height >= _HD_HEIGHT_PX else 6


def convert(clip: vs.VideoNode, target: PixelFormat, props: Mapping[str, Any]) -> vs.VideoNode:
    """Convert a clip to a pixel format, apart from alpha; lower depths are dithered."""
    if clip.format.id == target.vapoursynth_id:
        return clip
    extra: dict[str, Any] = {}
    if clip.format.color_family == vs.RGB and target.family != "RGB":
        extra["matrix"] = matrix_of(props, clip.height)
        extra["range"] = vs.RANGE_LIMITED
    if clip.format.color_family != vs.RGB and target.family == "RGB":
        extra["matrix_in"] = matrix_of(props, clip.height)
    dither = "error_diffusion" if target.bits < clip.format.bits_per_sample else "none"
    return clip.resize.Bicubic(format=target.vapoursynth_id, dither_type=dither, **extra)
